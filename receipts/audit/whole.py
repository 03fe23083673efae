"""A whole log: every receipt signed, strict, under its leaf and in its sequence; every checkpoint true.

The tree is grown again from its leaves and compared with each checkpoint ever signed, which is
inclusion for every receipt and consistency for every pair of checkpoints at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Final

from receipts import leaf
from receipts.audit.checking import Checked, Signer, Signers
from receipts.audit.findings import Audit, Finding, Severity
from receipts.audit.logfile import LogFile
from receipts.audit.many import PROCESSES_FROM, in_threads, processes
from receipts.audit.notices import Notices, read_notices
from receipts.audit.replayed import Replay
from receipts.audit.rows import Row
from receipts.counted import counted
from receipts.log import fsck
from receipts.statements.notice import Gap
from receipts.statements.promise import MAX_MERGE_DELAY_S
from receipts.statements.receipt import FIRST
from receipts.verify.jury import Jury
from receipts.verify.pinned import PinnedTrust
from receipts.verify.replay.selection import Selection
from schemas.canonical import Json
from schemas.errors import Refused, Unreadable

KINDS: Final = {int(kind): kind.name.lower() for kind in leaf.Kind}
LIMITS: Final = (
    "A request that both domains hide leaves no trace in either log.",
    "A log that shows another history to others is found out by witnesses, not by reading this copy.",
)

Progress = Callable[[int, int], None]
"""(receipts done, receipts in all)"""


def silent(_done: int, _all: int) -> None:
    """No progress to show."""


def audit_log(
    log: LogFile,
    held: PinnedTrust,
    *,
    progress: Progress = silent,
    policies: Mapping[str, bytes] | None = None,
    selection: Selection | None = None,
    jury: Jury | None = None,
) -> Audit:
    """Audit one log under the auditor's pin.

    Raises `Unreadable` when the database cannot be read, or is changed meanwhile; `Undecided` when a
    process that helps was killed. `policies`: digest → text of policy sets; where given, every decision is
    made again. `jury`: whose cosignatures show that a promise was late, and the moment; without it, no delay
    is judged.
    """
    result = Audit(f"Log {log.origin} of {log.domain}", limits=list(LIMITS))
    if log.domain not in held.manifests:
        text = f"{log.domain} has no manifest under the pin"
        result.add(Finding(log.domain, "audit.no_manifest", "wrong", text))
        return result
    walk = Walk(log.domain, result, read_notices(log, held, result, jury))
    for conviction in walk.notices.convicted.values():  # of others: it says nothing against this log
        result.add(Finding(conviction.accused, "audit.convicted", "note", conviction.text))
    replay = None if policies is None else Replay.of(log, held, policies, selection, result)
    total = log.size
    with ExitStack() as stack:
        checked = _authenticated(log, signers_of(log.domain, held), stack, whole=replay is not None)
        _tree(log, held, result)
        _covered(log, result, jury)
        for each in checked:
            walk.take(each)
            if replay is not None and each.body is not None:
                replay.take(each.row, each.body)
            if walk.seen % 1000 == 0:
                progress(walk.seen, total)
    progress(walk.seen, total)
    if walk.seen != total:
        raise Unreadable("log.changed", f"{total} receipts, of which {walk.seen} were read: it was changed")
    walk.finish(fsck.alone(log.connection))
    result.counts |= walk.counts()
    if replay is not None:
        result.counts |= replay.counts()
    return result


def _authenticated(log: LogFile, signers: Signers, stack: ExitStack, *, whole: bool) -> Iterator[Checked]:
    """All receipts: by processes where there are many and processes can be had, by threads otherwise."""
    if not whole and log.size >= PROCESSES_FROM:
        with suppress(OSError):
            return stack.enter_context(processes(log.path, signers)).check(log.connection)
    return in_threads(log.rows(), signers, whole=whole)


def _tree(log: LogFile, held: PinnedTrust, result: Audit) -> None:
    findings = fsck.Findings(log.origin)
    try:
        keys = held.log_keys(log.domain, log.origin)
    except Refused as error:
        result.add(Finding(log.domain, error.code, "wrong", error.text))
        return
    fsck.check_tree(log.connection, findings, keys)
    for text in findings.wrong:
        result.add(Finding(log.domain, "audit.tree", "wrong", text))
    result.counts |= {"leaves": findings.leaves, "checkpoints": findings.checkpoints}


def _covered(log: LogFile, result: Audit, jury: Jury | None) -> None:
    """Each leaf is under a checkpoint by its promise's deadline; without, the log may yet be anything."""
    if jury is None:
        return
    owed = log.uncovered(int((jury.at.timestamp() - MAX_MERGE_DELAY_S) * 1000))
    if owed:
        leaves = counted(owed, "leaf stands", "leaves stand")
        text = f"{leaves} under no checkpoint, though the merge delay is over"
        result.add(Finding(log.domain, "audit.no_checkpoint", "missing", text))


def signers_of(domain: str, held: PinnedTrust) -> Signers:
    """The receipt keys that a domain registered, revoked ones included."""
    registered = [each for each in held.registered("receipt") if each.domain == domain]
    return Signers(
        domain,
        held.federation,
        tuple(
            Signer(
                each.entry.jwk,
                each.entry.not_before,
                each.entry.not_after,
                each.revoked.reason if each.revoked else None,
            )
            for each in registered
        ),
    )


@dataclass(slots=True)
class Walk:
    """Follows each peer's sequence through the log."""

    domain: str
    result: Audit
    notices: Notices
    seen: int = 0
    erased: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    heads: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    """Peer → number and digest of its newest receipt."""
    gaps: Counter[str] = field(default_factory=Counter)
    """Peer → numbers that are not in the log."""

    def take(self, checked: Checked) -> None:
        """The next receipt of the log."""
        row = checked.row
        self.seen += 1
        self.kinds[KINDS.get(row.kind, "of no known kind")] += 1
        if checked.error is not None:
            self._add(row, checked.error.code, "wrong", checked.error.text)
        elif checked.prev is None:
            self._erased(row)
        self._follow(row, checked.prev)
        self.heads[row.peer] = (row.seq, row.digest)

    def _erased(self, row: Row) -> None:
        self.erased += 1
        if self.notices.buried.get(row.receipt_id) != row.leaf:
            self._add(row, "audit.no_tombstone", "missing", "erased, and no tombstone says by whose order")

    def _follow(self, row: Row, prev: str | None) -> None:
        if self.notices.gaps and any(self.notices.covering(row.peer, row.seq)):
            text = f"number {row.seq} to {row.peer} is here, though it was said to be lost"
            self._add(row, "audit.gap_false", "wrong", text)
        head = self.heads.get(row.peer)
        wanted = 0 if head is None else head[0] + 1
        if row.seq > wanted:
            self._missing(row, wanted)
        elif row.seq < wanted:
            text = f"number {row.seq} to {row.peer} stands there twice or out of order"
            self._add(row, "audit.sequence_fork", "wrong", text)
        elif prev is not None and prev != (FIRST if head is None else head[1].hex()):
            text = f"number {row.seq} to {row.peer} names another predecessor"
            self._add(row, "audit.sequence_prev", "wrong", text)

    def _missing(self, row: Row, wanted: int) -> None:
        """Numbers that are not there: owed, unless their loss was admitted."""
        self.gaps[row.peer] += row.seq - wanted
        numbers = f"number {wanted}" if row.seq == wanted + 1 else f"numbers {wanted} to {row.seq - 1}"
        text = f"{numbers} to {row.peer} not in the log"
        gap = self.notices.admitted(row.peer, wanted, row.seq - 1)
        if gap is None:
            self._add(row, "audit.sequence_gap", "missing", text)
        else:
            self._add(row, "audit.gap_admitted", "note", f"{text}; {self.domain} admits it: {gap.reason}")

    def finish(self, alone: Sequence[int]) -> None:
        """Leaves without a receipt: numbers missing between others are named already, the newest are not."""
        known = sum(self.gaps.values()) + sum(map(self._admitted_behind, self.notices.gaps))
        if len(alone) > known:
            more = f"beside the {known} whose numbers are missed" if known else f"leaf {alone[-1]} among them"
            leaves = counted(len(alone) - known, "leaf stands", "leaves stand")
            text = f"{leaves} there without a receipt, {more}"
            self.result.add(Finding(self.domain, "audit.receipt_gone", "missing", text))

    def _admitted_behind(self, gap: Gap) -> int:
        """How many numbers after a peer's newest one this gap says were lost."""
        head = self.heads.get(gap.peer)
        return max(0, gap.last + 1 - max(gap.first, 0 if head is None else head[0] + 1))

    def _add(self, row: Row, code: str, severity: Severity, text: str) -> None:
        self.result.add(Finding(self.domain, code, severity, text, row.receipt_id))

    def counts(self) -> dict[str, Json]:
        peers: dict[str, Json] = {
            peer: {"receipts": seq + 1 - self.gaps[peer], "newest": seq, "gaps": self.gaps[peer]}
            for peer, (seq, _) in sorted(self.heads.items())
        }
        kinds: dict[str, Json] = dict(sorted(self.kinds.items()))
        notices: dict[str, Json] = {
            "tombstones": len(self.notices.buried),
            "gaps": len(self.notices.gaps),
            "accusations": len(self.notices.accusations),
            "convictions": len(self.notices.convicted),
        }
        return {
            "receipts": self.seen, "kinds": kinds, "erased": self.erased, "peers": peers, "notices": notices,
        }  # fmt: skip
