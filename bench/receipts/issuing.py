"""Issuing: in memory, durably by batch size and callers, and one receipt alone."""

from __future__ import annotations

import asyncio
import secrets
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from bench.receipts.sample import COUNT, IDENTITY, ROUNDS, Figure, interleaved, placement, seconds
from receipts.log import Draft, Issued, LogKeys, TransparencyLog
from receipts.log.draft import prepare_all
from receipts.log.tiles import Tree
from receipts.log.writing.signing import Signer, State
from receipts.statements.receipt import (
    PlacementReceipt,
)
from receipts.statements.statement import read_receipt


@dataclass(frozen=True)
class Pattern:
    """How receipts come."""

    batch: int
    """Receipts that one call issues."""
    callers: int
    each: int
    """Receipts of each caller in a round."""
    goal: str = ""
    promised: bool = False
    """Whether each promise is asked for: a Placement's and an Execution's are, an Acknowledgement's never."""

    @property
    def name(self) -> str:
        callers = f", {self.callers} callers" if self.callers > 1 else ""
        return f"issue durably, batches of {self.batch}{callers}{', with promises' if self.promised else ''}"


PATTERNS: Final = (
    Pattern(COUNT, 2, 4 * COUNT, "≥ 0.35"),
    Pattern(COUNT, 1, 4 * COUNT, "≥ 0.35"),
    Pattern(COUNT, 1, 4 * COUNT, promised=True),
    Pattern(16, 1, COUNT),
    Pattern(1, COUNT, 8),
    Pattern(1, 1, 64),
)
LATENCIES: Final = 500  # single receipts, one after the other


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
    for pattern in PATTERNS:
        rounds = [await durable_round(log, log_keys, pattern) for _ in range(ROUNDS)]
        rate = statistics.median(each.rate for each in rounds)
        ratio = statistics.median(each.rate / each.raw for each in rounds)
        figures.append(Figure(pattern.name, f"{rate:,.0f}/s", f"{ratio:.2f} of sign", pattern.goal))
        if pattern == PATTERNS[0]:
            busy = statistics.median(each.busy for each in rounds)
            signing = statistics.median(1 / each.raw_busy for each in rounds)
            alone = statistics.median(1 / (each.busy * each.raw_busy) for each in rounds)
            text = f"{busy * 1e6:,.0f} µs of processors, {signing * 1e6:,.0f} for its signature"
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


async def durable_round(log: TransparencyLog, log_keys: LogKeys, pattern: Pattern) -> Round:
    """Raw signatures first, then receipts."""
    drafts = [[Draft(placement()) for _ in range(pattern.each)] for _ in range(pattern.callers)]
    payload = secrets.token_bytes(2200)

    def sign() -> None:
        for _ in range(COUNT):
            log_keys.receipt.sign(payload)

    raw, raw_busy = seconds(sign, time.perf_counter), seconds(sign)

    async def call(own: Sequence[Draft]) -> None:
        for at in range(0, pattern.each, pattern.batch):
            issued = await log.issue(own[at : at + pattern.batch])
            assert not pattern.promised or all(one.promise for one in issued)

    start, busy = time.perf_counter(), time.process_time()
    await asyncio.gather(*(call(own) for own in drafts))
    count = pattern.each * pattern.callers
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
