"""What a witness catches stands in its own domain's log: said under its name, for good (receipts.md 12)."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from receipts.log import TransparencyLog
from receipts.statements.notice import Convicted, Notice
from receipts.verify.convicted import convict
from receipts.verify.jury import Jury
from receipts.verify.pinned import PinnedTrust
from receipts.witnessing import equivocation
from receipts.witnessing.equivocation import Conviction
from schemas.canonical import sha256
from schemas.errors import ComityError
from schemas.primitives import format_time

MAX_OF_ONE: Final = 8  # documents against one accused: who equivocates could make them without end


async def remember(log: TransparencyLog, held: PinnedTrust, data: bytes, at: datetime) -> Notice | None:
    """State in our log that this document convicts somebody, and keep it; None where it says nothing new.

    New is what shows a log to be false from an earlier size on. Raises `Unreadable`, or `Refused` for a
    document that convicts nobody under the keys held here, or `Undecided` where too few witnesses saw that
    a promise was late: more than half of the operators beside the accused must have.
    """
    jury = Jury(at)
    found = convict(equivocation.read(data), held, jury)
    known = [_convict(each, held, jury) for each in await log.convictions()]
    same = [each for each in known if each is not None and each.accused == found.accused]
    if len(same) >= MAX_OF_ONE or any((each.from_size or 0) <= (found.from_size or 0) for each in same):
        return None
    said = Convicted(
        federation=log.identity.federation,
        issuer=log.identity.domain,
        accused=found.accused,
        document=sha256(data).hex(),
        time=format_time(at),
    )
    return await log.state(said, kept=data)


def _convict(data: bytes, held: PinnedTrust, jury: Jury) -> Conviction | None:
    """Whom a document that stands in our log convicts; None under keys that have changed since."""
    try:
        return convict(equivocation.read(data), held, jury)
    except ComityError:
        return None
