"""One whole domain on a real bus: our agent and nodes as programs, and everyone else as logins."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from attestation.appraise import IssuedChallenge
from attestation.expected import Expectations
from domain_agent import config as agent_config
from domain_agent.agent import Agent
from domain_agent.node import config as node_config
from domain_agent.node.program import Node
from domain_agent.tests.consumer import Attempt, NodeFacts
from domain_agent.tests.engines import ScriptedEngine
from domain_agent.tests.founding import CAPABILITY, NODES, OURS, PEER, Founded
from federation.connection import Bus
from federation.embedded.folder import BusFolder, found_bus
from federation.flood import FloodLimits
from federation.server import EmbeddedServer
from federation.serving import Inbound
from federation.stream import open_stream
from schemas.canonical import sha256
from schemas.descriptors.summary import CapabilitySummary
from schemas.errors import Undecided
from schemas.keys import VerifyKey
from schemas.messages.advert import sign_advert
from schemas.messages.interior import (
    AgentStatus,
    Hold,
    HoldReply,
    HoldRequest,
    HoldUpdate,
    HoldUpdated,
    NodeRevoked,
    OwnAdvert,
)
from schemas.messages.message import new_nonce

ANSWER_S = 20.0  # seconds for the agent to answer on a machine that is busy with other things
ADMITTED_S = 60.0  # seconds for a node program to start there, prove itself and report
LIMITS = FloodLimits(rate=1e6, burst=1e6, queue=4096)


class Domain:
    """clinic.de on its bus, with our broker's login to ask with."""

    def __init__(
        self, founded: Founded, folder: Path, bus: BusFolder, url: str, stack: AsyncExitStack
    ) -> None:
        self.founded, self.folder, self._bus, self._url, self._stack = founded, folder, bus, url, stack
        self.adverts: list[OwnAdvert] = []
        self.revoked: list[NodeRevoked] = []
        self.nids: dict[str, str] = {}
        """Hold id → the negotiation that got it."""
        self.running: Agent | None = None
        self.broker: Bus
        self.server: EmbeddedServer

    async def open(self) -> None:
        """Our broker: hears what the agent tells it."""
        self.broker = await self.login(OURS, "broker")

        async def advert(inbound: Inbound) -> None:
            self.adverts.append(OwnAdvert.read(inbound.payload))

        async def revoked(inbound: Inbound) -> None:
            self.revoked.append(NodeRevoked.read(inbound.payload))

        await self.broker.serve("broker.advert", advert, limits=LIMITS, concurrency=1)
        await self.broker.serve("broker.revoked", revoked, limits=LIMITS, concurrency=1)

    async def login(self, domain: str, user: str) -> Bus:
        bus = await Bus.connect(self._bus.settings(domain, user, self._url))
        self._stack.push_async_callback(bus.close)
        return bus

    def agent_file(
        self, *, digest: str = "", epoch_s: int = 60, k_min: int = 1, observe: Path | None = None
    ) -> str:
        """Write our agent's file. digest: of the one model it offers."""
        path = self.folder / "agent.toml"
        path.write_text(
            f'domain = "{OURS}"\nstate = "state"\n{self.founded.federation_toml()}'
            f'expectations = "{self.founded.folder}/expected.toml"\n{self._bus_toml("agent")}'
            f'[keys]\nadvert = "{self.founded.folder}/{OURS}.advert.pem"\n'
            f'attestation_verifier = "{self.founded.folder}/{OURS}.verifier.pem"\n'
            f"[admission]\nepoch_s = {epoch_s}\n[capacity]\nqueue_per_slot = 1\n[summary]\nk_min = {k_min}\n"
            f'[[capabilities]]\nclass = "chat.small"\nvariant = "{CAPABILITY.partition("/")[2]}"\n'
            f'version = "1"\ndigest = "{digest or file_digest()}"\ntier = 1\ncontext = 2048\n'
            f"[capabilities.rates]\ninput = 100\noutput = 300\ncached = 10\n{_observe(observe)}"
        )
        return str(path)

    async def agent(self, *, digest: str = "", epoch_s: int = 60, k_min: int = 1, fails: str = "") -> Agent:
        """Our agent as a program, until the end of the test. fails: the code it should end with."""
        config = agent_config.load(Path(self.agent_file(digest=digest, epoch_s=epoch_s, k_min=k_min)))
        agent = Agent(config, await Bus.connect(config.membership.bus))
        self._run(agent.run(), agent.drain, fails)
        self.running = agent
        return agent

    def node_file(
        self,
        engine: str,
        *,
        name: str = "n1",
        chip: str | None = None,
        file: Path,
        observe: Path | None = None,
    ) -> str:
        """Write a node's file. engine: the keys of its [engine] table."""
        path = self.folder / f"{name}.toml"
        path.write_text(
            f'domain = "{OURS}"\nnode_id = "{name}"\ndrain_s = 1\n{self.founded.federation_toml()}'
            f"{self._bus_toml(f'node.{name}')}"
            f'[tee]\nkind = "simulated"\nchip = "{self.founded.folder}/chips/{chip or name}"\n'
            f"[engine]\n{engine}\n"
            f'[[models]]\ncapability = "{CAPABILITY}"\nfile = "{file}"\nname = "model"\n{_observe(observe)}'
        )
        return str(path)

    async def node(
        self, engine: str, *, name: str = "n1", chip: str | None = None, file: Path, fails: str = ""
    ) -> Node:
        """One of our nodes as a program, until the end of the test. fails: the code it should end with."""
        path = self.node_file(engine, name=name, chip=chip, file=file)
        node = await Node.start(node_config.load(Path(path)))
        self._run(node.run(), node.drain, fails)
        return node

    def scripted_file(self, engine: ScriptedEngine, *, observe: Path | None = None) -> str:
        """Write the file of a node n1 around a scripted engine, whose "model" is this file."""
        return self.node_file(_scripted(engine, 2), file=Path(__file__), observe=observe)

    async def scripted(
        self,
        engine: ScriptedEngine,
        *,
        name: str = "n1",
        slots: int = 2,
        chip: str | None = None,
        fails: str = "",
    ) -> Node:
        """A node around a scripted engine as a program, until the end of the test."""
        table = _scripted(engine, slots)
        return await self.node(table, name=name, chip=chip, file=Path(__file__), fails=fails)

    async def status(self) -> AgentStatus:
        return AgentStatus.read(await self.broker.request("agent.status", b"{}", timeout=ANSWER_S))

    async def admitted(self, *names: str, within: float = ADMITTED_S) -> AgentStatus:
        """The status once exactly these nodes are admitted, and up."""
        async with asyncio.timeout(within):
            while True:
                with suppress(Undecided):  # the agent may only be starting
                    status = await self.status()
                    if names_of(status) == set(names):
                        return status
                await asyncio.sleep(0.05)

    async def refused(self, name: str, reason: str) -> None:
        """Return when the agent keeps a node out for this reason; it may have been silent at first."""
        seen: str | None = None
        try:
            async with asyncio.timeout(ADMITTED_S):
                while seen != reason:
                    seen = next(
                        (node.reason for node in (await self.status()).nodes if node.node_id == name), None
                    )
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"{name} is kept out for {seen}, not for {reason}") from None

    async def hold(self, *, capability: str = "chat.small", exclude: tuple[str, ...] = ()) -> HoldReply:
        asked = HoldRequest(
            nid=new_nonce(),
            capability=capability,
            model_digest=None,
            hold_ms=5000,
            consumer=PEER,
            data_class="public",
            exclude_nodes=list(exclude),
        )
        reply = HoldReply.read(await self.broker.request("agent.hold", asked.write(), timeout=ANSWER_S))
        if reply.hold:
            self.nids[reply.hold.hold_id] = asked.nid
        return reply

    async def commit(self, hold: Hold) -> HoldUpdated:
        return await self._update("agent.commit", hold)

    async def done(self, hold: Hold) -> HoldUpdated:
        return await self._update("agent.done", hold)

    async def _update(self, subject: str, hold: Hold) -> HoldUpdated:
        update = HoldUpdate(hold_id=hold.hold_id, nid=self.nids[hold.hold_id])
        return HoldUpdated.read(await self.broker.request(subject, update.write(), timeout=ANSWER_S))

    async def execute(self, attempt: Attempt, hold: Hold) -> Attempt:
        """Carry a sealed order to the node, as our border does."""
        subject = f"node.{hold.node_id}.in.execute"
        async with open_stream(self.broker, subject, attempt.head, attempt.chunks) as stream:
            async for frame in stream:
                attempt.take(frame)
        return attempt

    async def peer_advert(self, challenge: bytes, *, seq: int = 0, key_of: str = PEER) -> IssuedChallenge:
        """cloud.fr's agent advertises this challenge to us."""
        bus, now = await self.login(PEER, "agent"), int(time.time())
        summary = CapabilitySummary(
            federation=self.founded.trust.federation,
            iss=PEER,
            epoch=1,
            seq=seq,
            iat=now,
            ttl_s=30,
            challenge=challenge.hex(),
            trust_epoch=0,
            profile_digest="0" * 64,
            k_min=1,
            cells=[],
        )
        await bus.publish("peer.clinic_de.advert", sign_advert(summary, self.founded.advert[key_of]))
        return IssuedChallenge(PEER, challenge, float(now))

    def expectations(self) -> Expectations:
        return Expectations.load(self.founded.folder / "expected.toml")

    def _bus_toml(self, user: str) -> str:
        seed = self._bus.seed_file(OURS, user)
        return f'[bus]\nurl = "{self._url}"\nseed = "{seed}"\nca = "{self._bus.ca_file}"\n'

    def _run(self, work: Coroutine[Any, Any, None], drain: Callable[[], None], fails: str = "") -> None:
        task = asyncio.create_task(work)

        async def end() -> None:
            drain()
            outcome = (await asyncio.gather(task, return_exceptions=True))[0]
            if isinstance(outcome, BaseException) and getattr(outcome, "code", None) != fails:
                raise outcome
            assert bool(fails) == (outcome is not None)

        self._stack.push_async_callback(end)


@asynccontextmanager
async def domain(founded: Founded, folder: Path) -> AsyncIterator[Domain]:
    """A bus of its own for one test."""
    async with AsyncExitStack() as stack:
        bus, _ = found_bus(folder / "bus", NODES, datetime.now(UTC))
        server = bus.server()
        stack.push_async_callback(server.stop)
        await server.start()
        made = Domain(founded, folder, bus, server.url, stack)
        made.server = server
        await made.open()
        yield made


def names_of(status: AgentStatus) -> set[str]:
    """Nodes that are admitted and up."""
    return {node.node_id for node in status.nodes if node.admitted and node.health == "HEALTHY"}


def facts_of(hold: Hold, sign: VerifyKey) -> NodeFacts:
    assert sign.thumbprint == hold.node_sign
    return NodeFacts(sign, hold.seal_key, hold.model_digest)


def file_digest() -> str:
    """Digest of the scripted nodes' "model"."""
    return sha256(Path(__file__).read_bytes()).hex()


def _scripted(engine: ScriptedEngine, slots: int) -> str:
    return (
        f'kind = "openai"\nname = "scripted"\naddress = "{engine.address}"\nslots = {slots}\n'
        f'binary = "{__file__}"\nflags = []\nprefix_cache = "off"'
    )


def _observe(path: Path | None) -> str:
    return f'[observe]\nspans = "{path}"\n' if path else ""
