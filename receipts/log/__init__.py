"""A domain's append-only log: one holder, one writer, durable before anything leaves.

`transparency` the log as the broker uses it · `draft` what goes in and comes out · `writing/` the
holder, the one thread and its transactions · `store` the tables · `tiles` the tree on disk · `static`
the same for tlog tools · `reader` proofs and bundles · `fsck` is it what was signed.
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
