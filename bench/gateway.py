"""What a request through Comity costs beside the same request straight to the engine.

    python -m bench.gateway [--seconds 6] [--json]

One run, one machine, one mock upstream, every program a process of its own: *direct*; *relay*, a gateway
that only passes on (bench/relay.py), for what one more hop costs here; *local*, a domain serving its
own tenant with policy, sealing, trace and receipts on; *cross*, the same through another domain (path
B: call, offer, evidence, Execute). The four take turns, so that whatever else
the machine does falls on all of them alike. The table gives requests a second and p50 at concurrency
1 and 32, and what local and cross add to direct's p50.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import aiohttp
import uvloop
from rich.console import Console
from rich.table import Table

from bench.floor import NEEDED, Floor, measure_floor
from examples.launch import RunningFederation, launched
from federation_tests.plan import CHAT, CLINIC, HYPER, Changes, found_scripted
from federation_tests.world import point_at

ROUNDS: Final = 3  # turns that each way gets at each concurrency
SLOTS: Final = 64  # per node, above the highest concurrency: capacity is not what is measured
PROMPT: Final = "Please say twenty words. " * 16  # about 400 bytes
TARGETS_MS: Final = {"local": 3.0, "cross": 8.0}  # added p50 at concurrency 1


@dataclass(frozen=True, slots=True)
class Way:
    """One way to the upstream."""

    name: str
    url: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Result:
    """One way at one concurrency."""

    way: str
    concurrency: int
    requests: int
    errors: int
    per_second: float
    p50_ms: float
    p99_ms: float


async def measure(session: aiohttp.ClientSession, way: Way, concurrency: int, seconds: float) -> list[float]:
    """Latencies in ms of every request that ended well; NaN stands for one that did not."""
    taken: list[float] = []
    end = time.perf_counter() + seconds

    async def worker() -> None:
        while time.perf_counter() < end:
            began = time.perf_counter()
            try:
                async with session.post(way.url, json=way.body, headers=way.headers) as response:
                    data = await response.read()
                    good = response.status == 200 and b"word19" in data
            except aiohttp.ClientError:
                good = False
            taken.append((time.perf_counter() - began) * 1000 if good else float("nan"))

    await asyncio.gather(*(worker() for _ in range(concurrency)))
    return taken


def summarise(way: str, concurrency: int, taken: list[float], seconds: float) -> Result:
    good = sorted(value for value in taken if not math.isnan(value))
    at99 = good[min(len(good) - 1, int(len(good) * 0.99))] if good else float("nan")
    return Result(
        way=way,
        concurrency=concurrency,
        requests=len(taken),
        errors=len(taken) - len(good),
        per_second=len(good) / seconds,
        p50_ms=statistics.median(good) if good else float("nan"),
        p99_ms=at99,
    )


async def compare(ways: list[Way], seconds: float) -> list[Result]:
    """All ways at all concurrencies, taking turns."""
    results = []
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        for way in ways:
            await measure(session, way, 4, 1.0)  # connections, caches, verdicts
        for concurrency in (1, 32):
            taken: dict[str, list[float]] = {way.name: [] for way in ways}
            for _ in range(ROUNDS):
                for way in ways:
                    taken[way.name] += await measure(session, way, concurrency, seconds / ROUNDS)
            results += [summarise(way.name, concurrency, taken[way.name], seconds) for way in ways]
    return results


@asynccontextmanager
async def beside(module: str, *arguments: str) -> AsyncIterator[str]:
    """A process of this bench that prints its port: its base URL while the block runs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *arguments, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout
    try:
        port = int(await process.stdout.readline())
        yield f"http://127.0.0.1:{port}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


@asynccontextmanager
async def federation(folder: Path, address: str) -> AsyncIterator[RunningFederation]:
    """Two domains whose nodes all stand before the same upstream."""
    changes = Changes(domains=(CLINIC, HYPER), slots=SLOTS)
    founded = found_scripted(folder, datetime.now(UTC), changes)
    for domain in founded.plan.domains:
        for node in domain.nodes:
            point_at(founded, domain.name, node.id, address)
    async with launched(founded, folder) as running:
        yield running


def ways(running: RunningFederation, address: str, relay: str) -> list[Way]:
    messages = [{"role": "user", "content": PROMPT}]

    def through(name: str, place: str) -> Way:
        policy = {"data_class": "public", "residency": [place]}
        return Way(
            name,
            f"{running.base_url(CLINIC)}/chat/completions",
            {"Authorization": f"Bearer {running.api_key(CLINIC)}"},
            {"model": CHAT, "messages": messages, "max_tokens": 64, "comity": {"policy": policy}},
        )

    plain = {"model": "scripted", "messages": messages, "stream": True}
    straight = [
        Way(name, f"{base}/v1/chat/completions", {}, plain)
        for name, base in (("direct", address), ("relay", relay))
    ]
    return [*straight, through("local", "DE"), through("cross", "US")]


def show(results: list[Result], floor: Floor, console: Console) -> None:
    direct = {result.concurrency: result.p50_ms for result in results if result.way == "direct"}
    table = Table(title="one mock upstream, four ways to it")
    for name in ("way", "at once", "req/s", "p50 ms", "added p50 ms", "p99 ms", "requests", "errors"):
        table.add_column(name, justify="left" if name == "way" else "right")
    for each in results:
        table.add_row(
            each.way,
            str(each.concurrency),
            f"{each.per_second:.0f}",
            f"{each.p50_ms:.2f}",
            f"{each.p50_ms - direct[each.concurrency]:.2f}",
            f"{each.p99_ms:.2f}",
            str(each.requests),
            str(each.errors),
        )
    console.print(table)
    for way, target in TARGETS_MS.items():
        parts = ", ".join(f"{n} {piece} of {floor.pieces[piece]:.2f}" for piece, n in NEEDED[way].items())
        console.print(
            f"{way} at 1 at once: target {target:.1f} ms added; floor here {floor.of(way):.1f} ms ({parts})",
            soft_wrap=True,
        )


async def run(seconds: float, as_json: bool) -> int:
    console = Console(stderr=as_json)
    with tempfile.TemporaryDirectory() as folder:
        async with (
            beside("bench.upstream") as address,
            beside("bench.relay", address) as relay,
            federation(Path(folder) / "bench", address) as running,
        ):
            await asyncio.sleep(2)  # the slow loops have settled: every node has answered every challenge
            results = await compare(ways(running, address, relay), seconds)
            floor = await measure_floor(running, CLINIC, Path(folder), results[0].p50_ms)
    show(results, floor, console)
    if as_json:
        floors = {way: floor.of(way) for way in NEEDED}
        print(json.dumps({"results": [asdict(result) for result in results], "floor_ms": floors}))
    return 1 if any(result.errors for result in results) else 0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=6.0, help="per way and concurrency (default 6)")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    return uvloop.run(run(arguments.seconds, arguments.json))


if __name__ == "__main__":
    sys.exit(main())
