"""`Town`: two domains whose programs are real processes that a test kills, freezes and starts again.

Only the engines live in the test's own process: a point of a request is reached when an engine, a
database row or the application's stream says so, never by waiting some time.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import signal
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing, redirect_stdout
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import httpx

from examples.launch import RunningFederation, launched
from federation_tests.engine import ScriptedEngine, asked_for, echo, new_engine
from federation_tests.plan import CLINIC, CLOUD, Changes, found_scripted
from federation_tests.sse import Streamed, lines, request
from federation_tests.world import point_at
from receipts.commands import log as log_commands
from receipts.commands import receipt as commands
from receipts.leaf import Kind
from receipts.statements import packed
from schemas import envelope
from schemas.errors import ComityError

WORKS_S: Final = 30.0  # seconds for programs that start anew to serve; about five on two idle cores
POINT_S: Final = 20.0  # seconds for a request to reach the point at which somebody is killed
LOOK_S: Final = 0.02  # seconds between looks at another process's files
MAX_KIND: Final = 255  # a leaf's kind is one byte
HOME: Final = {"data_class": "special-category"}
"""Tags that keep a request in clinic.de."""
FRANCE: Final = {"data_class": "public", "residency": ["FR"]}
"""Tags that send a request to cloud.fr; being public, it may go on there before the first run has ended."""
TOWN: Final = Changes(domains=(CLINIC, CLOUD), nodes={CLOUD: ("paris-1", "paris-2")})


@dataclass(slots=True)
class Said:
    """A request that is being answered, as its application sees it."""

    stream: Streamed
    reading: asyncio.Task[None]

    async def shows(self, text: str) -> None:
        """Return when the application has been shown exactly this much."""
        await until(lambda: self.stream.text == text or self.reading.done())
        assert self.stream.text == text, self.stream

    async def ended(self) -> Streamed:
        """The stream at its end; a connection that broke is an end without `[DONE]`."""
        async with asyncio.timeout(POINT_S):
            await self.reading
        return self.stream


@dataclass(slots=True)
class Town:
    """A running federation, and everything that its applications were promised."""

    federation: RunningFederation
    engines: dict[str, ScriptedEngine]
    """Node id → its engine."""
    folder: Path
    promised: set[str] = field(default_factory=set)
    """Ids of receipts that an application was given."""
    frozen: set[str] = field(default_factory=set)
    _verified: set[str] = field(default_factory=set)
    _seen: dict[str, set[bytes]] = field(default_factory=dict)
    """Domain → digests of the receipts that stood in its database after an earlier kill."""

    def database(self, domain: str) -> Path:
        """The file with a broker's receipts and its log."""
        return self.federation.founded.domain(domain) / "state" / "broker.db"

    # --- programs

    async def kill(self, *names: str) -> None:
        """SIGKILL, as a power cut would end them."""
        programs = [self.federation.programs[name] for name in names]
        await asyncio.gather(*(program.kill() for program in programs))
        self.frozen -= set(names)
        for name in names:
            domain, _, role = name.partition("/")
            if role == "broker":  # the port is nobody's now
                (self.federation.founded.domain(domain) / "state" / "broker.port").unlink(missing_ok=True)

    def freeze(self, *names: str) -> None:
        """SIGSTOP: a program that goes no further, and does not know it."""
        for name in names:
            self.federation.programs[name].process.send_signal(signal.SIGSTOP)
        self.frozen |= set(names)

    def thaw(self) -> None:
        """Let every frozen program go on."""
        for name in self.frozen:
            self.federation.programs[name].process.send_signal(signal.SIGCONT)
        self.frozen.clear()

    async def start(self, *names: str) -> None:
        """Start what was killed, and return when every domain serves."""
        for name in names:
            domain, _, role = name.partition("/")
            await self.federation.start(domain, role)
        for plan in self.federation.founded.plan.domains:
            await self.federation.ready(plan.name)

    async def told_to_stop(self, name: str) -> None:
        """SIGTERM to a broker; return when it drains. An open connection still hears how it is."""
        domain = name.partition("/")[0]
        async with self.http(domain) as http:
            await http.get("../healthz")
            self.federation.programs[name].process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(POINT_S):
                while (await http.get("../healthz")).json().get("missing") != "draining":  # noqa: ASYNC110
                    await asyncio.sleep(LOOK_S)

    # --- applications

    def http(self, domain: str = CLINIC) -> httpx.AsyncClient:
        """An application of the domain."""
        return httpx.AsyncClient(
            base_url=self.federation.base_url(domain),
            headers={"Authorization": f"Bearer {self.federation.api_key(domain)}"},
            trust_env=False,
            timeout=60.0,
        )

    def ask(self, text: str, policy: dict[str, Any]) -> Said:
        """Begin a streamed request through clinic.de."""
        stream = Streamed()
        return Said(stream, asyncio.create_task(self._read(stream, request(text, policy=policy))))

    async def _read(self, found: Streamed, body: dict[str, Any]) -> None:
        with contextlib.suppress(httpx.TransportError):
            async with self.http() as http, http.stream("POST", "/chat/completions", json=body) as response:
                found.status, found.headers = response.status_code, response.headers
                self._note(response.headers.get("x-comity-receipt"))
                if response.headers["content-type"].startswith("application/json"):
                    await response.aread()
                    found.events.append(response.json())
                    return
                async for data in lines(response):
                    found.take(data)
                    if found.events and "comity" in found.events[-1]:
                        self._note(found.events[-1]["comity"].get("receipt"))

    def _note(self, receipt: str | None) -> None:
        if receipt is not None:
            self.promised.add(receipt)

    def serving(self, text: str) -> list[str]:
        """Nodes whose engine was asked this."""
        return [name for name, engine in self.engines.items() if text in map(asked_for, engine.bodies)]

    def script(self, script: Any) -> None:
        """What every engine says from now on."""
        for engine in self.engines.values():
            engine.script = script

    # --- what is on disk

    def unsettled(self, domain: str, kind: str) -> list[str]:
        """Points of no return that a broker has passed and not concluded, as its database has them."""
        return [
            str(key)
            for (key,) in self._rows(domain, "SELECT key FROM ahead WHERE settled = 0 AND kind = ?", kind)
        ]

    def issued(self, domain: str, kind: Kind) -> set[str]:
        """Ids of all receipts of a kind that a broker has issued."""
        return {
            str(name)
            for (name,) in self._rows(domain, "SELECT receipt_id FROM statement WHERE kind = ?", int(kind))
        }

    def _rows(self, domain: str, query: str, value: str | int) -> list[tuple[Any, ...]]:
        path = self.database(domain)
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            return connection.execute(query, (value,)).fetchall()

    # --- what must hold after every kill

    async def whole(self) -> None:
        """Nothing that was promised is lost, every log holds, and new requests are served."""
        self.script(echo())
        await self._works()
        placed = self.issued(CLINIC, Kind.PLACEMENT)
        assert self.promised <= placed
        for receipt in placed - self._verified:
            await self.verified(receipt)
        for plan in self.federation.founded.plan.domains:
            self._still_there(plan.name)

    def _still_there(self, domain: str) -> None:
        """The log holds, and what stood in it before stands there byte for byte."""
        manifest = self.federation.founded.domain(domain) / "shared" / "manifests" / f"{domain}.json"
        (log,) = json.loads(envelope.read(manifest.read_bytes()).payload)["logs"]
        code, said = command(log_commands.main, "fsck", str(self.database(domain)), "--vkey", log["vkey"])
        assert code == 0, said
        rows = self._rows(domain, "SELECT digest, envelope FROM statement WHERE kind < ?", MAX_KIND)
        assert all(packed.read(data).digest == digest for digest, data in rows)
        now = {digest for digest, _ in rows}
        assert self._seen.get(domain, set()) <= now
        self._seen[domain] = now

    async def _works(self) -> None:
        """A new request at home and one abroad; a program that has just begun may not know its peers yet."""
        for policy, domain in ((HOME, CLINIC), (FRANCE, CLOUD)):
            async with asyncio.timeout(WORKS_S):
                while not (stream := await self.ask("a new request", policy).ended()).complete:  # noqa: ASYNC110
                    await asyncio.sleep(LOOK_S)
            assert stream.comity["domain"] == domain

    async def verified(self, receipt: str) -> dict[str, Any]:
        """What `comity receipt verify` says of a receipt once everything that is owed has come.

        Fails with the last report when something is wrong or stays missing.
        """
        path, report = self.folder / f"{receipt}.receipt", {}
        end = time.monotonic() + WORKS_S
        async with self.http() as http:
            while time.monotonic() < end:
                response = await http.get(f"/receipts/{receipt}")
                assert response.status_code == httpx.codes.OK, response.text
                path.write_bytes(response.content)
                report = self._verify(path)
                assert report["exit"] != 1, failures(report)
                if report["exit"] == 0:
                    self._verified.add(receipt)
                    return report
                await asyncio.sleep(LOOK_S)
        raise AssertionError((receipt, report["missing"]))

    def _verify(self, path: Path) -> dict[str, Any]:
        trust = self.federation.founded.domain(CLINIC) / "trust.toml"
        code, said = command(commands.main, "verify", str(path), "--trust", str(trust), "--json")
        report: dict[str, Any] = json.loads(said)
        assert report["exit"] == code
        return report


def failures(report: dict[str, Any]) -> list[tuple[str, str, str | None]]:
    """(kind, claim, code) of everything in a report that was checked and is wrong."""
    return [
        (receipt["kind"], claim["claim"], claim["code"])
        for receipt in report["receipts"]
        for claim in receipt["claims"]
        if claim["verdict"] == "failed"
    ]


def command(main: Callable[[list[str]], int], *arguments: str) -> tuple[int, str]:
    """One `comity` command of a room: exit code and what it printed."""
    said = io.StringIO()
    with redirect_stdout(said):
        try:
            code = main(list(arguments))
        except ComityError as error:
            return error.exit_code, str(error)
    return code, said.getvalue()


async def until(condition: Callable[[], object], within: float = POINT_S) -> None:
    """Await something that another process does and does not announce."""
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110 - it is another process's
            await asyncio.sleep(LOOK_S)


@asynccontextmanager
async def town(folder: Path) -> AsyncIterator[Town]:
    """Two domains, a process per program, serving; until the block is left."""
    founded = found_scripted(folder, datetime.now(UTC), TOWN)
    async with AsyncExitStack() as stack:
        engines: dict[str, ScriptedEngine] = {}
        for domain in founded.plan.domains:
            for node in domain.nodes:
                engines[node.id] = await stack.enter_async_context(new_engine())
                point_at(founded, domain.name, node.id, engines[node.id].address)
        federation = await stack.enter_async_context(launched(founded, folder))
        made = Town(federation, engines, folder)
        stack.callback(made.thaw)
        yield made
