"""Receipts: what issuing, verifying and proving cost, as ratios of raw signing and verifying.

Everything runs interleaved in one process, median of several rounds: absolute numbers depend on the
machine, ratios much less. What one thread does is measured in its own processor time, what needs the
disk or several threads by the clock. `python -m bench.receipts [--large]`; `--large` adds a tree of a
million leaves.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from broker.starting.program import THREAD_TURN_S
from receipts import merkle, proof
from receipts.audit.checking import check_all
from receipts.audit.findings import Audit
from receipts.audit.logfile import LogFile
from receipts.audit.many import in_threads
from receipts.audit.whole import audit_log, signers_of
from receipts.leaf import Kind
from receipts.log import Draft, Issued, LogIdentity, LogKeys, TransparencyLog
from receipts.log.draft import prepare_all
from receipts.log.tiles import TileSource, Tree
from receipts.log.writing.signing import Signer, State
from receipts.note import NoteSigner
from receipts.statements.fields import (
    Capability,
    Layer,
    ManifestRef,
    PolicyDecision,
    PolicyFile,
    RequestRef,
    Times,
    Verifier,
)
from receipts.statements.receipt import (
    Considered,
    Executor,
    Inputs,
    Objective,
    PlacementDraft,
    PlacementReceipt,
    Plan,
    Terms,
)
from receipts.statements.statement import read_receipt
from receipts.verify.pinned import PinnedTrust
from schemas.keys import SigningKey
from schemas.papers.manifest import DomainManifest, LogKey, RoleKey, Roots
from schemas.primitives import format_time

ROUNDS: Final = 7
COUNT: Final = 256  # receipts a round
PATTERNS: Final = ((COUNT, 2, 4 * COUNT), (COUNT, 1, 4 * COUNT), (16, 1, COUNT), (1, COUNT, 8), (1, 1, 64))
"""(receipts that one call issues, callers, receipts of each caller in a round)"""
LATENCIES: Final = 500  # single receipts, one after the other
AUDITED: Final = 20_000  # receipts in the log that is audited
MILLION: Final = 1_000_000


@dataclass(frozen=True)
class Figure:
    """One line of the result."""

    name: str
    value: str
    ratio: str = ""
    goal: str = ""


def placement() -> PlacementDraft:
    """A Placement of the size that a broker writes."""
    now, some = format_time(datetime.now(UTC)), secrets.token_hex(32)
    zero = "0.0"
    return PlacementDraft(
        audience=["clinic.de", "cloud.fr"],
        peer="cloud.fr",
        request=RequestRef(id=secrets.token_hex(16), commitment=some),
        times=Times(received=now, issued=now),
        plan=Plan(digest=some, id="p", domain="cloud.fr", nodes=["A" * 43]),
        path="full",
        considered=Considered(root=some, count=12, selected_index=3),
        objective=Objective(
            name="J", version="1", digest=some, score="412.5",
            terms=Terms(net="3.2", queue=zero, exec="405.0", state=zero, load="4.3", policy=zero),
        ),
        capability=Capability(name="chat.small/model", artifact_digest=some),
        policy=PolicyDecision(
            verifier=Verifier(id="urn:cedar:4.12"),
            policies=[PolicyFile(name=name, sha256=some) for name in ("charter", "tenant", "provider")],
            time_created=now,
            verdict="allow",
            layers=[
                Layer(layer=layer, digest=some, verdict="allow", rules=["FED-001-member"])
                for layer in ("charter", "national", "tenant", "provider")
            ],
            input_commitment=some,
        ),
        inputs=Inputs(registry=some),
        executor=Executor(domain="cloud.fr", key="A" * 43),
    )  # fmt: skip


def keys() -> LogKeys:
    note = NoteSigner.of("clinic.de/log", secrets.token_bytes(32))
    return LogKeys(SigningKey.generate(), SigningKey.generate(), note)


IDENTITY: Final = LogIdentity("bench", "clinic.de", "clinic.de/log", ManifestRef(version=1, digest="0" * 64))


def seconds(action: Callable[[], object], clock: Callable[[], float] = time.thread_time) -> float:
    start = clock()
    action()
    return clock() - start


def interleaved(actions: dict[str, Callable[[], object]], clock: Callable[[], float]) -> dict[str, float]:
    """Median seconds of each action, taken in turns so that all see the same machine."""
    taken: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(ROUNDS):
        for name, action in actions.items():
            taken[name].append(seconds(action, clock))
    return {name: statistics.median(times) for name, times in taken.items()}


def in_memory(log_keys: LogKeys, issued: Sequence[Issued]) -> list[Figure]:
    """Signing and reading without a disk, against the raw signature over the same bytes."""
    with ThreadPoolExecutor(2) as pool:
        signer = Signer(IDENTITY, log_keys, pool)
        state = State(Tree(), {}, 0, (-1, b""))
        drafts = [Draft(placement()) for _ in range(COUNT)]
        payloads = [one.envelope[:2200] for one in issued]
        signature = log_keys.receipt.sign(payloads[0])
        public = log_keys.receipt.public
        now = datetime.now(UTC)

        def issue() -> None:
            for numbered in signer.number(prepare_all(drafts), state, now):
                signer.receipts([numbered])

        def read() -> None:
            for one in issued:
                read_receipt(
                    one.envelope, PlacementReceipt, keys=[public], issuer="clinic.de", federation="bench",
                    audience="cloud.fr",
                )  # fmt: skip

        def verify() -> None:
            for _ in payloads:
                public.verify(signature, payloads[0])

        def sign(some: Sequence[bytes]) -> list[bytes]:
            return [log_keys.receipt.sign(payload) for payload in some]

        def sign_with_two() -> None:
            list(pool.map(sign, (payloads[::2], payloads[1::2])))

        alone: dict[str, Callable[[], object]] = {
            "sign": lambda: sign(payloads),
            "verify": verify,
            "issue": issue,
            "read": read,
        }
        took = interleaved(alone, time.thread_time)
        together = interleaved({"one": alone["sign"], "two": sign_with_two}, time.perf_counter)
    rate = {name: COUNT / value for name, value in took.items()}
    issuing, reading = rate["issue"] / rate["sign"], rate["read"] / rate["verify"]
    return [
        Figure("raw P-256 sign", f"{rate['sign']:,.0f}/s"),
        Figure("raw P-256 verify", f"{rate['verify']:,.0f}/s"),
        Figure("issue in memory", f"{rate['issue']:,.0f}/s", f"{issuing:.2f} of sign", "≥ 0.6"),
        Figure("read and verify", f"{rate['read']:,.0f}/s", f"{reading:.2f} of verify", "≥ 0.8"),
        Figure("two threads signing", "", f"{together['one'] / together['two']:.2f} of one"),
    ]


async def durable(log: TransparencyLog, log_keys: LogKeys) -> list[Figure]:
    """Issuing with the disk in it, by batch size and callers, and the latency of one receipt alone."""
    figures: list[Figure] = []
    for batch, callers, each in PATTERNS:
        rounds = [await durable_round(log, log_keys, batch, callers, each) for _ in range(ROUNDS)]
        rate = statistics.median(each.rate for each in rounds)
        ratio = statistics.median(each.rate / each.raw for each in rounds)
        goal = "≥ 0.35" if batch == COUNT else ""
        name = f"issue durably, batches of {batch}" + (f", {callers} callers" if callers > 1 else "")
        figures.append(Figure(name, f"{rate:,.0f}/s", f"{ratio:.2f} of sign", goal))
        if batch == COUNT and callers > 1:
            busy = statistics.median(each.busy for each in rounds)
            signing = statistics.median(2 / each.raw_busy for each in rounds)
            alone = statistics.median(1 / (each.busy * each.raw_busy) for each in rounds)
            text = f"{busy * 1e6:,.0f} µs of processors, {signing * 1e6:,.0f} for its two signatures"
            figures.append(Figure("of that, each receipt", text, f"{alone:.2f} of sign a processor"))
    return [*figures, *await latencies(log)]


@dataclass(frozen=True)
class Round:
    """One round of issuing, by the clock and in processor time."""

    rate: float
    """Receipts issued a second."""
    raw: float
    """Raw signatures a second, one thread."""
    busy: float
    """Processor seconds of all threads for one receipt."""
    raw_busy: float
    """Raw signatures in a second of processor time."""


async def durable_round(
    log: TransparencyLog, log_keys: LogKeys, batch: int, callers: int, each: int
) -> Round:
    """Raw signatures first, then receipts."""
    drafts = [[Draft(placement()) for _ in range(each)] for _ in range(callers)]
    payload = secrets.token_bytes(2200)

    def sign() -> None:
        for _ in range(COUNT):
            log_keys.receipt.sign(payload)

    raw, raw_busy = seconds(sign, time.perf_counter), seconds(sign)

    async def call(own: Sequence[Draft]) -> None:
        for at in range(0, each, batch):
            await log.issue(own[at : at + batch])

    start, busy = time.perf_counter(), time.process_time()
    await asyncio.gather(*(call(own) for own in drafts))
    count = each * callers
    took, busy = time.perf_counter() - start, time.process_time() - busy
    return Round(count / took, COUNT / raw, busy / count, COUNT / raw_busy)


async def latencies(log: TransparencyLog) -> list[Figure]:
    taken: list[float] = []
    for _ in range(LATENCIES):
        draft = Draft(placement())
        start = time.perf_counter()
        await log.issue([draft])
        taken.append((time.perf_counter() - start) * 1000)
    cuts = statistics.quantiles(taken, n=100)
    return [
        Figure("one receipt, idle log", f"p50 {cuts[49]:.2f} ms, p95 {cuts[94]:.2f} ms", "", "p50 ≤ 1 ms")
    ]


async def proofs(log: TransparencyLog, log_keys: LogKeys, issued: Sequence[Issued]) -> list[Figure]:
    await log.checkpoint()
    texts = [(one, await log.proof(one.receipt_id)) for one in issued]

    def verify() -> None:
        for one, text in texts:
            assert text is not None
            proof.verify(
                text, kind=Kind.PLACEMENT, receipt_digest=one.digest,
                issuer_thumbprint=log_keys.receipt.thumbprint, origin="clinic.de/log",
                keys=[log_keys.note.key],
            )  # fmt: skip

    return [Figure("verify a tlog-proof", f"{len(texts) / seconds(verify):,.0f}/s")]


def pinned(log_keys: LogKeys) -> PinnedTrust:
    """clinic.de's manifest as an auditor holds it."""
    root, now = SigningKey.generate(), int(time.time())
    receipt = log_keys.receipt.public
    manifest = DomainManifest(
        federation="bench", domain="clinic.de", version=1, expires=now + 86_400,
        roots=Roots(threshold=1, keys=[root.public.jwk]),
        keys=[RoleKey(thumbprint=receipt.thumbprint, jwk=receipt.jwk, role="receipt",
                      not_before=now - 86_400, not_after=now + 86_400)],
        logs=[LogKey(origin="clinic.de/log", vkey=log_keys.note.key.vkey, max_merge_delay_s=10)],
        platforms=[],
    )  # fmt: skip
    return PinnedTrust("bench", "bench", {"clinic.de": manifest}, {"clinic.de": bytes(32)})


def auditing(database: Path, log_keys: LogKeys) -> list[Figure]:
    """A whole log by `comity audit`, with every processor, against one thread that only verifies."""
    held = pinned(log_keys)
    signers = signers_of("clinic.de", held)
    public, payload = log_keys.receipt.public, secrets.token_bytes(2200)
    signature = log_keys.receipt.sign(payload)
    found: list[Audit] = []

    def audit() -> None:
        with LogFile(database) as log:
            found.append(audit_log(log, held))

    def receipts_alone() -> None:
        with LogFile(database) as log:
            assert all(each.prev for each in in_threads(log.rows(), signers))

    def one_thread() -> None:
        assert all(each.prev for each in check_all(rows, signers, whole=False))

    def verify_some() -> None:
        for _ in rows:
            public.verify(signature, payload)

    def verify() -> None:
        for _ in range(count):
            public.verify(signature, payload)

    with LogFile(database) as log:
        count = log.size
        rows = list(islice(log.rows(), 1024))
    alone = interleaved({"check": one_thread, "verify": verify_some}, time.thread_time)
    took = interleaved({"audit": audit, "receipts": receipts_alone, "verify": verify}, time.perf_counter)
    if any(each.exit_code for each in found):
        raise RuntimeError("the log that was measured does not hold")
    rates = {name: count / value for name, value in took.items()}
    return [
        Figure(f"audit a log of {count:,}", f"{rates['audit']:,.0f}/s",
               f"{rates['audit'] / rates['verify']:.2f} of verify", "≥ 0.8"),
        Figure("one receipt of it, checked", f"{alone['check'] / len(rows) * 1e6:,.0f} µs of a processor",
               f"{alone['verify'] / alone['check']:.2f} of verify a processor"),
        Figure("its receipts, two threads", f"{rates['receipts']:,.0f}/s",
               f"{rates['receipts'] / rates['verify']:.2f} of verify"),
    ]  # fmt: skip


def growth(database: Path, count: int) -> Figure:
    """Bytes a receipt in the tables that the log itself needs: leaves and tiles."""
    connection = sqlite3.connect(database)
    used = connection.execute("SELECT sum(length(record) + length(salt) + 12) FROM leaf").fetchone()[0]
    used += connection.execute(
        "SELECT coalesce(sum(length(hashes) + length(root) + 8), 0) FROM tile"
    ).fetchone()[0]
    connection.close()
    return Figure("log growth a receipt", f"{used / count:.0f} B", "", "≤ 200 B")


def large() -> list[Figure]:
    """A tree of a million leaves: its root, and proofs out of its tiles."""
    leaves = [merkle.leaf_hash(number.to_bytes(8)) for number in range(MILLION)]
    took = seconds(lambda: merkle.EMPTY_RANGE.append(leaves).root())
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE leaf (idx INTEGER PRIMARY KEY, record BLOB)")
    connection.execute("CREATE TABLE tile (level INT, n INT, hashes BLOB, root BLOB, PRIMARY KEY (level, n))")
    records = [(number, number.to_bytes(8)) for number in range(MILLION)]
    connection.executemany("INSERT INTO leaf VALUES (?, ?)", records)
    filled = Tree().append(leaves)
    connection.executemany(
        "INSERT INTO tile VALUES (?, ?, ?, ?)", [(t.level, t.n, t.hashes, t.root) for t in filled]
    )
    source = TileSource(connection)
    indexes = range(0, MILLION, 10)
    proving = seconds(lambda: [source.inclusion(index, MILLION) for index in indexes])
    return [
        Figure("root over 1 M leaves", f"{took:.2f} s", "", "≤ 4 s"),
        Figure("proofs at 1 M leaves, in order", f"{len(indexes) / proving:,.0f}/s", "", "≥ 20,000/s"),
    ]


async def measure(more: bool) -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        log_keys, database = keys(), Path(folder) / "log.db"
        log = await TransparencyLog.open(database, identity=IDENTITY, keys=log_keys)
        issued = await log.issue([Draft(placement()) for _ in range(COUNT)])
        figures = in_memory(log_keys, issued)
        figures += await durable(log, log_keys)
        figures += await proofs(log, log_keys, issued)
        while log.size < AUDITED:
            await log.issue([Draft(placement()) for _ in range(COUNT)])
        size = log.size
        await log.close()
        figures += auditing(database, log_keys)
        figures.append(growth(database, size))
    return figures + (large() if more else [])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--large", action="store_true", help="add a tree of a million leaves (half a minute)")
    arguments = parser.parse_args()
    sys.setswitchinterval(THREAD_TURN_S)  # as a broker runs
    figures = asyncio.run(measure(arguments.large))
    table = Table("what", "measured", "ratio", "goal", title="Receipts")
    for figure in figures:
        table.add_row(figure.name, figure.value, figure.ratio, figure.goal)
    Console().print(table)


if __name__ == "__main__":
    main()
