"""A node's inside without a bus: an executor over any engine, called as the program calls it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from domain_agent.membership import Membership
from domain_agent.node.engine.client import EngineAddress, EngineClient
from domain_agent.node.engine.serving import PrefixCache, Serving
from domain_agent.node.keys import NodeKeys
from domain_agent.node.running.run import Executor, Resident, Stop, execute
from domain_agent.node.running.statement import Ending
from domain_agent.tests.consumer import Attempt, Consumer, NodeFacts
from domain_agent.tests.founding import CAPABILITY, OURS, PEER, Founded
from federation.connection import BusSettings

MODEL = "ab" * 32


async def until(condition: Callable[[], object], within: float = 30.0) -> None:
    """Await a condition that nothing announces. Raises `TimeoutError`."""
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110 - it is another program's, or a plain counter's
            await asyncio.sleep(0.005)


@dataclass
class Bench:
    """One node's executor, and the consumer that orders from it."""

    executor: Executor
    consumer: Consumer
    facts: NodeFacts
    frames: list[bytes] = field(default_factory=list)

    async def run(self, attempt: Attempt, stop: Stop | None = None) -> Ending | None:
        """Run an order and read its answer into the attempt."""

        async def body() -> tuple[bytes, ...]:
            return tuple(attempt.chunks)

        async def send(frame: bytes) -> None:
            self.frames.append(frame)
            attempt.take(frame)

        return await execute(self.executor, attempt.head, body, send, stop or Stop())


@asynccontextmanager
async def bench(
    founded: Founded, address: str, *, slots: int = 2, prefix_cache: PrefixCache = "off", key: str = ""
) -> AsyncIterator[Bench]:
    """A node around the engine at this address."""
    client = EngineClient(EngineAddress(address, key), connections=slots + 4)
    serving = Serving(client, slots=slots, prefix_cache=prefix_cache)
    keys = NodeKeys()
    epoch = keys.at_epoch(1, time.monotonic())
    settings = BusSettings("nats://127.0.0.1:1", Path("none"), None, "test", "_INBOX.test")
    membership = Membership(OURS, settings, founded.trust)
    executor = Executor(membership, keys, serving, (Resident(CAPABILITY, MODEL, "model"),))
    facts = NodeFacts(keys.sign.public, epoch.key.public, MODEL)
    try:
        yield Bench(executor, Consumer(founded.message[PEER]), facts)
    finally:
        await asyncio.sleep(0)
        await serving.close()
