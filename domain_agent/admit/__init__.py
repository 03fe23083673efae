"""Who may serve: challenges, evidence, our own appraisal, and revocation.

`challenges` ours and our peers' · `admission` the gate · `nodes` what is known of each · `revocations`
what an operator has put out, durably.
"""
