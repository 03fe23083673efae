"""Two logs against each other: every exchange that one side logged and the other did not.

Each such exchange comes with a bundle that anyone can check with `comity receipt verify`: the
receipt of the side that has it, proven to be in that side's log. What is shown is that one party
signed and logged its half; that the other half is absent is shown by the other's own whole log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from receipts import bundle as bundles
from receipts.audit.checking import Checked
from receipts.audit.findings import Audit, Finding, Severity
from receipts.audit.logfile import LogFile
from receipts.audit.many import in_threads
from receipts.audit.notices import Notices, read_notices
from receipts.audit.whole import LIMITS, Progress, Walk, signers_of, silent
from receipts.bundle import Bundle
from receipts.statements.notice import check_accusation
from receipts.statements.receipt import (
    MODELS,
    AcknowledgementReceipt,
    ExecutionReceipt,
    PlacementReceipt,
    Receipt,
)
from receipts.statements.statement import parse_receipt, receipt_kind
from receipts.verify.jury import Jury
from receipts.verify.pinned import PinnedTrust
from schemas import envelope
from schemas.errors import ComityError, Refused
from schemas.primitives import parse_time

DUE_S: Final = (
    3600  # seconds after a Placement by which its Execution must be logged, unless it says otherwise
)

Keep = Callable[[str, bytes], str]
"""(name, bundle) → where it was written."""


@dataclass(slots=True)
class Side:
    """One party's log with what it keeps of the other's receipts."""

    log: LogFile
    own: dict[str, Checked] = field(default_factory=dict)
    """Receipt digest → a receipt of its own about the other."""
    executed: set[str] = field(default_factory=set)
    """Digests of Placements that its Executions name."""
    copies: dict[str, tuple[Receipt, bytes, bytes | None]] = field(default_factory=dict)
    """Receipt digest → (receipt, envelope, proof) that the other signed and that is kept here."""
    notices: Notices = field(default_factory=Notices)

    @property
    def domain(self) -> str:
        return self.log.domain

    def bodies(self) -> Iterator[tuple[str, Receipt]]:
        for digest, checked in self.own.items():
            if checked.body is not None:
                yield digest, checked.body

    def take(self, checked: Checked) -> None:
        """One more receipt of its own."""
        digest = checked.row.digest.hex()
        self.own[digest] = checked
        if isinstance(checked.body, ExecutionReceipt):
            self.executed |= {link.digest for link in checked.body.links if link.rel == "placement"}


def audit_pair(
    first: LogFile,
    second: LogFile,
    held: PinnedTrust,
    papers: Bundle,
    *,
    at: datetime,
    jury: Jury | None = None,
    keep: Keep | None = None,
    progress: Progress = silent,
) -> Audit:
    """Compare two logs. `keep` stores the bundle behind a finding. Raises `Unreadable`.

    `jury`: whose cosignatures show that a promise was late; without it, none is judged.
    """
    title = f"Pair {first.domain} and {second.domain}"
    result = Audit(title, limits=list(LIMITS))
    sides = (Side(first), Side(second))
    for side, other in (sides, sides[::-1]):
        if side.domain not in held.manifests or side.domain == other.domain:
            text = f"{side.domain} has no manifest under the pin, or is both sides"
            result.add(Finding(side.domain, "audit.no_manifest", "wrong", text))
            return result
        side.notices = read_notices(side.log, held, result, jury)
        _read(side, other.domain, held, result, progress)
        result.counts[side.domain] = {"receipts": len(side.own), "copies": len(side.copies)}
    comparison = Comparison(result, held, papers, at, keep)
    for side, other in (sides, sides[::-1]):
        comparison.placements(side, other)
        comparison.executions(side, other)
        comparison.acknowledgements(side, other)
        comparison.copies(side, other)
        comparison.accusations(side, other)
        comparison.convictions(side, other)
    return result


def _read(side: Side, other: str, held: PinnedTrust, result: Audit, progress: Progress) -> None:
    """Its receipts to the other, with their sequence; and the other's that it keeps."""
    walk, total = Walk(side.domain, result, side.notices), side.log.size
    signers = signers_of(side.domain, held)
    for checked in in_threads(side.log.rows(peer=other), signers, whole=True):
        walk.take(checked)
        side.take(checked)
        if walk.seen % 1000 == 0:
            progress(walk.seen, total)
    keys = [each.key for each in held.registered("receipt") if each.domain == other]
    for digest, data, text in side.log.foreign():
        try:
            verified = envelope.verify(data, envelope.STATEMENT, keys)
            model = MODELS.get(receipt_kind(verified.payload))
            if model is None:
                continue  # a promise or a node's statement
            body = parse_receipt(verified.payload, model)
        except ComityError:
            continue  # nothing that the other side's key signed
        if body.issuer == other and body.peer == side.domain:
            side.copies[digest.hex()] = (body, data, text)


@dataclass(slots=True)
class Comparison:
    """What one log owes the other."""

    result: Audit
    held: PinnedTrust
    papers: Bundle
    at: datetime
    keep: Keep | None

    def placements(self, side: Side, other: Side) -> None:
        """Each Placement wants an Execution in the executor's log."""
        for digest, body in side.bodies():
            if not isinstance(body, PlacementReceipt) or body.refused or body.peer != other.domain:
                continue
            if digest in other.executed:
                continue
            due = parse_time(body.times.issued).timestamp() + (body.deadline_ms or DUE_S * 1000) / 1000
            if due > self.at.timestamp():
                self._own(
                    side,
                    digest,
                    body,
                    other.domain,
                    "audit.execution_pending",
                    "note",
                    "Placement whose Execution is not due yet",
                )
                continue
            self._own(
                side,
                digest,
                body,
                other.domain,
                "audit.execution_missing",
                "missing",
                f"{side.domain} logged a Placement, {other.domain} no Execution of it",
            )

    def executions(self, side: Side, other: Side) -> None:
        """Each Execution names a Placement in the consumer's log, and the consumer has a copy and its say."""
        acknowledged = {
            link.digest
            for _, body in other.bodies()
            if isinstance(body, AcknowledgementReceipt)
            for link in body.links
        }
        for digest, body in side.bodies():
            if not isinstance(body, ExecutionReceipt):
                continue
            named = [link.digest for link in body.links if link.rel == "placement"]
            if not named or named[0] not in other.own:
                self._own(
                    side,
                    digest,
                    body,
                    other.domain,
                    "audit.placement_missing",
                    "missing",
                    f"{side.domain} logged an Execution, {other.domain} no Placement for it",
                )
            elif digest not in other.copies:
                self._own(
                    side,
                    digest,
                    body,
                    side.domain,
                    "audit.not_delivered",
                    "note",
                    f"{other.domain} keeps no copy of this Execution",
                )
            elif digest not in acknowledged:
                self._own(
                    side,
                    digest,
                    body,
                    other.domain,
                    "audit.not_acknowledged",
                    "missing",
                    f"{other.domain} keeps this Execution, and says nothing of what arrived",
                )

    def acknowledgements(self, side: Side, other: Side) -> None:
        """Each Acknowledgement is about an Execution that exists, and agrees with it."""
        for digest, body in side.bodies():
            if not isinstance(body, AcknowledgementReceipt):
                continue
            self._views(side, other, digest, body)
            named = [link.digest for link in body.links if link.rel == "execution"]
            executed = other.own.get(named[0]) if named else None
            if body.status == "agreed" and (executed is None or executed.body is None):
                self._own(
                    side,
                    digest,
                    body,
                    other.domain,
                    "audit.acknowledged_nothing",
                    "missing",
                    f"{side.domain} acknowledged an Execution that {other.domain} did not log",
                )
            elif executed is not None and isinstance(executed.body, ExecutionReceipt):
                self._agreed(side, digest, body, executed.body)

    def _views(self, side: Side, other: Side, digest: str, body: AcknowledgementReceipt) -> None:
        """The other's log as it is here must begin with all that the side was shown of it."""
        for seen in body.seen:
            if seen.origin != other.log.origin:
                continue
            try:
                if other.log.root_at(seen.size).hex() == seen.root:
                    continue
                what = "other leaves"
            except Refused:
                what = "fewer leaves"
            text = f"{side.domain} saw {seen.origin} at size {seen.size}: what is here has {what}"
            self._own(side, digest, body, other.domain, "audit.split_view", "wrong", text)

    def _agreed(
        self, side: Side, digest: str, body: AcknowledgementReceipt, executed: ExecutionReceipt
    ) -> None:
        if body.usage_agreed is not None and body.usage_agreed != executed.usage:
            self._own(
                side,
                digest,
                body,
                side.domain,
                "audit.usage_differs",
                "wrong",
                f"{side.domain} agreed to other counters than {executed.issuer} states",
            )
        if body.status == "agreed" and body.response != executed.response:
            self._own(
                side,
                digest,
                body,
                side.domain,
                "audit.response_differs",
                "wrong",
                f"{side.domain} agreed to another answer than {executed.issuer} committed to",
            )

    def copies(self, side: Side, other: Side) -> None:
        """What the other signed and handed over must stand in its own log, as it is."""
        numbers = {
            (checked.row.seq): digest for digest, checked in other.own.items() if checked.error is None
        }
        for digest, (body, data, text) in side.copies.items():
            if digest in other.own:
                continue
            twin = numbers.get(body.seq)
            envelopes = {bytes.fromhex(digest): data}
            proofs = {bytes.fromhex(digest): text} if text else {}
            if twin is None:
                what = f"{other.domain} signed a {_word(body)} that is not in its log"
                self._add(other.domain, "audit.not_in_log", "missing", what, body, envelopes, proofs)
                continue
            what = f"{other.domain} gave number {body.seq} to two receipts"
            envelopes |= self._row_envelope(other, twin)
            self._add(other.domain, "audit.two_receipts", "wrong", what, body, envelopes, proofs)

    def accusations(self, side: Side, other: Side) -> None:
        """Each accusation stands until the accused's log shows the receipt that it named."""
        keys = [each.key for each in self.held.registered("receipt") if each.domain == other.domain]
        for body, data in side.notices.accusations:
            if body.accused != other.domain:
                continue
            try:
                shown = check_accusation(body, keys)
            except ComityError as error:
                self.result.add(Finding(side.domain, error.code, "wrong", error.text))
                continue
            if body.named in other.own:
                text = f"{other.domain} shows number {body.number}, which it was accused of withholding"
                self.result.add(Finding(other.domain, "audit.accusation_answered", "note", text))
                continue
            text = f"{other.domain} withholds number {body.number} to {side.domain}, which its next one names"
            name = f"accusation-{body.named[:16]}.dsse.json"
            where = self.keep(name, data) if self.keep else None
            self.result.add(
                Finding(
                    other.domain, "audit.accusation_stands", "missing", text, shown.receipt_id,
                    shown.request.id, where,
                )
            )  # fmt: skip

    def convictions(self, side: Side, other: Side) -> None:
        """A log or an issuer that a document kept here convicts is believed no more."""
        for name, found in side.notices.convicted.items():
            if found.accused not in (other.domain, other.log.origin):
                continue
            document = side.log.kept(bytes.fromhex(name))
            where = self.keep(f"equivocation-{name[:16]}.json", document) if self.keep and document else None
            self.result.add(Finding(other.domain, "audit.convicted", "wrong", found.text, proof=where))

    def _row_envelope(self, side: Side, digest: str) -> dict[bytes, bytes]:
        row = side.own[digest].row
        return {row.digest: row.envelope} if row.envelope else {}

    def _own(
        self, side: Side, digest: str, body: Receipt, accused: str, code: str, severity: Severity, text: str
    ) -> None:
        """A finding that a receipt of the side's own log shows, with that receipt's proof."""
        row = side.own[digest].row
        logged = side.log.proof(row) if severity != "note" else None
        assert row.envelope is not None
        proofs = {row.digest: logged} if logged else {}
        self._add(accused, code, severity, text, body, {row.digest: row.envelope}, proofs)

    def _add(
        self,
        accused: str,
        code: str,
        severity: Severity,
        text: str,
        body: Receipt,
        envelopes: dict[bytes, bytes],
        proofs: dict[bytes, bytes],
    ) -> None:
        where = None
        if self.keep is not None and severity != "note":
            shown = Bundle(
                envelopes=dict(sorted(envelopes.items())),
                proofs=proofs,
                charter=self.papers.charter,
                manifests=self.papers.manifests,
            )
            where = self.keep(f"{code.partition('.')[2]}-{body.receipt_id}.receipt", bundles.write(shown))
        self.result.add(Finding(accused, code, severity, text, body.receipt_id, body.request.id, where))


def _word(body: Receipt) -> str:
    return type(body).__name__.removesuffix("Receipt")
