"""What a log says of itself beside receipts: tombstones, gaps, accusations, each checked like a receipt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from receipts import leaf
from receipts.audit.findings import Audit, Finding
from receipts.audit.logfile import LogFile, NoticeRow
from receipts.statements.fields import Camel
from receipts.statements.notice import BY_KIND, Accusation, Gap, Tombstone, read_notice
from receipts.verify.pinned import PinnedTrust
from schemas.errors import ComityError, Refused
from schemas.keys import VerifyKey


@dataclass(slots=True)
class Notices:
    """The notices of one log that hold."""

    buried: dict[str, int] = field(default_factory=dict)
    """Receipt id of an erased receipt → its leaf."""
    gaps: list[Gap] = field(default_factory=list)
    accusations: list[tuple[Accusation, bytes]] = field(default_factory=list)
    """With their envelopes."""

    def admitted(self, peer: str, first: int, last: int) -> Gap | None:
        """The gap statement that admits all of these numbers to a peer."""
        return next((each for each in self.covering(peer, first) if each.last >= last), None)

    def covering(self, peer: str, number: int) -> Iterator[Gap]:
        """Gap statements that say this number is lost."""
        return (each for each in self.gaps if each.peer == peer and each.first <= number <= each.last)


def read_notices(log: LogFile, held: PinnedTrust, result: Audit) -> Notices:
    """Check every notice; what is wrong with one is a finding, and it counts for nothing."""
    found = Notices()
    keys = [each.key for each in held.registered("receipt") if each.domain == log.domain]
    for row in log.notices():
        try:
            body = _check(row, log, keys)
        except ComityError as error:
            text = f"notice at leaf {row.index}: {error.text}"
            result.add(Finding(log.domain, error.code, "wrong", text))
            continue
        match body:
            case Tombstone():
                found.buried[body.receipt_id] = body.leaf
            case Gap():
                found.gaps.append(body)
            case Accusation():
                found.accusations.append((body, row.envelope))
    return found


def _check(row: NoticeRow, log: LogFile, keys: list[VerifyKey]) -> Camel:
    """Signature, strict reading, whose word it is, and the leaf. Raises `Unreadable` or `Refused`."""
    model = BY_KIND.get(row.kind)
    if model is None:
        raise Refused("audit.kind", "not a notice")
    said = read_notice(row.envelope, model, keys)
    body = said.body
    if isinstance(body, Gap | Accusation) and (body.issuer, body.federation) != (log.domain, log.federation):
        raise Refused("audit.issuer", f"issued by {body.issuer} in {body.federation}")
    if row.record is None or row.salt is None:
        raise Refused("audit.leaf", "its leaf or its salt is missing")
    if leaf.make(leaf.Kind(row.kind), row.salt, said.digest, said.signer).write() != row.record:
        raise Refused("audit.leaf", "its leaf is another's")
    return body
