"""Our domain as a provider: answer calls, hold capacity, carry sealed runs to our nodes, sign what ran.

The border reads no prompt: it checks the consumer's signed order, makes its commitment durable,
passes sealed frames through, and signs an Execution over the node's own statement. It never
re-places a request (DESIGN 18). Negotiations live in memory with a time limit; a restart voids them,
while commitments and receipts survive (session.md 11).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from attestation.appraise import NodeAppraisal
from broker.observe.metrics import Metrics
from broker.observe.spans import trace_headers, trace_id
from broker.peers import Peers
from broker.placing.appraisals import Appraisals
from broker.placing.decide import ProviderPolicy
from broker.placing.policy_block import node_record
from broker.providing.executions import Executions, Run
from broker.providing.holds import Holds, Negotiation, State
from broker.providing.interior import Interior
from federation.stream import open_stream
from schemas import envelope
from schemas.canonical import sha256
from schemas.descriptors.capability import check_price
from schemas.descriptors.tags import DATA_CLASSES
from schemas.errors import ComityError, Refused
from schemas.messages import answer
from schemas.messages.execute import Execute, unpack
from schemas.messages.interior import Hold, HoldRequest, NoHold
from schemas.messages.message import Message, Received, ReplayCache
from schemas.messages.negotiation import CallForOffers, Offer, Refuse, Release, Status, StatusReply
from schemas.policy.layers import Decision

MAX_HOLD_MS: Final = 10_000  # milliseconds; several round trips, so that a silent consumer strands little
MIN_HOLD_MS: Final = 500  # below it no execute could arrive in time over a wide area
MAX_ORDERS: Final = 100_000  # attempts remembered against a second order; hours of the busiest border
CALL_AGAIN_MS: Final = 1_000  # milliseconds until another call may find room
_STATES: Final[dict[str, State]] = {
    "ok": "COMPLETED",
    "cancelled": "CANCELLED",
    "terminated": "TERMINATED",
}


@dataclass(slots=True)
class Border:
    """One broker's provider side. Owned by its event loop."""

    peers: Peers
    interior: Interior
    appraisals: Appraisals
    policy: ProviderPolicy
    executions: Executions
    metrics: Metrics
    holds: Holds = field(default_factory=Holds)
    replays: ReplayCache = field(default_factory=ReplayCache)
    draining: bool = False
    _orders: dict[tuple[str, str, int], str] = field(default_factory=dict)

    async def call(self, sender: str, payload: bytes) -> bytes:
        """CallForOffers → Offer with a hold, or a signed Refuse that names the rule."""
        call = self._receive(payload, CallForOffers, sender)
        if sender != self.peers.domain:  # our own requests came in by the gate, which bounds and drains them
            if self.draining:
                return self._refuse(call, "DRAINING", [], 0, 0)
            try:
                self.holds.charge_call(sender, time.monotonic())
            except Refused as error:
                return self._refuse(call, error.code, [], 0, CALL_AGAIN_MS)
        self.holds.check_new(call.body.nid)  # before the agent is asked: under one name it gives one hold
        reply = await self.interior.hold(self._hold_request(call.body))
        if reply.hold is None:
            none = reply.refused or NoHold(code="NO_CAPACITY", headroom=0, retry_after_ms=CALL_AGAIN_MS)
            return self._refuse(call, none.code, [], none.headroom, none.retry_after_ms)
        try:
            return await self._offer_or_refuse(call, reply.hold)
        except BaseException:
            await self.interior.release(reply.hold.hold_id, call.body.nid)
            raise

    async def _offer_or_refuse(self, call: Received[CallForOffers], hold: Hold) -> bytes:
        appraisal = await self.appraisals.appraise(self.peers.domain, hold.evidence)
        price = hold.rates.total(
            input_tokens=call.body.input_tokens, output_tokens=call.body.max_output_tokens
        )
        decision = self.policy.decide(call.body, appraisal, price)
        if decision.verdict != "allow":
            await self.interior.release(hold.hold_id, call.body.nid)
            return self._refuse(call, "POLICY", decision.reasons, hold.headroom, 0)
        return self._offer(call, hold, appraisal, decision, check_price(price))

    async def release(self, sender: str, payload: bytes) -> None:
        """A loser gives its hold back."""
        message = self._receive(payload, Release, sender).body
        negotiation = self.holds.held(message.nid, message.hold_id, sender, time.monotonic())
        self.holds.move(negotiation, "RELEASED", time.monotonic())
        self.metrics.hold("released")
        await self.interior.release(message.hold_id, message.nid)

    async def expire(self) -> None:
        """Give back what consumers let lapse."""
        for negotiation in self.holds.expired(time.monotonic()):
            self.metrics.hold("expired")
            await self.interior.release(negotiation.offer.hold_id, negotiation.offer.nid)

    async def status(self, sender: str, payload: bytes) -> bytes:
        """What became of a negotiation; only its own consumer is told."""
        asked = self._receive(payload, Status, sender)
        held = self.holds.get(asked.body.nid)
        if held is None or held.consumer != sender:
            state, execution = "UNKNOWN", None
        else:
            state, execution = held.state, held.execution
        return self._reply(asked, StatusReply, seq=asked.body.seq + 1, state=state, execution=execution)

    async def run(self, sender: str, head: bytes, body: Sequence[bytes]) -> AsyncGenerator[bytes, None]:
        """Execute: the story of one sealed run at its provider's border. Yields answer frames.

        Raises `ComityError` before anything ran; afterwards a failure is a PROBLEM frame, and the
        Execution receipt says what became of it.
        """
        # 1. The order: signed by the consumer, for us, for a hold that it was offered, once.
        order = self._receive(unpack(head)[0], Execute, sender)
        negotiation = self._accept(order)
        run = Run(
            order,
            negotiation.offer,
            negotiation.decision,
            negotiation.appraisal.sign_key,
            node_record(negotiation.appraisal, "inference").attestation,
            trace_id(),
            datetime.now(UTC),
        )
        try:
            # 2. The commitment that survives a crash, before anything leaves for the node.
            await self._commit(run, negotiation)
            # 3. The node: frames pass through unopened; its statement in the clear stays here.
            async for frame in self._frames(negotiation.hold.node_id, run, head, body):
                yield frame
        except (GeneratorExit, asyncio.CancelledError):
            run.cancelled = True
            raise
        finally:
            # 4. Whatever happened, the slot is free, and where we are committed the Execution says so.
            await self.interior.done(order.body.hold_id, order.body.nid)
            if negotiation.state != "FAILED":
                delivery = await asyncio.shield(self._conclude(run, negotiation))
        yield answer.tag(answer.EXECUTION, delivery)

    async def _frames(
        self, node_id: str, run: Run, head: bytes, body: Sequence[bytes]
    ) -> AsyncGenerator[bytes, None]:
        """The node begins while the agent books the slot; before it is booked, nothing is passed on."""
        try:
            subject = f"node.{node_id}.in.execute"
            async with open_stream(self.peers.bus, subject, head, body, headers=trace_headers()) as stream:
                await self._book(run.order.body)
                async for frame in stream:
                    self._check_node(run.order.body.node_sign)
                    if frame[:1] == answer.STATEMENT:
                        run.note_statement(frame[1:])
                    else:
                        run.opened = run.opened or frame[:1] == answer.RUN
                        yield frame
        except ComityError as error:
            run.failure = error.code
            yield answer.tag(answer.PROBLEM, answer.Problem(code=error.code, text=error.text[:512]).write())

    def _check_node(self, thumbprint: str) -> None:
        """Nothing more is passed on from a compromised node, whether its reader was told or not.

        Raises `Refused` (`trust.node_revoked`).
        """
        if self.appraisals.revocation(self.peers.domain, thumbprint) == "compromise":
            raise Refused("trust.node_revoked", "the node was revoked while it answered")

    async def _book(self, execute: Execute) -> None:
        """Turn the hold into a run. Raises `Refused` (`hold.expired`) when the agent has given it away."""
        updated = await self.interior.commit(execute.hold_id, execute.nid)
        if not updated.known:
            raise Refused("hold.expired", "the agent no longer holds this slot")

    def _accept(self, order: Received[Execute]) -> Negotiation:
        """The hold that this order may use. Raises `Refused`; a repeated order never runs again."""
        execute = order.body
        self.replays.admit(execute, datetime.now(UTC))
        key = (execute.iss, execute.request_id, execute.attempt)
        if self._orders.setdefault(key, execute.nonce) != execute.nonce:
            raise Refused("execute.duplicate", "this attempt was ordered before")
        while len(self._orders) > MAX_ORDERS:
            del self._orders[next(iter(self._orders))]
        held = self.holds.held(execute.nid, execute.hold_id, execute.iss, time.monotonic())
        _check_order(execute, held)
        return held

    async def _commit(self, run: Run, negotiation: Negotiation) -> None:
        self.holds.move(negotiation, "COMMITTED", time.monotonic())
        try:
            await self.executions.commit(run)
        except ComityError:
            self.holds.move(negotiation, "FAILED", time.monotonic())
            raise
        self.holds.move(negotiation, "ACTIVE", time.monotonic())
        self.metrics.hold("executed")

    async def _conclude(self, run: Run, negotiation: Negotiation) -> bytes:
        issued = await self.executions.conclude(run)
        self.holds.move(negotiation, _STATES.get(run.outcome, "FAILED"), time.monotonic())
        if not run.opened:
            self.holds.wasted(negotiation, time.monotonic())
        negotiation.execution = issued.digest.hex()
        return answer.ReceiptDelivery(
            receipt_id=issued.receipt_id,
            execution=issued.envelope.decode(),
            promise=issued.promise.decode(),
        ).write()

    def _hold_request(self, call: CallForOffers) -> HoldRequest:
        return HoldRequest(
            nid=call.nid,
            capability=call.capability,
            model_digest=call.model_digest,
            hold_ms=min(max(call.hold_ms, MIN_HOLD_MS), MAX_HOLD_MS),
            consumer=call.iss,
            data_class=call.tags.data_class or DATA_CLASSES[-1],
            exclude_nodes=call.exclude_nodes,
        )

    def _offer(
        self,
        call: Received[CallForOffers],
        hold: Hold,
        appraisal: NodeAppraisal,
        decision: Decision,
        price: int,
    ) -> bytes:
        offer: Offer = self._compose_reply(
            call,
            Offer,
            seq=1,
            call=call.digest.hex(),
            capability=hold.capability,
            model_digest=hold.model_digest,
            model_signing=hold.model_signing,
            rates=hold.rates,
            predicted_price=price,
            retention_s=self.policy.retention_s(),
            node_sign=hold.node_sign,
            node_seal=sha256(hold.seal_key).hex(),
            evidence=hold.evidence,
            profile_digest=self.policy.profile.digest,
            policy_digest=self.policy.digest,
            hold_id=hold.hold_id,
            hold_ms=hold.hold_ms,
            queue_ms=hold.queue_ms,
            headroom=hold.headroom,
        )
        signed, now = self.peers.sign(offer), time.monotonic()
        self.holds.add(
            Negotiation(
                consumer=call.body.iss,
                call=call,
                offer=offer,
                offer_digest=envelope.read(signed).digest,
                hold=hold,
                appraisal=appraisal,
                decision=decision,
                expires=now + hold.hold_ms / 1000,
            ),
            now,
        )
        return signed

    def _refuse(
        self, call: Received[CallForOffers], code: str, rules: Sequence[str], headroom: int, retry_ms: int
    ) -> bytes:
        return self._reply(
            call,
            Refuse,
            seq=1,
            call=call.digest.hex(),
            code=code,
            rules=list(rules)[:64],
            headroom=headroom,
            retry_after_ms=retry_ms,
        )

    def _reply(self, to: Received[Any], model: type[Message], *, seq: int, **fields: Any) -> bytes:
        return self.peers.sign(self._compose_reply(to, model, seq=seq, **fields))

    def _compose_reply(self, to: Received[Any], model: type[Any], *, seq: int, **fields: Any) -> Any:
        return self.peers.compose(
            model, to.body.iss, nid=to.body.nid, seq=seq, prev=to.digest.hex(), **fields
        )

    def _receive(self, payload: bytes, model: type[Any], sender: str) -> Received[Any]:
        received = self.peers.receive(payload, model, sender)
        if model is not Execute:
            self.replays.admit(received.body, datetime.now(UTC))
        return received


def _check_order(execute: Execute, held: Negotiation) -> None:
    """Raise `Refused` unless the order is for what was offered, and asks for no more than was called for.

    Price, policy and the slot were decided over the call: an order beyond it would be a run that nobody
    agreed to.
    """
    call, offer = held.call.body, held.offer
    offered = (
        held.offer_digest.hex(),
        held.hold.node_sign,
        offer.node_seal,
        offer.capability,
        offer.model_digest,
        offer.model_signing,
    )
    node = (execute.offer, execute.node_sign, execute.node_seal)
    if offered != (*node, execute.capability, execute.model_digest, execute.model_signing):
        raise Refused("DIGEST_MISMATCH", "the order is not for what was offered")
    if execute.tags_digest != call.tags_digest:
        raise Refused("execute.tags", "the order has other policy tags than the call")
    if execute.input_commitment != call.request_commitment:
        raise Refused("execute.commitment", "the order is for another body than the call")
    asked = (execute.limits.output_tokens, execute.limits.body_bytes, execute.retention_s)
    most = (call.max_output_tokens, call.input_length, offer.retention_s)
    if any(value > bound for value, bound in zip(asked, most, strict=True)):
        raise Refused("execute.beyond_call", "the order allows itself more than its call and offer")
