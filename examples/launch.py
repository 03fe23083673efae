"""Starting a founded federation on this machine: one bus, and per domain a broker, an agent and its nodes.

Every program is a child process (examples/programs.py) with its own log file under `<run>/logs/`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx

from examples.programs import Program, spawn
from federation.client.login import NATS_URL
from federation.connection import Bus, BusSettings
from federation.found import Founded
from federation.server import EmbeddedServer
from schemas.errors import Undecided

READY_S: Final = 120.0  # s for a domain to serve: twelve programs start at once on two cores
POLL_S: Final = 0.1  # s between looks at something that cannot call us


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


async def _answers(founded: Founded, url: str) -> None:
    """Return when the operator's own server lets a broker in. Raises `Undecided` or `Refused`."""
    first = founded.plan.domains[0].name
    seed = founded.domain(first) / "keys" / "broker.nk"
    login = BusSettings(url, seed, founded.bus.ca_file, f"{first}/broker", "_INBOX.broker")
    bus = await Bus.connect(login, timeout=READY_S)
    await bus.close()


@asynccontextmanager
async def launched(
    founded: Founded,
    run: Path,
    *,
    without: frozenset[str] = frozenset(),
    said: Callable[[str], None] = lambda _: None,
) -> AsyncIterator[RunningFederation]:
    """The whole federation, running until the block is left.

    Its bus is embedded, or the operator's own server where `NATS_URL` names one; that one must run with
    the founded configuration (`<run>/…/bus/server.conf`), which holds every domain's account.

    without: names of programs (`<domain>/<node id>`) that are not started. said: told of each step.
    """
    federation = RunningFederation(founded, run / "logs", founded.bus.server(port=founded.bus_port))
    elsewhere = os.environ.get(NATS_URL)
    if elsewhere:
        said(f"waiting for your server at {elsewhere}; it runs with {founded.bus.config}")
        await _answers(founded, elsewhere)
    else:
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
