"""What the border tells its agent, while the bus is away and after it: a real bus that is killed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from broker.providing import interior as module
from broker.providing.interior import Interior
from federation.connection import Bus
from federation.embedded.folder import BusFolder, found_bus
from federation.flood import FloodLimits
from federation.server import EmbeddedServer
from federation.serving import Inbound
from schemas.errors import Refused, Undecided
from schemas.messages.interior import HoldUpdate, HoldUpdated

OURS = "clinic.de"
RECONNECT_S = 20.0  # seconds for a client to come back on a machine that is busy with other things


@dataclass
class House:
    """clinic.de's bus, its border, and whatever agent a test puts there."""

    folder: BusFolder
    server: EmbeddedServer
    stack: AsyncExitStack
    bus: Bus
    interior: Interior
    heard: list[tuple[str, str]] = field(default_factory=list)
    """Operation and hold id, as the agent took them."""
    refusing: set[str] = field(default_factory=set)
    """Holds whose end the agent answers with a refusal."""
    ailing: set[str] = field(default_factory=set)
    """Holds whose end the agent fails at, once."""

    async def login(self, user: str) -> Bus:
        bus = await Bus.connect(self.folder.settings(OURS, user, self.server.url))
        self.stack.push_async_callback(bus.close)
        return bus

    async def agent(self) -> Bus:
        """An agent comes."""
        bus = await self.login("agent")
        for op in ("done", "release"):
            await bus.serve(f"agent.{op}", self._take, limits=FloodLimits(), concurrency=8)
        await bus.flush()
        return bus

    async def _take(self, inbound: Inbound) -> bytes:
        update = HoldUpdate.read(inbound.payload)
        if update.hold_id in self.ailing:
            self.ailing.discard(update.hold_id)
            raise Undecided("agent.ails", "a moment")
        self.heard.append((inbound.op, update.hold_id))
        if update.hold_id in self.refusing:
            raise Refused("agent.refuses", "not this one")
        return HoldUpdated(known=True).write()

    async def kill(self) -> None:
        """The bus is gone, and our border has seen it."""
        await self.server.kill()
        await until(lambda: not self.bus.connected)

    async def back(self) -> None:
        """The bus is there again, and our border is on it."""
        await self.server.start()
        assert await self.bus.wait_connected(RECONNECT_S)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with AsyncExitStack() as stack:
        folder, _ = found_bus(tmp_path / "bus", {OURS: ["n1"]}, datetime.now(UTC))
        server = folder.server()
        stack.push_async_callback(server.stop)
        await server.start()
        bus = await Bus.connect(folder.settings(OURS, "broker", server.url))
        stack.push_async_callback(bus.close)
        yield House(folder, server, stack, bus, Interior(bus))


async def test_what_ended_while_the_bus_was_away_is_told_after_it(house: House) -> None:
    await house.agent()
    await house.interior.done("first", "nid")
    await until(lambda: house.heard)
    await house.kill()
    for number in range(3):
        await house.interior.done(f"run{number}", f"nid{number}")
    await house.interior.release("held", "nid9")
    await house.back()
    wanted = {("done", "first"), ("release", "held"), *(("done", f"run{number}") for number in range(3))}
    await until(lambda: set(house.heard) == wanted)


async def test_an_agent_that_comes_back_later_is_told_then(house: House) -> None:
    await house.kill()
    await house.interior.done("run", "nid")
    await house.back()
    with pytest.raises(Undecided, match=r"bus\.absent"):
        await house.interior.snapshot()
    await house.agent()
    await until(lambda: house.heard == [("done", "run")])


async def test_an_end_that_the_agent_fails_at_holds_up_no_other(house: House) -> None:
    await house.agent()
    house.ailing, house.refusing = {"ails"}, {"refused"}
    await house.kill()
    for name in ("ails", "refused", "well"):
        await house.interior.done(name, "nid")
    await house.back()
    await until(lambda: sorted(house.heard) == [("done", "ails"), ("done", "refused"), ("done", "well")])
    assert house.heard[-1] == ("done", "ails")
    await until(lambda: not house.interior._untold)


async def test_no_more_ends_are_kept_than_a_border_can_have(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_UNTOLD", 2)
    await house.kill()
    for number in range(5):
        await house.interior.done(f"run{number}", "nid")
    await house.back()
    await house.agent()
    await until(lambda: sorted(house.heard) == [("done", "run3"), ("done", "run4")])


async def until(condition: Callable[[], object]) -> None:
    """Await a condition of another program. Raises `TimeoutError`."""
    async with asyncio.timeout(RECONNECT_S):
        while not condition():  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0.005)
