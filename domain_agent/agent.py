"""The agent program: admits nodes, keeps the books, answers the border, advertises.

Serves `agent.<op>` for its own broker and operator, `node.<id>.out.<op>` for its nodes, and hears
its peers' adverts for the challenges in them. Everything but revocations is in memory: after a
restart nodes are asked again within seconds, and holds are void.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from domain_agent.admit.admission import Admission
from domain_agent.admit.challenges import OwnChallenges, PeerChallenges
from domain_agent.admit.collateral import Collateral
from domain_agent.admit.nodes import NodeBook
from domain_agent.admit.revocations import ReasonClass, Revocations
from domain_agent.clock import Clock
from domain_agent.config import AgentConfig
from domain_agent.offer.advert import Advertiser
from domain_agent.offer.capacity import Capacity
from domain_agent.offer.holding import Holding
from domain_agent.offer.summary import Condenser
from domain_agent.spans import working
from federation.accounts import account
from federation.connection import Bus
from federation.flood import FloodLimits
from federation.register import Accepted, Advert, AdvertRegister
from federation.serving import Inbound
from schemas.errors import ComityError, ConfigurationError, Refused, Undecided
from schemas.messages.advert import receive_advert
from schemas.messages.interior import (
    AgentStatus,
    Challenges,
    EvidenceRequest,
    Hello,
    HoldRequest,
    HoldUpdate,
    HoldUpdated,
    NodeRevoked,
    NodeState,
    ResultRequest,
    RevokeNode,
    SignedResult,
    Welcome,
)
from schemas.proof.evidence import pack, unpack

OWN_LIMITS: Final = FloodLimits(rate=5000.0, burst=10_000.0, queue=4096)  # our own broker, per operation
NODE_LIMITS: Final = FloodLimits(rate=10.0, burst=30.0, queue=16)  # one node: a state each second
SUPPLY_LIMITS: Final = FloodLimits(rate=500.0, burst=600.0, queue=64)  # one node: a new bundle of 256 pieces
PEER_LIMITS: Final = FloodLimits(rate=4.0, burst=20.0, queue=8, max_bytes=32 * 1024)  # adverts 1 s apart
CONCURRENCY: Final = 64

_log = logging.getLogger("comity.agent")


class Agent:
    """One running agent. `run` is its whole life; `drain` ends it."""

    def __init__(self, config: AgentConfig, bus: Bus, clock: Clock | None = None) -> None:
        self.config, self.bus, self.clock = config, bus, clock or Clock()
        self.book, self.capacity = NodeBook(), Capacity()
        self.own = OwnChallenges(config.membership.domain)
        self.peers, self.register = PeerChallenges(), AdvertRegister()
        self.revocations = Revocations.load(config.state)
        self.collateral = Collateral(config.membership, config.collateral)
        self.holding = Holding(self.book, self.capacity, config.catalogue, self.clock)
        self.admission = Admission(
            membership=config.membership,
            expectations=config.expectations,
            book=self.book,
            own=self.own,
            peers=self.peers,
            revocations=self.revocations,
            ask=self._ask,
            lost=self._lost,
            clock=self.clock,
            epoch_s=config.epoch_s,
            accept=config.accept,
            results=config.results,
            collateral=self.collateral,
        )
        self.advertiser = Advertiser(
            membership=config.membership,
            key=config.advert_key,
            condenser=Condenser(self.holding, config.jurisdiction, config.k_min),
            own=self.own,
            revocations=self.revocations,
            publish=bus.publish,
            clock=self.clock,
            k_min=config.k_min,
            ttl_s=config.ttl_s,
            collateral=self.collateral,
        )
        self._stopping = asyncio.Event()
        self._saving = asyncio.Lock()

    async def run(self) -> None:
        """Serve until drained.

        Raises as `Bus.over`, `ConfigurationError` (`agent.twice`) where another agent of ours serves, or
        `Undecided` when the bus cannot be served.
        """
        tasks: set[asyncio.Task[object]] = set()
        try:
            await self._check_alone()
            await self._save()
            await self._open()
            self.bus.on_reconnect(self._greet)
            ends = (self._stopping.wait(), self.bus.over())
            for work in (self.admission.run(), self.advertiser.run(), *ends):
                tasks.add(asyncio.create_task(work))
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            self.holding.draining = True
            await self.advertiser.farewell()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.bus.close()

    async def _check_alone(self) -> None:
        """Raise `ConfigurationError` where our domain has an agent already: both would sell its slots."""
        if await self.bus.answers("agent.status"):
            domain = self.config.membership.domain
            text = f"another agent of {domain} serves on this bus: stop it before this one starts"
            raise ConfigurationError("agent.twice", text)

    def drain(self) -> None:
        """Give out no new holds, tell the peers, and end."""
        self._stopping.set()

    async def revoke(self, order: RevokeNode) -> None:
        """Put a node out: no hold names it from here on, the border is told, and it lasts."""
        self.admission.revoke(order.node_id, order.reason_class, order.reason)
        self.capacity.forget(order.node_id)
        await self._save()
        _log.warning("node revoked", extra={"node": order.node_id, "reason": order.reason})

    async def _open(self) -> None:
        ops: dict[str, Callable[[Inbound], Awaitable[bytes | None]]] = {
            "hold": self._hold,
            "commit": self._commit,
            "release": self._release,
            "done": self._done,
            "evidence": self._evidence,
            "result": self._result,
            "snapshot": self._snapshot,
            "status": self._status,
            "revoke": self._revoke,
        }
        for op, handler in ops.items():
            await self.bus.serve(f"agent.{op}", handler, limits=OWN_LIMITS, concurrency=CONCURRENCY)
        nodes = {"hello": self._node_hello, "state": self._node_state}
        for op, handler in nodes.items():
            await self.bus.serve(f"node.*.out.{op}", handler, limits=NODE_LIMITS, concurrency=CONCURRENCY)
        supply = "node.*.out.collateral"
        await self.bus.serve(supply, self._collateral, limits=SUPPLY_LIMITS, concurrency=CONCURRENCY)
        inbound = f"fed.v1.neg.{account(self.config.membership.domain)}.*.advert"
        await self.bus.serve(
            inbound, self._peer_advert, limits=PEER_LIMITS, concurrency=CONCURRENCY, senders=self._others
        )

    def _others(self) -> tuple[str, ...]:
        return self.config.membership.peers

    async def _greet(self) -> None:
        self.advertiser.greet()

    async def _hold(self, inbound: Inbound) -> bytes:
        asked = HoldRequest.read(inbound.payload)
        with working("agent.hold", inbound.headers) as span:
            reply = self.holding.hold(asked)
            span.set_attribute("comity.negotiation", asked.nid)
            span.set_attribute("comity.outcome", reply.refused.code if reply.refused else "held")
            return reply.write()

    async def _commit(self, inbound: Inbound) -> bytes:
        update = HoldUpdate.read(inbound.payload)
        place = self.capacity.commit(update.hold_id, update.nid, self.clock.steady())
        if place is not None and not self._still_admitted(place.node_id):
            self.capacity.done(update.hold_id, update.nid, self.clock.steady())
            place = None
        return HoldUpdated(known=place is not None).write()

    async def _release(self, inbound: Inbound) -> bytes:
        update = HoldUpdate.read(inbound.payload)
        place = self.capacity.release(update.hold_id, update.nid, self.clock.steady())
        return HoldUpdated(known=place is not None).write()

    async def _done(self, inbound: Inbound) -> bytes:
        update = HoldUpdate.read(inbound.payload)
        place = self.capacity.done(update.hold_id, update.nid, self.clock.steady())
        return HoldUpdated(known=place is not None).write()

    async def _evidence(self, inbound: Inbound) -> bytes:
        """A node's evidence, or of the domain's collateral the index or a piece."""
        asked = EvidenceRequest.read(inbound.payload).evidence
        try:
            return pack(self.book.document(asked))
        except Undecided:
            return self.collateral.document(asked)

    async def _collateral(self, inbound: Inbound) -> bytes:
        return self.collateral.document(EvidenceRequest.read(inbound.payload).evidence)

    async def _result(self, inbound: Inbound) -> bytes:
        asked = ResultRequest.read(inbound.payload)
        return SignedResult(node_id=asked.node_id, ear=self.book.result(asked.node_id)).write()

    async def _snapshot(self, _: Inbound) -> bytes:
        return self.advertiser.latest().write()

    async def _status(self, _: Inbound) -> bytes:
        nodes = self.book.statuses(self.clock.wall(), self.clock.steady())
        return AgentStatus(trust_epoch=self.revocations.trust_epoch, nodes=nodes).write()

    async def _revoke(self, inbound: Inbound) -> bytes:
        await self.revoke(RevokeNode.read(inbound.payload))
        return await self._status(inbound)

    async def _node_hello(self, inbound: Inbound) -> bytes:
        hello = Hello.read(inbound.payload)
        if hello.node_id != inbound.sender:
            raise Refused("agent.node_id", f"{inbound.sender} said hello as {hello.node_id}")
        self.admission.arrive(hello.node_id, hello.boot_id)
        return Welcome(
            federation=self.config.membership.federation, domain=self.config.membership.domain
        ).write()

    async def _node_state(self, inbound: Inbound) -> None:
        state, steady = NodeState.read(inbound.payload), self.clock.steady()
        record = self.book.note_state(state, inbound.sender, steady)
        if record is None:  # it was there before us: its state is its hello
            self.admission.arrive(state.node_id, state.boot_id)
            return
        self.capacity.set_room(
            state.node_id, slots=state.slots, queue=state.slots * self.config.queue_per_slot
        )
        self.capacity.note_running(state.node_id, state.busy_slots + state.queued, steady)

    async def _peer_advert(self, inbound: Inbound) -> None:
        """A peer's challenge counts only under its own registered advert key, and only in order."""
        now = self.clock.now()
        trust = self.config.membership.trust
        received = receive_advert(
            inbound.payload,
            keys=trust.keys(inbound.sender, "advert", now),
            sender=inbound.sender,
            federation=trust.federation,
            now=now,
        )
        summary = received.summary
        advert = Advert(
            summary.iss, summary.epoch, summary.seq, received.digest, summary.iat, summary.ttl_s, b""
        )
        outcome = self.register.apply(advert, now.timestamp())
        if isinstance(outcome, Accepted):
            self.peers.note(summary.iss, bytes.fromhex(summary.challenge), now.timestamp())
            if outcome.replaced is None or outcome.replaced.epoch != summary.epoch:
                self.advertiser.greet()

    async def _ask(self, node_id: str, challenges: Challenges) -> bytes:
        try:
            answer = await self.bus.request(
                f"node.{node_id}.in.quote", challenges.write(), timeout=self.config.quote_s
            )
        except ComityError as error:  # the node's own word, which is a hint: it proved nothing, that is all
            raise Undecided(error.code, error.text) from None
        return unpack(answer)

    def _lost(self, thumbprints: tuple[str, ...], reason_class: ReasonClass, reason: str) -> None:
        """Something that peers may rely on is over, under a new trust epoch: the border drops it now."""
        revoked = NodeRevoked(
            trust_epoch=self.revocations.trust_epoch,
            nodes=list(thumbprints),
            reason_class=reason_class,
            reason=reason,
        )

        async def tell() -> None:
            for each in (partial(self.bus.publish, "broker.revoked", revoked.write()), self._save):
                try:
                    await each()
                except ComityError as error:  # the next advert's trust epoch tells it as well
                    _log.error("a lost node was not told or kept: %s", error, extra={"code": error.code})

        self.bus.spawn(tell)

    def _still_admitted(self, node_id: str) -> bool:
        record = self.book.get(node_id)
        return record is not None and record.admitted(self.clock.wall())

    async def _save(self) -> None:
        async with self._saving:
            await asyncio.to_thread(self.revocations.save, self.revocations.snapshot())
