"""What no broker with these promises can leave out of a request, measured piece by piece.

Each piece is timed alone, again and again, so that everything it touches is warm: the least that it can
cost here. Summed as often as a request needs it, one after the other, the pieces are a floor under what
Comity adds on this machine; whatever stands above it is the broker's own work.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from broker.providing.interior import Interior
from examples.launch import RunningFederation
from federation.connection import Bus, BusSettings
from receipts.log import store
from schemas import seal
from schemas.keys import SigningKey

TIMES: Final = 200  # of each piece; the median counts
RECEIPT_BYTES: Final = 4096  # what one receipt with its promise and its evidence writes, or somewhat less
NEEDED: Final = {
    # An HTTP hop before the engine's own. Call and Execute to the border where it is another domain's,
    # hold, commit and Execute inside the provider's domain. The Placement on disk. CallForOffers, Offer,
    # Placement, Execute and NodeStatement signed; the node's check of Execute and ours of its statement,
    # and abroad the border's and ours of what the other side said. Sealed once, opened once.
    "local": {"hop": 1, "ask": 3, "commit": 1, "sign": 5, "verify": 2, "seal": 1, "open": 1},
    "cross": {"hop": 1, "ask": 5, "commit": 1, "sign": 5, "verify": 6, "seal": 1, "open": 1},
}


@dataclass(frozen=True, slots=True)
class Floor:
    """Milliseconds each piece takes at its median."""

    pieces: dict[str, float]

    def of(self, way: str) -> float:
        """The least that this way can add to a direct request, ms."""
        return sum(count * self.pieces[piece] for piece, count in NEEDED[way].items())


async def measure_floor(running: RunningFederation, domain: str, folder: Path, hop_ms: float) -> Floor:
    """Time the pieces on this machine, beside the running federation. hop_ms: a direct request's median."""
    pieces = {"hop": hop_ms, "ask": await _ask(running, domain), "commit": _commit(folder)}
    return Floor(pieces | _cryptography())


async def _ask(running: RunningFederation, domain: str) -> float:
    """A question that the agent answers from memory, over the bus: whether it knows a hold."""
    seed = running.founded.domain(domain) / "keys" / "broker.nk"
    bus = await Bus.connect(
        BusSettings(
            running.server.url, seed, running.founded.bus.ca_file, f"{domain}/broker", "_INBOX.broker"
        )
    )
    taken = []
    try:
        interior = Interior(bus)
        for _ in range(TIMES):
            began = time.perf_counter()
            await interior.commit(secrets.token_hex(16), secrets.token_hex(16))
            taken.append(time.perf_counter() - began)
            await asyncio.sleep(0)
    finally:
        await bus.close()
    return statistics.median(taken) * 1000


def _commit(folder: Path) -> float:
    """One transaction of a receipt's size, on disk when it returns, as the log's are."""
    connection, data = store.connect(folder / "floor.db"), secrets.token_bytes(RECEIPT_BYTES)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE piece (data BLOB)")

    def once() -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO piece VALUES (?)", (data,))
        connection.execute("COMMIT")

    try:
        return _median_ms(once)
    finally:
        connection.close()


def _cryptography() -> dict[str, float]:
    key, node, data = SigningKey.generate(), seal.SealKey.generate(), secrets.token_bytes(2048)
    signature, secret, header = key.sign(data), seal.new_secret(), hashlib.sha256(data).digest()
    sealed = seal.seal_secret(secret, node.public, header)
    return {
        "sign": _median_ms(lambda: key.sign(data)),
        "verify": _median_ms(lambda: key.public.verify(signature, data)),
        "seal": _median_ms(lambda: seal.seal_secret(secret, node.public, header)),
        "open": _median_ms(lambda: node.open_secret(sealed, header)),
    }


def _median_ms(piece: Callable[[], object]) -> float:
    taken = []
    for _ in range(TIMES):
        began = time.perf_counter()
        piece()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken) * 1000
