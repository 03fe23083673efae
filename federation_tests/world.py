"""`World`: a whole federation in one process, on a real nats-server, with real HTTP at its edges.

Brokers, agents and nodes are the programs' own objects, started as their commands start them; only
the engines follow scripts and the chips are made up. Tests reach into the objects to make them lie,
and stop or kill single parts. `examples.launch` is the same with a process per program.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import httpx
from openai import AsyncOpenAI, DefaultAsyncHttpxClient

from broker.starting.config import BrokerConfig
from broker.starting.program import Running, running
from domain_agent import config as agent_config
from domain_agent.agent import Agent
from domain_agent.node import config as node_config
from domain_agent.node.program import Node
from federation.connection import Bus, BusSettings
from federation.found import Founded, free_port
from federation.server import EmbeddedServer
from federation_tests.bus_operator import Operator, operating
from federation_tests.engine import ScriptedEngine, new_engine
from federation_tests.plan import CHAT, CLINIC, Changes, found_scripted

READY_S: Final = 20.0  # seconds for a world to be ready on two busy cores; it takes about three
ENGINE_NAME: Final = "scripted"


async def until(condition: Callable[[], object], within: float = 10.0) -> None:
    """Await a condition that nothing announces. Raises `TimeoutError`."""
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110 - it is another program's, or a plain counter's
            await asyncio.sleep(0.01)


@dataclass(slots=True)
class RunningNode:
    """One node program with its engine."""

    node: Node
    task: asyncio.Task[None]
    engine: ScriptedEngine

    async def stop(self) -> None:
        """Drain it, as SIGTERM does."""
        self.node.drain()
        await asyncio.gather(self.task, return_exceptions=True)

    async def kill(self) -> None:
        """End it as a power cut does: nobody is told anything."""
        cut(self.node.bus)
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@dataclass(slots=True)
class Domain:
    """One domain's programs in this process."""

    name: str
    folder: Path
    nodes: dict[str, RunningNode] = field(default_factory=dict)
    _agent: tuple[Agent, asyncio.Task[None]] | None = None
    _broker: tuple[Running, AsyncExitStack] | None = None

    @property
    def agent(self) -> Agent:
        assert self._agent
        return self._agent[0]

    @property
    def broker(self) -> Running:
        assert self._broker
        return self._broker[0]

    @property
    def database(self) -> Path:
        return self.folder / "state" / "broker.db"

    async def start_agent(self) -> None:
        config = agent_config.load(self.folder / "agent.toml")
        agent = Agent(config, await Bus.connect(config.membership.bus))
        self._agent = agent, asyncio.create_task(agent.run())

    async def start_broker(self, change: Callable[[BrokerConfig], BrokerConfig] | None = None) -> None:
        """One process has one tracer: each broker's file would hold every span of the federation."""
        config = settings(observe={"spans": None})(BrokerConfig.load(self.folder / "broker.toml"))
        stack = AsyncExitStack()
        self._broker = (
            await stack.enter_async_context(running(change(config) if change else config, logs=False)),
            stack,
        )

    async def start_node(self, node_id: str, engine: ScriptedEngine) -> RunningNode:
        node = await Node.start(node_config.load(self.folder / f"node-{node_id}.toml"))
        self.nodes[node_id] = RunningNode(node, asyncio.create_task(node.run()), engine)
        return self.nodes[node_id]

    async def stop_broker(self) -> None:
        if self._broker:
            _, stack = self._broker
            self._broker = None
            await stack.aclose()

    async def stop_agent(self) -> None:
        if self._agent:
            agent, task = self._agent
            self._agent = None
            agent.drain()
            await asyncio.gather(task, return_exceptions=True)

    async def stop(self) -> None:
        """Edges first, so that nothing new comes in; then the interior."""
        await self.stop_broker()
        await asyncio.gather(*(node.stop() for node in self.nodes.values()))
        await self.stop_agent()


@dataclass(slots=True)
class World:
    """A running federation. Made by `world`."""

    founded: Founded
    server: EmbeddedServer
    engines: dict[str, ScriptedEngine]
    """Node id → its engine."""
    domains: dict[str, Domain]
    _stack: AsyncExitStack
    _operator: Operator | None = None

    def __getitem__(self, domain: str) -> Domain:
        return self.domains[domain]

    def api_key(self, domain: str) -> str:
        """The key of the domain's first tenant."""
        return next(key for (owner, _), key in self.founded.api_keys.items() if owner == domain)

    def trust_file(self, domain: str = CLINIC) -> Path:
        """What an auditor of this federation holds as true."""
        return self.founded.domain(domain) / "trust.toml"

    def client(self, domain: str = CLINIC) -> AsyncOpenAI:
        """The stock client, without retries of its own: a test wants to see the first answer."""
        client = AsyncOpenAI(
            base_url=self[domain].broker.base_url,
            api_key=self.api_key(domain),
            max_retries=0,
            http_client=DefaultAsyncHttpxClient(trust_env=False, timeout=60.0),
        )
        self._stack.push_async_callback(client.close)
        return client

    def http(self, domain: str = CLINIC) -> httpx.AsyncClient:
        """A plain HTTP client with the tenant's key, for what the stock client hides."""
        client = httpx.AsyncClient(
            base_url=self[domain].broker.base_url,
            headers={"Authorization": f"Bearer {self.api_key(domain)}"},
            trust_env=False,
            timeout=60.0,
        )
        self._stack.push_async_callback(client.aclose)
        return client

    async def bus(self, domain: str, user: str) -> Bus:
        """A further connection with a program's own login: what its owner could do by hand."""
        seed = self.founded.domain(domain) / "keys" / f"{user}.nk"
        settings = BusSettings(
            self.url, seed, self.founded.bus.ca_file, f"{domain}/{user}/test", f"_INBOX.{user}"
        )
        bus = await Bus.connect(settings)
        self._stack.push_async_callback(bus.close)
        return bus

    @property
    def operator(self) -> Operator:
        """Who runs the bus, in a world that is `operated`."""
        assert self._operator
        return self._operator

    @property
    def url(self) -> str:
        """Where programs find the bus."""
        return f"tls://127.0.0.1:{self.founded.bus_port}"

    async def ready(self, *domains: str, within: float = READY_S) -> None:
        """Return when every node is admitted and every broker sees every domain's capabilities."""
        try:
            await until(lambda: not self.missing(*domains), within)
        except TimeoutError:
            raise AssertionError(f"the world is not ready: {self.missing(*domains)}") from None

    def missing(self, *domains: str) -> list[str]:
        """What a ready federation would have and this one lacks."""
        wanted = domains or tuple(self.domains)
        found = [f"{name}: {text}" for name in wanted for text in _unadmitted(self[name], wanted)]
        for name in wanted:
            for other in wanted:
                found += _unseen(self[name], self[other])
        return found


def _unadmitted(domain: Domain, everybody: tuple[str, ...]) -> list[str]:
    """Nodes that are not admitted, or whose proof answers not every domain's challenge."""
    book, now = domain.agent.book, domain.agent.clock.wall()
    lacking = []
    for node_id in domain.nodes:
        record = book.get(node_id)
        if record is None or not record.admitted(now) or record.appraisal is None:
            lacking.append(f"{node_id} is not admitted ({record.reason if record else 'unknown'})")
        elif not {proof.domain for proof in record.appraisal.evidence.challenges} >= set(everybody):
            lacking.append(f"{node_id} has not answered everybody")
        elif record.state is None:
            lacking.append(f"{node_id} has reported nothing")
    return lacking


def _unseen(viewer: Domain, other: Domain) -> list[str]:
    """Capabilities that are listed neither by name nor, as below `k_min`, by class."""
    listing = viewer.broker.parts.service.directory.get(other.name, datetime.now(UTC))
    shown = {cell.label for cell in listing.summary.cells} if listing else set()
    served = {each.capability for node in other.nodes.values() for each in node.node.engine.residents}
    lacking = {label for label in served - shown if label.partition("/")[0] not in shown}
    return [f"{viewer.name} does not see {label} of {other.name}" for label in lacking]


@asynccontextmanager
async def world(
    folder: Path,
    changes: Changes | None = None,
    *,
    brokers: Mapping[str, Callable[[BrokerConfig], BrokerConfig]] | None = None,
    operated: bool = False,
    before: Callable[[Founded], None] = lambda _: None,
    wait: bool = True,
) -> AsyncIterator[World]:
    """A federation that runs until the block is left, in this event loop.

    brokers: changes of brokers' settings. operated: everything on the bus passes through the hands of
    `World.operator`. before: called with the founded files, before anything runs. wait: return only
    when everything is admitted and seen.
    """
    founded = found_scripted(folder, datetime.now(UTC), changes or Changes())
    server = founded.bus.server(port=free_port() if operated else founded.bus_port)
    async with AsyncExitStack() as stack:
        made = World(founded, server, {}, {}, stack)
        for plan in founded.plan.domains:
            made.domains[plan.name] = Domain(plan.name, founded.domain(plan.name))
            for node in plan.nodes:
                made.engines[node.id] = await stack.enter_async_context(new_engine())
                point_at(founded, plan.name, node.id, made.engines[node.id].address)
        before(founded)
        stack.push_async_callback(server.stop)
        await server.start()
        if operated:
            assert server.port
            relay = operating(founded.bus, port=founded.bus_port, upstream=server.port)
            made._operator = await stack.enter_async_context(relay)
        stack.push_async_callback(_stop_all, made)
        await _start_all(made, brokers or {})
        if wait:
            await made.ready()
        async with AsyncExitStack() as clients:
            made._stack = clients
            yield made


async def _start_all(made: World, brokers: Mapping[str, Callable[[BrokerConfig], BrokerConfig]]) -> None:
    """Agents first and each other's challenges with them, so that the first proof of a node serves all."""
    everybody = list(made.domains.values())
    await asyncio.gather(*(domain.start_agent() for domain in everybody))
    await asyncio.gather(*(domain.start_broker(brokers.get(domain.name)) for domain in everybody))
    names = {domain.name for domain in everybody}
    with contextlib.suppress(TimeoutError):
        await until(
            lambda: all(names <= {d.name, *d.agent.peers.current(d.agent.clock.wall())} for d in everybody), 3
        )
    planned = [(made[plan.name], node.id) for plan in made.founded.plan.domains for node in plan.nodes]
    await asyncio.gather(*(domain.start_node(node, made.engines[node]) for domain, node in planned))


async def _stop_all(made: World) -> None:
    await asyncio.gather(*(domain.stop() for domain in made.domains.values()))


def point_at(founded: Founded, domain: str, node_id: str, address: str, **engine: Any) -> None:
    """Let a node's settings name a scripted engine instead of llama.cpp. `engine`: keys of [engine]."""
    path = founded.domain(domain) / f"node-{node_id}.toml"
    plan = next(each for each in founded.plan.domains if each.name == domain)
    slots = next(node.slots for node in plan.nodes if node.id == node_id)
    text = path.read_text("utf-8")
    start, _, rest = text.partition("[engine]\n")
    _, _, models = rest.partition("\n[[models]]")
    keys: dict[str, object] = {
        "kind": "openai",
        "name": ENGINE_NAME,
        "address": address,
        "binary": str(founded.folder.parent / "engine.bin"),
        "slots": slots,
        "prefix_cache": "off",
        "flags": [],
    } | engine
    lines = [f"{key} = {_toml(value)}\n" for key, value in keys.items() if value is not None]
    path.write_text(f"{start}[engine]\n{''.join(lines)}\n[[models]]{models}", "utf-8")


def _toml(value: object) -> str:
    return str(value) if isinstance(value, int | list) else f'"{value}"'


def settings(**changed: Any) -> Callable[[BrokerConfig], BrokerConfig]:
    """A change of a broker's settings by section: `settings(limits={"running": 1})`."""

    def change(config: BrokerConfig) -> BrokerConfig:
        parts = {
            name: dataclasses.replace(getattr(config, name), **values) if isinstance(values, dict) else values
            for name, values in changed.items()
        }
        return dataclasses.replace(config, **parts)

    return change


def cut(bus: Bus) -> None:
    """End a connection at once and for good, without a word to the server."""
    bus.closing = True
    client = bus._client
    client.options["allow_reconnect"] = False
    transport = client._transport
    if transport is not None:
        transport._io_writer.transport.abort()  # type: ignore[attr-defined]


def ask(text: str, **more: Any) -> dict[str, Any]:
    """Arguments of a chat completion; public data unless `policy` says otherwise."""
    policy = more.pop("policy", {"data_class": "public"})
    body: dict[str, Any] = {"comity": {"policy": policy, **more.pop("comity", {})}}
    return {
        "model": more.pop("model", CHAT),
        "messages": [{"role": "user", "content": text}],
        "extra_body": body | more.pop("extra_body", {}),
        **more,
    }
