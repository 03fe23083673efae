"""What a log says beside receipts: tombstones, gaps, accusations, convictions; checked like receipts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from receipts import leaf
from receipts.audit.findings import Audit, Finding
from receipts.audit.logfile import LogFile, NoticeRow
from receipts.statements.notice import (
    BY_KIND,
    Accusation,
    Convicted,
    Gap,
    Noticed,
    Tombstone,
    read_notice,
)
from receipts.verify.convicted import convict
from receipts.verify.jury import Jury
from receipts.verify.pinned import PinnedTrust
from receipts.witnessing import equivocation
from receipts.witnessing.equivocation import Conviction
from schemas.errors import ComityError, Refused, Undecided
from schemas.keys import VerifyKey


@dataclass(slots=True)
class Notices:
    """The notices of one log that hold."""

    buried: dict[str, int] = field(default_factory=dict)
    """Receipt id of an erased receipt → its leaf."""
    gaps: list[Gap] = field(default_factory=list)
    accusations: list[tuple[Accusation, bytes]] = field(default_factory=list)
    """With their envelopes."""
    convicted: dict[str, Conviction] = field(default_factory=dict)
    """SHA-256 of a document that is kept, hex → whom it convicts."""

    def take(self, body: Noticed, row: NoticeRow, log: LogFile, held: PinnedTrust, jury: Jury | None) -> None:
        """A notice that holds. Raises `ComityError` for a conviction that does not."""
        match body:
            case Tombstone():
                self.buried[body.receipt_id] = body.leaf
            case Gap():
                self.gaps.append(body)
            case Accusation():
                self.accusations.append((body, row.envelope))
            case Convicted():
                self.convicted[body.document] = _convict(body, log, held, jury)

    def admitted(self, peer: str, first: int, last: int) -> Gap | None:
        """The gap statement that admits all of these numbers to a peer."""
        return next((each for each in self.covering(peer, first) if each.last >= last), None)

    def covering(self, peer: str, number: int) -> Iterator[Gap]:
        """Gap statements that say this number is lost."""
        return (each for each in self.gaps if each.peer == peer and each.first <= number <= each.last)


def read_notices(log: LogFile, held: PinnedTrust, result: Audit, jury: Jury | None) -> Notices:
    """Check every notice; what is wrong with one is a finding, and it counts for nothing.

    That the auditor's own quorum did not see a promise broken says nothing against who says it was. `jury`:
    as for `convict`.
    """
    found = Notices()
    keys = [each.key for each in held.registered("receipt") if each.domain == log.domain]
    for row in log.notices():
        try:
            found.take(_check(row, log, keys), row, log, held, jury)
        except ComityError as error:
            text = f"notice at leaf {row.leaf}: {error.text}"
            open_ = isinstance(error, Undecided) and error.code.startswith("quorum.")
            result.add(Finding(log.domain, error.code, "note" if open_ else "wrong", text))
    return found


def _convict(body: Convicted, log: LogFile, held: PinnedTrust, jury: Jury | None) -> Conviction:
    """Whom the document convicts, if it is kept and convicts who is said. Raises `ComityError`."""
    document = log.kept(bytes.fromhex(body.document))
    if document is None:
        raise Undecided("audit.document_absent", f"the document against {body.accused} is not here")
    conviction = convict(equivocation.read(document), held, jury)
    if conviction.accused != body.accused:
        raise Refused("audit.accused", f"it convicts {conviction.accused}, and not {body.accused}")
    return conviction


def _check(row: NoticeRow, log: LogFile, keys: list[VerifyKey]) -> Noticed:
    """Signature, strict reading, whose word it is, and the leaf. Raises `Unreadable` or `Refused`."""
    model = BY_KIND.get(row.kind)
    if model is None:
        raise Refused("audit.kind", "not a notice")
    said = read_notice(row.envelope, model, keys)
    body = said.body
    stated = None if isinstance(body, Tombstone) else (body.issuer, body.federation)
    if stated not in (None, (log.domain, log.federation)):
        raise Refused("audit.issuer", f"issued by {' in '.join(stated or ())}")
    if row.record is None or row.salt is None:
        raise Refused("audit.leaf", "its leaf or its salt is missing")
    if leaf.make(leaf.Kind(row.kind), row.salt, said.digest, said.signer).write() != row.record:
        raise Refused("audit.leaf", "its leaf is another's")
    return body
