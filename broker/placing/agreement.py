"""Steps 2 to 6: from everything in the directory to one node that is proved and allowed.

Each candidate that falls away keeps its reason; the Placement receipt commits to all of them. What
was held and not taken is released, explicitly, before the story goes on.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final

from attestation.appraise import NodeAppraisal
from broker.directory import Directory, Snapshot
from broker.journey import Journey, Segment
from broker.observe.metrics import Metrics
from broker.observe.spans import span, step
from broker.peers import Peers
from broker.placing.appraisals import GOOD, Appraisals
from broker.placing.attempt import Sealed, check_node, new_commitment, seal_attempt
from broker.placing.decide import ConsumerPolicy
from broker.placing.negotiate import Declined, Offered, call_for_offers, release
from broker.placing.placements import Choice, Considered, Placements, Refusal, Shown
from broker.placing.refusals import Fell, infeasible, nobody
from broker.problems import Infeasible, RequestProblem
from broker.select import refused
from broker.select.candidates import Feasibility, feasible
from broker.select.cost import Weights
from broker.select.predict import Predictor, predict
from broker.select.rank import Plan, rank, record
from broker.select.requirements import request_price, unmet_by_offer
from receipts.log import Issued
from schemas.errors import ComityError, Refused, Undecided
from schemas.messages.execute import MAX_BODY_BYTES, Limits
from schemas.policy.layers import Decision
from schemas.seal import PADDING_BUCKETS

MAX_ROUNDS: Final = 3  # of calls to finalists before we say that nobody could serve it
TURN_S: Final = 0.5  # seconds that are left to each offer behind the one whose proof is waited for


@dataclass(frozen=True, slots=True)
class Placed:
    """One attempt, ready to run: proved, allowed, durable, sealed."""

    plan: Plan
    offered: Offered = field(repr=False)
    appraisal: NodeAppraisal = field(repr=False)
    receipt: Issued = field(repr=False)
    sealed: Sealed = field(repr=False)

    @property
    def domain(self) -> str:
        return self.offered.domain

    def segment(self) -> Segment:
        offer = self.offered.body
        return Segment(
            domain=self.domain,
            node_sign=offer.node_sign,
            placement=self.receipt,
            model=offer.capability,
            model_digest=offer.model_digest,
            engine_class=f"cpu/{self.appraisal.evidence.configuration.engine_kind}",
            header_digest=self.sealed.header_digest,
            nid=offer.nid,
        )


@dataclass(frozen=True, slots=True)
class Attempt:
    """One round of calls: all finalists see the same commitment, and only the winner gets the secret."""

    journey: Journey
    considered: Considered
    secret: bytes = field(repr=False)
    commitment: str


@dataclass(frozen=True, slots=True)
class Terms:
    """What this broker asks for when it calls (broker.toml [negotiation])."""

    finalists: int
    hold_ms: int
    call_ms: int
    """How long to wait for an offer, milliseconds."""
    run_ms: int
    """How long one run may take, milliseconds."""


@dataclass(slots=True)
class Placing:
    """Finds a node for a journey. One per broker, on its event loop."""

    peers: Peers
    directory: Directory
    appraisals: Appraisals
    policy: ConsumerPolicy
    placements: Placements
    weights: dict[str, Weights]
    terms: Terms
    predictor: Predictor
    """Round trips that this broker measured, waits that offers stated, and speeds that runs showed."""
    metrics: Metrics

    async def place(self, journey: Journey) -> Placed:
        """One node for the next attempt. Raises `Infeasible`, `Shed` or `Upstream`.

        Everything that was held on the way and not taken has been released.
        """
        began = time.perf_counter_ns()
        try:
            return await self._place(journey)
        finally:
            journey.agreement_ns += time.perf_counter_ns() - began

    async def _place(self, journey: Journey) -> Placed:
        began = time.perf_counter()
        snapshot, found = self.cut_or_lower(journey)
        for rejected in found.rejected:
            self.metrics.denied(rejected.reasons)
        if not found.candidates:
            raise await self._refuse(journey, snapshot, found)
        considered = self.order(journey, snapshot, found)
        self.metrics.decided(time.perf_counter() - began, len(found.candidates))
        fell: list[Fell] = []
        for finalists in _rounds(considered.plans, self.terms.finalists):
            secret, commitment = new_commitment(journey.body())
            # 4. Agree: one round trip; every finalist that offers holds a slot for us.
            with span("agree", finalists=len(finalists)):
                answers = await self._call(journey, finalists, commitment)
            # 5. Prove and 6. decide, in rank order; the first that passes both is taken.
            attempt = Attempt(journey, considered, secret, commitment)
            chosen = await self._choose(attempt, finalists, answers, fell)
            if chosen is not None:
                return chosen
        raise nobody(journey.descriptor, {plan.domain for plan in considered.plans}, fell)

    def cut_or_lower(self, journey: Journey) -> tuple[Snapshot, Feasibility]:
        """The cut; where nobody is left and the caller allows it, that without floors of quality (routing 1).

        What was begun goes on with the very same model: nothing is lowered under an answer that was shown.
        """
        snapshot, found = self.cut(journey)
        if found.candidates or journey.text or not journey.lower():
            return snapshot, found
        newer, freed = self.cut(journey)
        if freed.candidates:
            return newer, freed
        journey.restore()
        return snapshot, found

    def cut(self, journey: Journey) -> tuple[Snapshot, Feasibility]:
        """Step 2: the directory as it stands, cut into what may serve this request and what may not."""
        accepted, now = journey.accepted, datetime.now(UTC)
        with step("feasible"):
            snapshot = self.directory.snapshot(now)
            layer = accepted.tenant.policy_layer
            found = feasible(
                journey.descriptor,
                self.policy.context(accepted),
                snapshot.entries,
                {local: self.policy.layers(layer, local=local) for local in (True, False)},
                local_domain=self.peers.domain,
                rtts_ms=self.predictor.rtts_ms(),
                at=now,
                predictor=self.predictor,
                model_digest=journey.model_digest,
            )
        return snapshot, found

    def order(self, journey: Journey, snapshot: Snapshot, found: Feasibility) -> Considered:
        """Step 3: the candidates by J, with everything that a replay of the order needs."""
        accepted = journey.accepted
        weights = self.weights[accepted.tenant.weights]
        with step("rank"):
            plans = rank(journey.descriptor, found.candidates, weights)
        ranking = record(journey.descriptor, plans, weights)
        return Considered(plans, found.rejected, snapshot.digest, ranking)

    async def _refuse(self, journey: Journey, snapshot: Snapshot, found: Feasibility) -> Infeasible:
        """The signed refusal, and the problem that names it."""
        accepted = journey.accepted
        cut = refused.record(
            journey.descriptor,
            self.policy.context(accepted),
            snapshot.entries,
            self.predictor,
            name=journey.wire_id,
            at=snapshot.taken,
            model_digest=journey.model_digest,
        )
        layers = self.policy.layers(accepted.tenant.policy_layer, local=True)
        refusal = Refusal(found, layers, snapshot.digest, self.directory.adverts(snapshot), cut)
        issued = await self.placements.refuse(journey, refusal)
        return infeasible(journey.descriptor, found, issued.receipt_id)

    async def _call(
        self, journey: Journey, finalists: Sequence[Plan], commitment: str
    ) -> list[Offered | Declined]:
        descriptor = journey.descriptor
        length = next((size for size in PADDING_BUCKETS if len(journey.body()) <= size), MAX_BODY_BYTES)
        terms: dict[str, Any] = {
            "tags": descriptor.policy,
            "tags_digest": descriptor.policy_digest.hex(),
            "tenant_policy_digest": self.policy.tenant_digest(journey.accepted.tenant.policy_layer),
            "request_commitment": commitment,
            "input_length": length,
            "input_tokens": descriptor.input_tokens,
            "max_output_tokens": descriptor.max_output_tokens,
            "max_price": descriptor.budget.max_price,
            "hold_ms": self.terms.hold_ms,
            "exclude_nodes": list(journey.excluded_nodes),
        }
        return await call_for_offers(
            self.peers,
            [(plan.domain, terms | plan.candidate.called(descriptor)) for plan in finalists],
            within=self.terms.call_ms / 1000,
        )

    async def _choose(
        self,
        attempt: Attempt,
        finalists: Sequence[Plan],
        answers: Sequence[Offered | Declined],
        fell: list[Fell],
    ) -> Placed | None:
        taken: Placed | None = None
        offers = [answer for answer in answers if isinstance(answer, Offered)]
        behind = offers.copy()
        try:
            for plan, answer in zip(finalists, answers, strict=True):
                self.metrics.offer(answer.code if isinstance(answer, Declined) else "offer")
                if isinstance(answer, Declined):
                    self.metrics.denied(answer.rules, by_peer=True)
                    fell.append(Fell.of(plan, answer))
                    continue
                behind.pop(0)
                try:
                    taken = await self._take(attempt, plan, answer, patience_s(answer, behind))
                    break
                except RequestProblem:  # the request's own fault, whoever serves it
                    raise
                except ComityError as error:
                    fell.append(Fell(plan, (error.code,)))
        finally:
            losers = [offer for offer in offers if taken is None or offer is not taken.offered]
            if taken is None:  # their places are free before the next round asks for others
                await self._release(losers)
            else:  # nobody waits for it, and nothing comes between the last look and the first byte
                self.peers.bus.spawn(lambda: self._release(losers))
        return taken

    async def _release(self, losers: Sequence[Offered]) -> None:
        await asyncio.gather(*(release(self.peers, offer, "not-chosen") for offer in losers))

    async def _take(self, attempt: Attempt, plan: Plan, offered: Offered, patience_s: float) -> Placed:
        """Prove, decide, record, seal. Raises `ComityError` with why this offer cannot be taken.

        patience_s: seconds that its proof may take.
        """
        journey, evidence = attempt.journey, offered.body.evidence
        self._check_terms(journey, plan, offered)
        # 5. Prove: our own appraisal of the evidence that the offer names.
        with step("prove", domain=offered.domain):
            epoch = self.appraisals.trust_epoch
            appraisal = await _within(patience_s, self.appraisals.appraise(offered.domain, evidence))
            if appraisal.status not in GOOD:
                raise Refused(appraisal.reason or "evidence.not_affirmed", f"the node is {appraisal.status}")
            check_node(offered, appraisal)
        # 6. Decide: every layer of policy, over what we proved.
        with step("decide", domain=offered.domain):
            decision = self._decide(journey, offered, appraisal)
        self.metrics.attestation_age(max(0.0, time.time() - (appraisal.challenged_at or 0.0)))
        choice = Choice(plan, attempt.considered, offered, appraisal, decision, attempt.commitment)
        shown = Shown(self.appraisals.document(evidence), self.appraisals.supply(evidence))
        if time.monotonic() >= offered.until:
            raise Undecided("offer.lapsed", "its place is held no more")
        try:
            receipt = await self.placements.issue(journey, choice, shown)
            sealed = self._seal(attempt, offered, appraisal, receipt)
            # The last look before the first byte leaves (session.md 5).
            left = offered.until - time.monotonic()
            appraisal = await _within(left, self.appraisals.still(appraisal, epoch))
        except BaseException:  # nothing was sent: nothing is owed, and the next offer may be taken
            await asyncio.shield(self.placements.withdraw(choice))
            raise
        return Placed(plan, offered, appraisal, receipt, sealed)

    def _check_terms(self, journey: Journey, plan: Plan, offered: Offered) -> None:
        """Raise `Refused` where the offer breaks what its plan was chosen for: price, response time."""
        candidate, offer, request = plan.candidate, offered.body, journey.descriptor
        now = time.time()
        self.predictor.observe_queue(offered.domain, candidate.cell, offer.queue_ms, now)
        speed = self.predictor.speed(offered.domain, candidate.cell, now)
        predicted = predict(request, candidate.cell, speed, rtt_ms=candidate.rtt_ms)
        if codes := unmet_by_offer(request, candidate.cell, offer.rates, predicted):
            raise Refused(codes[0], f"{offered.domain} offers what does not meet {', '.join(codes)}")

    def _decide(self, journey: Journey, offered: Offered, appraisal: NodeAppraisal) -> Decision:
        offer, descriptor = offered.body, journey.descriptor
        price = request_price(descriptor, offer.rates)
        profile = self.directory.profile(offered.domain)
        if offer.profile_digest != profile.digest:
            raise Refused("negotiate.profile", "the offer is under another profile than the endorsed one")
        decision = self.policy.decide(journey.accepted, offer, profile, appraisal, price)
        if decision.verdict != "allow":
            raise Refused(decision.reasons[0], f"{offered.domain}: {', '.join(decision.reasons)}")
        return decision

    def _seal(self, attempt: Attempt, offered: Offered, appraisal: NodeAppraisal, receipt: Issued) -> Sealed:
        journey = attempt.journey
        descriptor, body = journey.descriptor, journey.body()
        return seal_attempt(
            self.peers,
            offered,
            appraisal,
            secret=attempt.secret,
            body=body,
            placement=receipt.digest.hex(),
            request_id=journey.wire_id,
            attempt=len(journey.segments),
            parent=journey.parent,
            tags_digest=descriptor.policy_digest.hex(),
            cache_scope="none",
            retention_s=min(offered.body.retention_s, descriptor.policy.max_retention_s or 0),
            limits=Limits(
                output_tokens=descriptor.max_output_tokens,
                body_bytes=max(1, len(body)),
                time_ms=self.terms.run_ms,
            ),
        )


def patience_s(offered: Offered, behind: Sequence[Offered]) -> float:
    """Seconds to wait for the proof of this offer, while those behind it hold their places for us as well.

    Each of them keeps `TURN_S`, or an equal share where the holds are short.
    """
    left = min(each.until for each in (offered, *behind)) - time.monotonic()
    return max(left / (1 + len(behind)), left - TURN_S * len(behind))


async def _within(seconds: float, proof: Coroutine[None, None, NodeAppraisal]) -> NodeAppraisal:
    """Raises `Undecided` (`evidence.late`). What was begun goes on, and is known to the next request."""
    try:
        async with asyncio.timeout(seconds):
            return await proof
    except TimeoutError:
        raise Undecided("evidence.late", "its evidence did not come while its offer stood") from None


def _rounds(plans: Sequence[Plan], k: int) -> Iterator[list[Plan]]:
    """At most `MAX_ROUNDS` of `k` calls each: every domain's best plan, then the second ones, and so on.

    No round asks a domain twice, so that nobody is crowded out by one that lists many plans.
    """
    turns: dict[int, list[Plan]] = {}
    counts: Counter[str] = Counter()
    asked: set[tuple[str, str, str | None]] = set()
    for plan in plans:
        named = (plan.domain, plan.candidate.cell.label, plan.candidate.cell.digest)
        if named not in asked:
            asked.add(named)
            turns.setdefault(counts[plan.domain], []).append(plan)
            counts[plan.domain] += 1
    each = (turn[at : at + k] for _, turn in sorted(turns.items()) for at in range(0, len(turn), k))
    return islice(each, MAX_ROUNDS)
