"""What this broker serves on the bus: peers' operations at the border, and its own agent's news."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from random import SystemRandom
from typing import Final

from broker.directory import Directory
from broker.observe.spans import span, step
from broker.peers import Peers, new_negotiation
from broker.placing.appraisals import Appraisals
from broker.providing.acknowledgements import Acknowledgements
from broker.providing.border import Border
from broker.providing.executions import Executions
from broker.providing.interior import Interior
from broker.select.predict import Predictor
from broker.witnesses import answer as answer_witness
from federation.accounts import account
from federation.connection import Bus
from federation.flood import FloodLimits
from federation.serving import Inbound
from federation.stream import Responder, serve_streams
from receipts.witnessing.state import WitnessState
from schemas.errors import ComityError, ConfigurationError, Refused, Undecided
from schemas.messages import answer
from schemas.messages.interior import NodeRevoked, OwnAdvert
from schemas.messages.negotiation import FetchEvidence, FetchReceipt, FetchSnapshot, Revoke

PEER_LIMITS: Final = FloodLimits(rate=300.0, burst=2000.0)
"""Of one peer, for each operation of a request: several times what a border serves. A message costs 0.14 ms
(measured: signature and reading), so that one peer takes a fifth of a core with all it may send."""
SELDOM: Final = FloodLimits(rate=20.0, burst=2000.0)
"""For what a peer says when something changed. The burst lets a whole domain's nodes restart at once."""
OPERATIONS: Final[dict[str, FloodLimits]] = {
    **dict.fromkeys(("call", "release", "receipt", "acknowledge"), PEER_LIMITS),
    **dict.fromkeys(("advert", "revoke", "snapshot", "status", "witness"), SELDOM),
    "evidence": FloodLimits(rate=100.0, burst=2000.0),  # a document an epoch of each node, a bundle's pieces
}
WORKERS: Final = 64  # peers' requests handled at once; each waits for the agent or the log
SYNC_EVERY_S: Final = 60.0  # seconds between snapshots of every peer (nats.md 6)
JITTER: Final = (0.8, 1.2)  # of any such time: after an outage of the bus all members begin at once
SYNC_S: Final = 2.0  # seconds to wait for one peer's snapshot
SWEEP_EVERY_S: Final = 0.5  # seconds between looks for holds that have expired
log = logging.getLogger("comity.border")


@dataclass(slots=True)
class Service:
    """The broker's subscriptions and its slow loops. Owns no state of its own."""

    bus: Bus
    peers: Peers
    interior: Interior
    directory: Directory
    appraisals: Appraisals
    border: Border
    executions: Executions
    acknowledgements: Acknowledgements
    predictor: Predictor
    run_s: float
    """Seconds that a run may take here, whatever its consumer's order allows: a slow reader keeps a slot."""
    witness: WitnessState | None = None
    """Cosigns the others' checkpoints; None where this domain runs no witness."""
    advert: OwnAdvert | None = None
    """What our own agent last told the world."""
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _runs: set[Responder] = field(default_factory=set)
    """Peers' runs that are being answered."""
    _quiet: asyncio.Event = field(default_factory=asyncio.Event)

    async def check_alone(self) -> None:
        """Raise `ConfigurationError` where this domain has a broker already, on whatever machine.

        Both would answer every peer, and sign two histories of one log.
        """
        if await self.bus.answers("broker.here"):
            text = f"another broker of {self.peers.domain} serves on this bus: stop it before this one starts"
            raise ConfigurationError("broker.twice", text)

    async def start(self) -> None:
        """Subscribe first, then ask for snapshots, so that nothing falls between (nats.md 6)."""
        inbound = f"fed.v1.neg.{account(self.peers.domain)}.*"
        for op, limits in OPERATIONS.items():
            await self.bus.serve(
                f"{inbound}.{op}",
                self._from_peer,
                limits=limits,
                concurrency=WORKERS,
                senders=self._others,
            )
        await serve_streams(
            self.bus, f"{inbound}.execute", self._execute, limits=PEER_LIMITS, senders=self._others
        )
        await self.bus.serve("broker.*", self._from_agent, limits=PEER_LIMITS, concurrency=4)
        self.bus.on_reconnect(self.sync)
        self._tasks = [
            asyncio.create_task(for_ever(self.sync, SYNC_EVERY_S)),
            asyncio.create_task(for_ever(self.border.expire, SWEEP_EVERY_S)),
        ]

    async def finish(self, within: float) -> None:
        """Let peers' runs end, for at most so many seconds; the rest is cut off when the bus closes."""
        if self._runs:
            self._quiet.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._quiet.wait(), within)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def handle(self, sender: str, op: str, payload: bytes) -> bytes:
        """One operation, wherever it came from; our own domain calls it in process."""
        match op:
            case "call":
                with step("offer", consumer=sender):
                    return await self.border.call(sender, payload)
            case "release":
                await self.border.release(sender, payload)
                return b""
            case "status":
                return await self.border.status(sender, payload)
            case "evidence":
                asked = self.peers.receive(payload, FetchEvidence, sender).body
                return await self.interior.evidence(asked.evidence)
            case "receipt":
                wanted = self.peers.receive(payload, FetchReceipt, sender).body
                return (await self.executions.deliver(sender, wanted)).write()
            case "acknowledge":
                return await self.acknowledgements.take(sender, payload)
            case "snapshot":
                self.peers.receive(payload, FetchSnapshot, sender)
                return self._own_advert()
            case "advert":
                self._apply(sender, payload)
                return b""
            case "revoke":
                self._revoke(sender, payload)
                return b""
            case "witness":
                return await answer_witness(self.witness, self.peers, self.executions.log, payload)
        raise Refused("border.operation", f"no operation {op!r}")

    async def _from_peer(self, inbound: Inbound) -> bytes | None:
        if inbound.sender not in self.peers.trust.members:
            raise Refused("border.stranger", "no member of this federation")
        with span(f"border {inbound.op}", inbound.headers, peer=inbound.sender):
            reply = await self.handle(inbound.sender, inbound.op, inbound.payload)
        return reply or None

    async def _execute(self, inbound: Inbound, responder: Responder) -> None:
        """A peer's sealed run. Its frames go out as fast as the consumer reads."""
        self._runs.add(responder)
        try:
            await self._run(inbound, responder)
        finally:
            self._runs.discard(responder)
            if not self._runs:
                self._quiet.set()

    async def _run(self, inbound: Inbound, responder: Responder) -> None:
        with span("border execute", inbound.headers, peer=inbound.sender):
            try:
                async with asyncio.timeout(self.run_s):
                    await self._pass_on(inbound, responder)
            except TimeoutError:
                raise Undecided("run.too_long", f"a run may take {self.run_s:g} s here") from None

    async def _pass_on(self, inbound: Inbound, responder: Responder) -> None:
        body = await responder.receive_body()
        async with aclosing(self.border.run(inbound.sender, inbound.payload, body)) as frames:
            async for frame in frames:
                if frame[:1] == answer.EXECUTION and responder.cancelled.is_set():
                    return
                await responder.send(frame)
        await responder.end()

    async def _from_agent(self, inbound: Inbound) -> bytes | None:
        match inbound.op:
            case "advert":
                await self.note_own(inbound.payload)
            case "revoked":
                await self._tell_revoked(NodeRevoked.read(inbound.payload))
            case "here":  # another broker of ours that starts
                return b"{}"
        return None

    async def note_own(self, payload: bytes) -> None:
        """Our own agent's advert: the challenge counts from now, and we are a candidate like any other."""
        advert = OwnAdvert.read(payload)
        self.advert = advert
        self.appraisals.challenges.note(advert)
        self._apply(self.peers.domain, advert.advert.encode())

    async def _tell_revoked(self, revoked: NodeRevoked) -> None:
        """Act on it here first, then tell every peer. A lost push shows in the next advert's epoch."""
        self._put_out(self.peers.domain, revoked)
        for domain in self._others():
            message = self.peers.compose(
                Revoke,
                domain,
                nid=new_negotiation(),
                trust_epoch=revoked.trust_epoch,
                nodes=revoked.nodes,
                reason_class=revoked.reason_class,
                reason=revoked.reason,
                effective=int(datetime.now(UTC).timestamp()),
            )
            try:
                await self.peers.tell(domain, "revoke", self.peers.sign(message))
            except ComityError as error:
                log.warning("revocation not sent", extra={"peer": domain, "code": error.code})

    def _revoke(self, sender: str, payload: bytes) -> None:
        """A peer withdraws its own nodes; it can speak for no one else's (their keys are theirs)."""
        revoked = self.peers.receive(payload, Revoke, sender).body
        self._put_out(sender, revoked)

    def _put_out(self, domain: str, revoked: NodeRevoked | Revoke) -> None:
        self.appraisals.revoke(domain, revoked.nodes, revoked.reason_class, revoked.trust_epoch)

    def _apply(self, sender: str, payload: bytes) -> None:
        listing = self.directory.apply(sender, payload, datetime.now(UTC))
        if listing is not None:
            self.appraisals.note_epoch(sender, listing.summary.trust_epoch)

    def _own_advert(self) -> bytes:
        if self.advert is None:
            raise Refused("snapshot.none", "this domain has advertised nothing yet")
        return self.advert.advert.encode()

    def _others(self) -> list[str]:
        return [domain for domain in self.peers.trust.members if domain != self.peers.domain]

    async def sync(self) -> None:
        """Every peer's current advert, and our own agent's. Absent ones are tried again later."""
        await asyncio.gather(self._sync_own(), *(self._sync_peer(domain) for domain in self._others()))

    async def _sync_own(self) -> None:
        try:
            await self.note_own(await self.interior.snapshot())
        except ComityError as error:
            log.info("no advert of our own agent yet", extra={"code": error.code})

    async def _sync_peer(self, domain: str) -> None:
        asked = self.peers.compose(FetchSnapshot, domain, nid=new_negotiation())
        began = asyncio.get_running_loop().time()
        try:
            data = await self.peers.ask(domain, "snapshot", self.peers.sign(asked), within=SYNC_S)
            taken = asyncio.get_running_loop().time() - began
            self.predictor.observe_rtt(domain, Decimal(str(round(1000 * taken, 3))))
            self._apply(domain, data)
        except ComityError as error:
            log.info("no snapshot", extra={"peer": domain, "code": error.code})


async def for_ever(work: Callable[[], Awaitable[None]], every_s: float) -> None:
    """Do it, wait, do it again. A failure is told and ends nothing: nobody else would sweep or listen."""
    while True:
        try:
            await work()
        except Exception:
            log.exception("periodic work failed", extra={"work": getattr(work, "__name__", "")})
        await asyncio.sleep(every_s * SystemRandom().uniform(*JITTER))
