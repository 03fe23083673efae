"""Starting a founded federation on this machine: one bus, and per domain a broker, an agent and its nodes.

Every program is a child process with its own log file under `<run>/logs/`; it gets SIGTERM when this
process ends, however it ends (Linux). Programs are stopped by their own process ids, nothing by name.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx

from federation.found import Founded
from federation.server import EmbeddedServer
from schemas.errors import ConfigurationError, Undecided

READY_S: Final = 120.0  # s for a domain to serve: twelve programs start at once on two cores
POLL_S: Final = 0.1  # s between looks at something that cannot call us
STOP_S: Final = 15.0  # s after SIGTERM before a program is killed
TAIL_BYTES: Final = 3000  # of a program's log in an error
PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h


@dataclass(slots=True)
class Program:
    """One child: `name` is `<domain>/<broker|agent|node id>`."""

    name: str
    arguments: tuple[str, ...]
    log: Path
    process: asyncio.subprocess.Process

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process.returncode is None

    def check(self) -> None:
        """Raise `ConfigurationError` with the end of its log when it has ended."""
        if not self.running:
            tail = self.log.read_bytes()[-TAIL_BYTES:].decode("utf-8", "replace")
            raise ConfigurationError(
                "launch.ended", f"{self.name} ended with {self.process.returncode}; its log ends with\n{tail}"
            )

    async def kill(self) -> None:
        """End it at once, as a power cut would."""
        self._signal(signal.SIGKILL)
        await self.process.wait()

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL when it does not end in time."""
        self._signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.process.wait(), STOP_S)
            return
        await self.kill()

    def _signal(self, number: signal.Signals) -> None:
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)


@dataclass(slots=True)
class RunningFederation:
    """The bus and every program. Made by `launched`."""

    founded: Founded
    logs: Path
    server: EmbeddedServer
    programs: dict[str, Program] = field(default_factory=dict)

    def of(self, domain: str) -> list[Program]:
        """The domain's programs: broker, agent, nodes."""
        return [program for name, program in self.programs.items() if name.startswith(f"{domain}/")]

    def base_url(self, domain: str) -> str:
        """What clients use as `base_url`. Raises `Undecided` before the broker listens."""
        path = self.founded.domain(domain) / "state" / "broker.port"
        try:
            return f"http://127.0.0.1:{int(path.read_text('ascii'))}/v1"
        except (OSError, ValueError):
            raise Undecided("launch.port", f"the broker of {domain} does not listen yet") from None

    def api_key(self, domain: str) -> str:
        """The key of the domain's first tenant."""
        return next(key for (owner, _), key in self.founded.api_keys.items() if owner == domain)

    async def start(self, domain: str, *roles: str) -> None:
        """Start `broker`, `agent` or a node id of the domain, unless it runs."""
        folder = self.founded.domain(domain)
        for role in roles:
            name = f"{domain}/{role}"
            if name in self.programs and self.programs[name].running:
                continue
            command = ("broker", "serve") if role == "broker" else ("agent", "run")
            file = f"{role}.toml"
            if role not in ("broker", "agent"):
                command, file = ("node", "run"), f"node-{role}.toml"
            arguments = (*command, "--config", str(folder / file))
            self.programs[name] = await spawn(name, arguments, self.logs / f"{domain}-{role}.log")

    async def ready(self, domain: str) -> None:
        """Return when the domain's broker says that it serves. Raises when a program of it has ended."""
        until = time.monotonic() + READY_S
        async with httpx.AsyncClient(trust_env=False) as client:
            while time.monotonic() < until:
                for program in self.of(domain):
                    program.check()
                with contextlib.suppress(httpx.HTTPError, Undecided):
                    url = self.base_url(domain).removesuffix("/v1") + "/healthz"
                    if (await client.get(url)).status_code == httpx.codes.OK:
                        return
                await asyncio.sleep(POLL_S)
        raise Undecided("launch.not_ready", f"{domain} did not get ready within {READY_S:.0f} s")

    @property
    def offered(self) -> set[tuple[str, str]]:
        """(capability, domain) of every node that was started."""
        return {
            (node.capability, domain.name)
            for domain in self.founded.plan.domains
            for node in domain.nodes
            if f"{domain.name}/{node.id}" in self.programs
        }

    async def known(self, domain: str) -> None:
        """Return when the domain's broker knows what every domain offers (`GET /v1/models`)."""
        wanted = self.offered
        headers, missing = {"Authorization": f"Bearer {self.api_key(domain)}"}, wanted
        until = time.monotonic() + READY_S
        async with httpx.AsyncClient(trust_env=False, headers=headers) as client:
            while time.monotonic() < until:
                answer = await client.get(f"{self.base_url(domain)}/models")
                models = answer.json().get("data", [])
                missing = wanted - {
                    (model["id"], name) for model in models for name in model["comity"]["domains"]
                }
                if not missing:
                    return
                await asyncio.sleep(POLL_S)
        raise Undecided("launch.not_known", f"{domain} still does not know of {sorted(missing)}")

    async def stop(self) -> None:
        """End every program, then the bus."""
        await asyncio.gather(*(program.stop() for program in self.programs.values()))
        await self.server.stop()


async def spawn(name: str, arguments: Iterable[str], log: Path) -> Program:
    """Start `comity …` as a child whose output goes to `log`."""
    listed = tuple(arguments)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "comity",
            *listed,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,  # a Ctrl-C at the terminal is ours to handle, in order
            preexec_fn=die_with_parent(),
        )
    return Program(name, listed, log, process)


@asynccontextmanager
async def launched(
    founded: Founded,
    run: Path,
    *,
    without: frozenset[str] = frozenset(),
    said: Callable[[str], None] = lambda _: None,
) -> AsyncIterator[RunningFederation]:
    """The whole federation, running until the block is left.

    without: names of programs (`<domain>/<node id>`) that are not started. said: told of each step.
    """
    federation = RunningFederation(founded, run / "logs", founded.bus.server(port=founded.bus_port))
    said("starting the bus")
    await federation.server.start()
    try:
        for domain in founded.plan.domains:
            roles = ("agent", "broker", *(node.id for node in domain.nodes))
            wanted = [role for role in roles if f"{domain.name}/{role}" not in without]
            said(f"starting {domain.name}: {', '.join(wanted)}")
            await federation.start(domain.name, *wanted)
        for domain in founded.plan.domains:
            said(f"waiting for {domain.name}: nodes load the model, prove themselves, are admitted")
            await federation.ready(domain.name)
        said("waiting until every domain has heard what the others offer")
        for domain in founded.plan.domains:
            if domain.tenants:
                await federation.known(domain.name)
        yield federation
    finally:
        await federation.stop()


def die_with_parent() -> Callable[[], None] | None:
    """For Linux: ask the kernel to end the child when this process ends (prctl(2))."""
    if sys.platform != "linux":
        return None
    libc, parent = ctypes.CDLL(None, use_errno=True), os.getpid()

    def in_child() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # the parent died between fork and prctl
            os._exit(1)

    return in_child
