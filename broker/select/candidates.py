"""Step 2: the feasible set Π(Q), and for everything outside it the reasons.

A hard filter: capability, quality, policy, response time, budget, freshness. The TEE facts used
here are the provider's claims, so that this prefilters only; step 6 decides over our own appraisal.
Every listed cell stands on exactly one side, and each exclusion names all of its reasons.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import numpy as np

from broker.select.cost import Inputs
from broker.select.predict import (
    DEFAULT_RTT_MS,
    EXPECTED_OUTPUT_TOKENS,
    Prediction,
    Predictor,
    Speed,
    predict,
)
from broker.select.requirements import Asked, request_price, slo_measures, unmet
from schemas.canonical import Json
from schemas.descriptors.profile import DomainProfile
from schemas.descriptors.request import RequestDescriptor
from schemas.descriptors.summary import CapabilitySummary, Cell
from schemas.policy.facts import (
    STRONGEST_BINDING,
    UNKNOWN_AGE,
    AttestedFacts,
    DomainFacts,
    RequestContext,
    Subject,
    Unusable,
)
from schemas.policy.infeasible import Infeasibility, Measured, policy_measures, report
from schemas.policy.layers import Layers
from schemas.policy.mask import Columns, mask_of

CEDAR_UP_TO: Final = 64  # plans judged by Cedar itself, mostly from memory; beyond it the mask prefilters
MAX_JUDGED: Final = 512  # of those left by a mask that does not know all rules: 0.9 ms each, the first time
HEADROOM_TAU_S: Final = 30.0  # seconds after which an old summary's headroom counts for a third


@dataclass(frozen=True, slots=True)
class Listing:
    """One domain as the directory shows it."""

    domain: str
    summary: CapabilitySummary
    digest: bytes
    profile: DomainProfile
    received_at: float


@dataclass(frozen=True, slots=True)
class Candidate:
    """One plan: this capability cell of this domain."""

    domain: str
    cell: Cell
    subject: Subject
    rtt_ms: int
    age_s: float
    """Since its summary was issued."""
    price: int
    """Predicted total for this request, micro-units."""
    speed: Speed
    predicted: Prediction
    stale: bool = False
    """Its summary has outlived its time: it ranks after every fresh one."""
    reusable_tokens: int = 0
    """Input tokens whose state is known to lie there."""
    move_ms: Decimal = Decimal(0)

    @property
    def key(self) -> str:
        """Stable name of the plan within one decision."""
        return plan_key(self.domain, self.cell)

    def called(self, request: RequestDescriptor) -> dict[str, Any]:
        """What a call for this plan asks for: this variant and model, as far as its cell discloses them.

        A class alone would leave the choice to its domain, and the request's floors with it.
        """
        asked = request.capability.partition("@")[0]
        return {
            "capability": self.cell.label if self.cell.variant else asked,
            "model_digest": self.cell.digest,
        }

    def inputs(
        self, request: RequestDescriptor, preferred: Collection[str], *, undisclosed_price: int
    ) -> Inputs:
        """What J reads about this plan. A price that is not disclosed counts as the given one."""
        return Inputs(
            key=self.key,
            rtt_ms=self.rtt_ms,
            body_bytes=request.body_bytes,
            queue_ms=str(self.speed.queue_ms),
            fresh_tokens=max(0, request.input_tokens - self.reusable_tokens),
            output_tokens=min(request.max_output_tokens, EXPECTED_OUTPUT_TOKENS),
            prefill_tps=str(self.speed.prefill_tps),
            decode_tps=str(self.speed.decode_tps),
            cold=self.cell.cold,
            move_ms=str(self.move_ms),
            headroom=str(aged_headroom(self.cell.headroom, self.age_s)),
            assurance=self.subject.attested.assurance,
            preferred=not preferred or self.domain in preferred,
            price=self.price if self.cell.rates is not None else undisclosed_price,
        )


@dataclass(frozen=True, slots=True)
class Rejected:
    """A plan outside Π(Q)."""

    domain: str
    key: str
    reasons: tuple[str, ...]
    subject: Subject | None
    predicted: Prediction | None = None

    def as_json(self) -> dict[str, Json]:
        return {"domain": self.domain, "plan": self.key, "reasons": list(self.reasons)}


@dataclass(frozen=True, slots=True)
class Feasibility:
    """Both sides of the cut. Every listed cell stands on exactly one."""

    candidates: tuple[Candidate, ...]
    rejected: tuple[Rejected, ...]
    _question: tuple[RequestDescriptor, RequestContext] | None = field(default=None, repr=False)

    def reasons_of(self, domain: str) -> tuple[str, ...]:
        """Every reason for which this domain's plans were rejected."""
        return tuple(
            sorted({code for plan in self.rejected if plan.domain == domain for code in plan.reasons})
        )

    def report(self) -> Infeasibility:
        """Why nobody is left, and what would have to give (routing.md 1)."""
        rules = sorted({code for plan in self.rejected for code in plan.reasons})
        denials = {rule: np.array([rule in plan.reasons for plan in self.rejected], bool) for rule in rules}
        kept = len(self.candidates)
        denials = {rule: np.append(denied, np.zeros(kept, bool)) for rule, denied in denials.items()}
        plans: list[Rejected | Candidate] = [*self.rejected, *self.candidates]
        domains = [plan.domain for plan in plans]
        return report(denials, domains, self._measured())

    def _measured(self) -> list[Measured]:
        """Numeric rules with the value of every plan; a plan without facts has 0 and counts nowhere."""
        if self._question is None:
            return []
        request, context = self._question
        plans: list[Rejected | Candidate] = [*self.rejected, *self.candidates]
        known = [at for at, plan in enumerate(plans) if plan.subject is not None]
        columns = Columns.of([plan.subject for plan in plans if plan.subject is not None])
        measured = policy_measures(context, columns)
        predictions = [plan.predicted for plan in plans if plan.predicted is not None]
        if len(predictions) == len(known):
            measured += slo_measures(request, predictions)
        return [_scattered(entry, known, len(plans)) for entry in measured]


def feasible(
    request: RequestDescriptor,
    context: RequestContext,
    listings: Iterable[Listing],
    layers: Mapping[bool, Layers],
    *,
    local_domain: str,
    rtts_ms: Mapping[str, int],
    at: datetime,
    predictor: Predictor | None = None,
    excluded: Collection[str] = (),
    model_digest: str | None = None,
    reusable_tokens: Mapping[str, int] | None = None,
) -> Feasibility:
    """Cut the directory. `layers[True]` are the rules for our own domain, `layers[False]` for others.

    `excluded` names domains that this request must not use again; `model_digest` is set where only
    this very model will do; `reusable_tokens` says per domain what a session has cached there.
    """
    asked = Asked(request, at, model_digest, frozenset(excluded))
    gone: list[Rejected] = []
    plans: list[Candidate] = []
    reasons: list[list[str]] = []
    table = predictor or Predictor()
    for listing in listings:
        facts = DomainFacts.of(listing.profile, listing.domain, at)
        rtt = 0 if listing.domain == local_domain else rtts_ms.get(listing.domain, DEFAULT_RTT_MS)
        reusable = (reusable_tokens or {}).get(listing.domain, 0)
        for cell in listing.summary.cells:
            if isinstance(facts, Unusable):
                gone.append(Rejected(listing.domain, plan_key(listing.domain, cell), (facts.reason,), None))
                continue
            plan = _candidate(asked, listing, cell, facts, table, rtt_ms=rtt, reusable_tokens=reusable)
            plans.append(plan)
            reasons.append(unmet(asked, listing.summary, cell, plan.predicted, price=plan.price))
    for found, denied in zip(reasons, _denied(plans, context, layers, local_domain), strict=True):
        found.extend(denied)
    gone += [
        Rejected(plan.domain, plan.key, tuple(sorted(set(found))), plan.subject, plan.predicted)
        for plan, found in zip(plans, reasons, strict=True)
        if found
    ]
    kept = tuple(plan for plan, found in zip(plans, reasons, strict=True) if not found)
    return Feasibility(kept, tuple(gone), (request, context))


def _candidate(
    asked: Asked,
    listing: Listing,
    cell: Cell,
    facts: DomainFacts,
    table: Predictor,
    *,
    rtt_ms: int,
    reusable_tokens: int,
) -> Candidate:
    request = asked.request
    age = max(0.0, asked.at.timestamp() - listing.summary.iat)
    price = predicted_price(request, cell, reusable_tokens)
    speed = table.speed(listing.domain, cell, asked.at.timestamp())
    return Candidate(
        domain=listing.domain,
        cell=cell,
        subject=Subject(facts, claimed_facts(cell, listing.profile), price),
        rtt_ms=rtt_ms,
        age_s=age,
        price=price,
        speed=speed,
        predicted=predict(request, cell, speed, rtt_ms=rtt_ms, reusable_tokens=reusable_tokens),
        stale=age > listing.summary.ttl_s,
        reusable_tokens=reusable_tokens,
    )


def _denied(
    plans: Sequence[Candidate],
    context: RequestContext,
    layers: Mapping[bool, Layers],
    local_domain: str,
) -> list[tuple[str, ...]]:
    """For each plan, the policy rules that deny it; empty when none does."""
    denied: list[tuple[str, ...]] = [()] * len(plans)
    for local, rules in layers.items():
        group = [at for at, plan in enumerate(plans) if (plan.domain == local_domain) is local]
        if len(group) > CEDAR_UP_TO:
            masked = mask_of(rules).apply(context, Columns.of([plans[at].subject for at in group]))
            for position, at in enumerate(group):
                denied[at] = masked.reasons(position)
            group = [] if mask_of(rules).exact else [at for at in group if not denied[at]][:MAX_JUDGED]
        for at in group:
            decision = rules.decide(context, plans[at].subject)
            denied[at] = () if decision.verdict == "allow" else decision.reasons
    return denied


def plan_key(domain: str, cell: Cell) -> str:
    """Stable name of a plan within one decision."""
    return f"{domain} {cell.label} {cell.jur} {cell.tee}"


def claimed_facts(cell: Cell, profile: DomainProfile) -> AttestedFacts:
    """The provider's word about its TEEs: enough to prefilter, never to decide.

    A cell below `k_min` shows none of it: then the best that the domain's profile claims stands in.
    """
    claims = profile.tee if cell.variant is None else []
    hidden = max(claims, key=lambda claim: claim.assurance, default=None)
    assurance = hidden.assurance if hidden else cell.ar_min
    gpu = hidden.confidential_gpu if hidden else cell.confidential_gpu
    attested = assurance > 0
    return AttestedFacts(
        assurance=assurance,
        simulated=(hidden.platform if hidden else cell.tee) == "simulated",
        debug_allowed=False,
        confidential_gpu=gpu,
        engine_in_tee=attested,
        binding_mode=STRONGEST_BINDING if gpu else "cpu-only" if attested else "none",
        enrolled=True,
        age_s=0 if attested else UNKNOWN_AGE,
    )


def predicted_price(request: RequestDescriptor, cell: Cell, reusable_tokens: int = 0) -> int:
    """Micro-units for the whole request at the advertised rates; 0 where none are disclosed."""
    if cell.rates is None:
        return 0
    return request_price(request, cell.rates, reusable_tokens)


def aged_headroom(headroom: int, age_s: float) -> Decimal:
    """Headroom discounted by the age of the summary, 0 to 10 with three decimals."""
    return Decimal(str(round(headroom * math.exp(-age_s / HEADROOM_TAU_S), 3)))


def _scattered(entry: Measured, known: Sequence[int], size: int) -> Measured:
    values = np.zeros(size, np.int64)
    values[list(known)] = entry.values
    return replace(entry, values=values)
