"""A real server for each test, in a folder of its own, and connections that are closed in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest

from federation.accounts import BusPlan, account, make_user
from federation.connection import Bus, BusSettings
from federation.embedded.binary import ServerBinary, find_binary
from federation.embedded.folder import BusFolder, found_bus
from federation.flood import FloodLimits
from federation.server import EmbeddedServer
from federation.stream import open_stream

DOMAINS: dict[str, Sequence[str]] = {"clinic.de": ["n1", "n2"], "cloud.fr": ["g1"], "evil.test": []}
GENEROUS = FloodLimits(rate=1e6, burst=1e6, queue=4096)


async def until(condition: Callable[[], bool], within: float = 10.0) -> None:
    """Await a condition that nothing announces. Raises `TimeoutError`."""
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110 - it is another program's, or a plain counter's
            await asyncio.sleep(0.005)


async def read_into(got: list[bytes], bus: Bus, subject: str, head: bytes, *, stall_s: float = 30.0) -> None:
    """Read a stream to its end; what came before an error stays in `got`."""
    async with open_stream(bus, subject, head, stall_s=stall_s) as stream:
        async for frame in stream:
            got.append(frame)


class World:
    """Three domains on one embedded server; evil.test also has a login without any user permissions,
    as a domain with its own leaf server would."""

    def __init__(
        self, folder: BusFolder, plan: BusPlan, server: EmbeddedServer, stack: AsyncExitStack
    ) -> None:
        self.folder, self.plan, self.server, self._stack = folder, plan, server, stack

    def settings(self, domain: str, user: str) -> BusSettings:
        return self.folder.settings(domain, user, self.server.url)

    async def bus(self, domain: str, user: str = "broker") -> Bus:
        bus = await Bus.connect(self.settings(domain, user))
        self._stack.push_async_callback(bus.close)
        return bus

    async def attacker(self) -> Bus:
        """evil.test with every right that its account has."""
        return await self.bus("evil.test", "root")


MakeWorld = Callable[..., Awaitable[World]]


@pytest.fixture(scope="session")
def binary() -> ServerBinary:
    """Looked at once, as in a program that starts one server."""
    return asyncio.run(find_binary())


@pytest.fixture
async def make_world(tmp_path: Path, binary: ServerBinary) -> AsyncIterator[MakeWorld]:
    async with AsyncExitStack() as stack:

        async def make(*, response_threshold_s: float = 300.0) -> World:
            folder, plan = found_bus(
                tmp_path / "bus", DOMAINS, datetime.now(UTC), response_threshold_s=response_threshold_s
            )
            add_unrestricted_user(folder, "evil.test", "root")
            server = folder.server()
            server.binary = binary
            stack.push_async_callback(server.stop)
            await server.start()
            return World(folder, plan, server, stack)

        yield make


@pytest.fixture
async def world(make_world: MakeWorld) -> World:
    return await make_world()


def add_unrestricted_user(folder: BusFolder, domain: str, name: str) -> None:
    user = make_user(name, "broker")
    text = folder.config.read_text()
    start = f"  {account(domain)}: {{\n    users: [\n"
    assert start in text
    folder.config.write_text(text.replace(start, f"{start}      {{ nkey: {user.public} }}\n"))
    seed = folder.seed_file(domain, name)
    seed.write_bytes(user.seed)
    seed.chmod(0o600)
