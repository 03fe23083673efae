"""Domains watch each other's logs: a log cannot show two histories, nor backdate, while a quorum looks.

`quorum` whose word is enough, and since when · `equivocation` a log that was caught, for any court ·
`state` what a witness must remember · `server` tlog-witness over HTTP · `asking` how a log asks its
witnesses · `commands` the program. The judgement itself is `receipts.witness`, pure.
"""
