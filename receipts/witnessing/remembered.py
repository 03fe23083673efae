"""What a witness catches stands in its own domain's log: said under its name, for good (receipts.md 12)."""

from __future__ import annotations

from datetime import datetime

from receipts.log import TransparencyLog
from receipts.statements.notice import Convicted, Notice
from receipts.verify.convicted import convict
from receipts.verify.pinned import PinnedTrust
from receipts.witnessing import equivocation
from schemas.canonical import sha256
from schemas.primitives import format_time


async def remember(log: TransparencyLog, held: PinnedTrust, data: bytes, at: datetime) -> Notice | None:
    """State in our log that this document convicts somebody, and keep it; None where it stands there.

    Raises `Unreadable`, or `Refused` for one that convicts nobody under the keys held here.
    """
    if data in await log.convictions():
        return None
    found = convict(equivocation.read(data), held)
    said = Convicted(
        federation=log.identity.federation,
        issuer=log.identity.domain,
        accused=found.accused,
        document=sha256(data).hex(),
        time=format_time(at),
    )
    return await log.state(said, kept=data)
