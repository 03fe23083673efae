"""The bus operator: everything between the programs and the server passes through its hands.

A relay that speaks the NATS protocol in both directions, with the server's own TLS key: it reads
every byte in the clear, and a test may tell it to drop, delay, repeat, alter or invent messages.
Programs keep their logins (a login signs the server's nonce, which passes through unchanged).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from federation.embedded.folder import BusFolder

MAX_LINE: Final = 64 * 1024  # bytes of a protocol line; the server's own limit is 4 KiB, INFO is longer
SIZED: Final = {b"PUB": 1, b"MSG": 1, b"HPUB": 2, b"HMSG": 2}
"""Operations that a payload follows, and how many sizes stand at the end of their line."""


@dataclass(frozen=True, slots=True)
class Passing:
    """One message on its way, in one direction."""

    who: str
    """The login's name as its program gave it: `clinic.de/broker`."""
    to_server: bool
    line: bytes
    body: bytes = field(repr=False)
    """Headers and payload, without the line end after them."""

    @property
    def words(self) -> list[str]:
        return self.line.decode("ascii").split(" ")

    @property
    def subject(self) -> str:
        return self.words[1]

    @property
    def payload(self) -> bytes:
        """Without NATS headers."""
        headed = self.line.startswith((b"H",))
        return self.body[int(self.words[-2]) :] if headed else self.body

    @property
    def raw(self) -> bytes:
        return self.line + b"\r\n" + self.body + b"\r\n"

    def with_payload(self, payload: bytes) -> Passing:
        """The same message with other content."""
        words, size = self.words, len(self.body) - len(self.payload)
        words[-1] = str(size + len(payload))
        return Passing(self.who, self.to_server, " ".join(words).encode("ascii"), self.body[:size] + payload)


Rule = Callable[[Passing], list[Passing] | float | None]
"""What to do with a message: pass it on (None), put these in its place, or hold it for some seconds."""


@dataclass(slots=True)
class Operator:
    """The relay. `rule` is asked about every message; `seen` holds all of them."""

    upstream: int
    """Port of the server itself."""
    ca: Path
    rule: Rule = lambda _: None
    seen: list[Passing] = field(default_factory=list)
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def bytes_seen(self) -> bytes:
        """Every payload and header that crossed, one after the other."""
        return b"\0".join(message.body for message in self.seen)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One program's connection, until either side ends it."""
        self._writers.add(writer)
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        try:
            with contextlib.suppress(OSError):
                await self._between(reader, writer)
        finally:
            self._writers.discard(writer)
            writer.transport.abort()
            self._tasks.discard(task)

    async def _between(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        trusted, who = ssl.create_default_context(cafile=str(self.ca)), _Name()
        far_reader, far = await asyncio.open_connection(
            "127.0.0.1", self.upstream, limit=MAX_LINE, ssl=trusted
        )
        try:
            up = self._spawn(self._relay(reader, far, who, to_server=True))
            down = self._spawn(self._relay(far_reader, writer, who, to_server=False))
            await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            far.transport.abort()

    async def _relay(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, who: _Name, *, to_server: bool
    ) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, ssl.SSLError, RuntimeError):
            while line := await reader.readline():
                await self._one(line.rstrip(b"\r\n"), reader, writer, who, to_server=to_server)
                await writer.drain()

    async def _one(
        self,
        line: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        who: _Name,
        *,
        to_server: bool,
    ) -> None:
        verb = line.partition(b" ")[0]
        if verb == b"CONNECT":
            who.text = str(json.loads(line.partition(b" ")[2]).get("name"))
        if verb not in SIZED:
            writer.write(line + b"\r\n")
            return
        body = (await reader.readexactly(int(line.rpartition(b" ")[2]) + 2))[:-2]
        message = Passing(who.text, to_server, line, body)
        self.seen.append(message)
        verdict = self.rule(message)
        if isinstance(verdict, int | float):
            asyncio.get_running_loop().call_later(verdict, _write, writer, message.raw)
            return
        for each in [message] if verdict is None else verdict:
            writer.write(each.raw)

    def _spawn(self, work: object) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work)  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass(slots=True)
class _Name:
    text: str = "?"


def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
    if not writer.is_closing():
        writer.write(data)


@asynccontextmanager
async def operating(bus: BusFolder, *, port: int, upstream: int) -> AsyncIterator[Operator]:
    """A relay on `port`, where programs look for the bus; the server itself listens on `upstream`."""
    operator = Operator(upstream, bus.ca_file)
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own.load_cert_chain(bus.path / "server.pem", bus.path / "server.key")
    listener = await asyncio.start_server(operator.serve, "127.0.0.1", port, limit=MAX_LINE, ssl=own)
    try:
        yield operator
    finally:
        listener.close()
        await operator.close()
        await listener.wait_closed()
