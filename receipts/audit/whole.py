"""A whole log: every receipt signed, strict, under its leaf and in its sequence; every checkpoint true.

The tree is grown again from its leaves and compared with each checkpoint ever signed, which is
inclusion for every receipt and consistency for every pair of checkpoints at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from receipts import leaf
from receipts.audit.findings import Audit, Finding, Severity
from receipts.audit.logfile import LogFile, Row
from receipts.audit.replayed import Replay
from receipts.log import fsck
from receipts.statements.receipt import FIRST, MODELS, Receipt
from receipts.statements.receipt import KINDS as RECEIPT_KINDS
from receipts.statements.statement import parse_receipt
from receipts.verify.pinned import PinnedTrust, Registered
from receipts.verify.replay.choice import Rerank
from schemas import envelope
from schemas.canonical import Json
from schemas.errors import ComityError, Refused
from schemas.keys import VerifyKey
from schemas.primitives import parse_time

KINDS: Final = {int(kind): kind.name.lower() for kind in leaf.Kind}
PREDICATES_BY_KIND: Final = {int(kind): name for name, kind in RECEIPT_KINDS.items()}
THREADS: Final = 2  # verifying frees the interpreter's lock: two threads come close to twice the rate
CHUNK: Final = 128  # receipts a thread takes at once
LIMITS: Final = (
    "A request that both domains hide leaves no trace in either log.",
    "A log that shows another history to others is found out by witnesses, not by reading this copy.",
)

Progress = Callable[[int, int], None]
"""(receipts done, receipts in all)"""


def silent(_done: int, _all: int) -> None:
    """No progress to show."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A receipt as far as it was believed: `body` is None when it was not, and `error` says why."""

    row: Row
    body: Receipt | None
    digest: bytes
    error: ComityError | None = None


def audit_log(
    log: LogFile,
    held: PinnedTrust,
    *,
    progress: Progress = silent,
    policies: Mapping[str, bytes] | None = None,
    rerank: Rerank | None = None,
) -> Audit:
    """Audit one log under the auditor's pin. Raises `Unreadable` when the database cannot be read.

    `policies`: digest → text of policy sets; where given, every decision is made again.
    """
    result = Audit(f"Log {log.origin} of {log.domain}", limits=list(LIMITS))
    if log.domain not in held.manifests:
        text = f"{log.domain} has no manifest under the pin"
        result.add(Finding(log.domain, "audit.no_manifest", "wrong", text))
        return result
    _tree(log, held, result)
    walk = Walk(log.domain, result)
    replay = None if policies is None else Replay.of(log, held, policies, rerank, result)
    total = log.size
    for checked in check(log.rows(), log.domain, held):
        walk.take(checked)
        if replay is not None and checked.body is not None:
            replay.take(checked.row, checked.body)
        if walk.seen % 1000 == 0:
            progress(walk.seen, total)
    progress(walk.seen, total)
    result.counts |= walk.counts()
    if replay is not None:
        result.counts |= replay.counts()
    return result


def _tree(log: LogFile, held: PinnedTrust, result: Audit) -> None:
    findings = fsck.Findings(log.origin)
    try:
        (key, *_) = held.log_keys(log.domain, log.origin)
    except Refused as error:
        result.add(Finding(log.domain, error.code, "wrong", error.text))
        return
    fsck.check_tree(log.connection, findings, key)
    for text in findings.wrong:
        result.add(Finding(log.domain, "audit.tree", "wrong", text))
    result.counts |= {"leaves": findings.leaves, "checkpoints": findings.checkpoints}


def check(rows: Iterable[Row], domain: str, held: PinnedTrust) -> Iterator[Checked]:
    """Authenticate receipts, in their order, in two threads."""
    registered = {each.entry.thumbprint: each for each in held.registered("receipt") if each.domain == domain}
    keys = [each.key for each in registered.values()]
    with ThreadPoolExecutor(THREADS, thread_name_prefix="comity-audit") as pool:
        waiting = []
        source = iter(rows)
        while chunk := list(islice(source, CHUNK)):
            waiting.append(pool.submit(_check_all, chunk, domain, held.federation, registered, keys))
            if len(waiting) > THREADS:
                yield from waiting.pop(0).result()
        for each in waiting:
            yield from each.result()


def _check_all(
    rows: Sequence[Row],
    domain: str,
    federation: str,
    registered: dict[str, Registered],
    keys: Sequence[VerifyKey],
) -> list[Checked]:
    return [_check(row, domain, federation, registered, keys) for row in rows]


def _check(
    row: Row, domain: str, federation: str, registered: dict[str, Registered], keys: Sequence[VerifyKey]
) -> Checked:
    """One receipt: signature, strict reading, right to sign, leaf, and what its row says of it."""
    if not row.envelope:
        return Checked(row, None, row.digest)
    try:
        verified = envelope.verify(row.envelope, envelope.STATEMENT, keys)
        if row.kind not in PREDICATES_BY_KIND:
            raise Refused("audit.kind", "not a receipt")
        # The leaf's own kind says how to read it: another kind of receipt does not parse as this one.
        body = parse_receipt(verified.payload, MODELS[PREDICATES_BY_KIND[row.kind]])
        if (body.issuer, body.federation) != (domain, federation):
            raise Refused("audit.issuer", f"issued by {body.issuer} in {body.federation}")
        _check_key(registered[verified.signer], body)
        _check_leaf(row, verified.digest, verified.signer)
        if (verified.digest, body.receipt_id, body.peer, body.seq) != (
            row.digest, row.receipt_id, row.peer, row.seq,
        ):  # fmt: skip
            raise Refused("audit.row", "the database's row says something else than the receipt does")
    except ComityError as error:
        return Checked(row, None, row.digest, error)
    return Checked(row, body, verified.digest)


def _check_key(key: Registered, body: Receipt) -> Registered:
    issued = int(parse_time(body.times.issued).timestamp())
    if not key.entry.not_before <= issued < key.entry.not_after:
        raise Refused("audit.key_time", "issued outside the key's time")
    if key.revoked is not None:
        # What was witnessed before the theft is judged with its cosignatures: `comity receipt verify`.
        raise Refused("audit.key_revoked", f"the key was revoked ({key.revoked.reason})")
    return key


def _check_leaf(row: Row, digest: bytes, signer: str) -> bytes:
    """Return the leaf if it is this receipt's. Raises `Refused`."""
    if row.record is None:
        raise Refused("audit.leaf", f"leaf {row.index} is missing")
    if row.salt is None:
        raise Refused("audit.salt", "its salt is gone though the receipt is not")
    if (
        row.kind not in KINDS
        or leaf.make(leaf.Kind(row.kind), row.salt, digest, signer).write() != row.record
    ):
        raise Refused("audit.leaf", f"leaf {row.index} is another receipt's")
    return row.record


@dataclass(slots=True)
class Walk:
    """Follows each peer's sequence through the log."""

    domain: str
    result: Audit
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
        elif checked.body is None:
            self.erased += 1
        self._follow(row, checked.body)
        self.heads[row.peer] = (row.seq, row.digest)

    def _follow(self, row: Row, body: Receipt | None) -> None:
        head = self.heads.get(row.peer)
        wanted = 0 if head is None else head[0] + 1
        if row.seq > wanted:
            self.gaps[row.peer] += row.seq - wanted
            numbers = f"number {wanted}" if row.seq == wanted + 1 else f"numbers {wanted} to {row.seq - 1}"
            self._add(row, "audit.sequence_gap", "missing", f"{numbers} to {row.peer} not in the log")
        elif row.seq < wanted:
            text = f"number {row.seq} to {row.peer} stands there twice or out of order"
            self._add(row, "audit.sequence_fork", "wrong", text)
        elif body is not None and body.prev != (FIRST if head is None else head[1].hex()):
            text = f"number {row.seq} to {row.peer} names another predecessor"
            self._add(row, "audit.sequence_prev", "wrong", text)

    def _add(self, row: Row, code: str, severity: Severity, text: str) -> None:
        self.result.add(Finding(self.domain, code, severity, text, row.receipt_id))

    def counts(self) -> dict[str, Json]:
        peers: dict[str, Json] = {
            peer: {"receipts": seq + 1 - self.gaps[peer], "newest": seq, "gaps": self.gaps[peer]}
            for peer, (seq, _) in sorted(self.heads.items())
        }
        kinds: dict[str, Json] = dict(sorted(self.kinds.items()))
        return {"receipts": self.seen, "kinds": kinds, "erased": self.erased, "peers": peers}
