"""Claims `policy` and `plan-choice`: decided again here, from the facts and rules that a receipt pins.

`policy` the decision · `refusal` that nobody was left · `choice` the ranking, `candidates` its list ·
`selection` how a broker's own ways are handed in · `claims` what a bundle's receipt may be said to show.
The record of a decision and the inputs of a ranking are named in the receipt by digest, the rules by
their own. A broker that lied about either is exposed: what it signed does not come out again.
"""
