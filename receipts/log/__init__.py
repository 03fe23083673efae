"""A domain's append-only log: one holder, one writer, durable before anything leaves.

`transparency` the log as the broker uses it · `draft` what goes in and comes out · `writer` the one
thread that commits · `batch` what one transaction does · `store` the tables · `holder` who may
write · `tiles` the tree on disk · `reader` proofs and bundles.
"""

from receipts.bundle import ChallengeDisclosure, Disclosures
from receipts.log.draft import Documents, Draft, Issued, Keep, LogIdentity, LogKeys, Recorded
from receipts.log.transparency import TransparencyLog

__all__ = [
    "ChallengeDisclosure",
    "Disclosures",
    "Documents",
    "Draft",
    "Issued",
    "Keep",
    "LogIdentity",
    "LogKeys",
    "Recorded",
    "TransparencyLog",
]
