"""Step 2: the feasible set Π(Q), and for everything outside it the reasons.

A hard filter: capability, quality, policy, response time, budget, freshness. The TEE facts used
here are the provider's claims, so that this prefilters only; step 6 decides over our own appraisal.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from schemas.descriptors.profile import DomainProfile
from schemas.descriptors.request import RequestDescriptor
from schemas.descriptors.summary import CapabilitySummary, Cell
from schemas.policy.facts import AttestedFacts, DomainFacts, RequestContext, Subject, Unusable
from schemas.policy.layers import Decision, Layers

DEFAULT_RTT_MS: Final = 50  # milliseconds assumed for a peer never measured: a wide-area guess
DEFAULT_RATE_TPS: Final = 10  # tokens a second assumed where a domain discloses none


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

    @property
    def key(self) -> str:
        """Stable name of the plan within one decision."""
        return f"{self.domain} {self.cell.label} {self.cell.jur}"


@dataclass(frozen=True, slots=True)
class Rejected:
    """A plan outside Π(Q)."""

    domain: str
    key: str
    reasons: tuple[str, ...]
    subject: Subject | None


@dataclass(frozen=True, slots=True)
class Feasibility:
    """Both sides of the cut. Every listed cell stands on exactly one."""

    candidates: tuple[Candidate, ...]
    rejected: tuple[Rejected, ...]

    def reasons_of(self, domain: str) -> tuple[str, ...]:
        """Every reason for which this domain's plans were rejected."""
        return tuple(
            sorted({code for plan in self.rejected if plan.domain == domain for code in plan.reasons})
        )


def feasible(
    request: RequestDescriptor,
    context: RequestContext,
    listings: Iterable[Listing],
    layers: Mapping[bool, Layers],
    *,
    local_domain: str,
    rtts_ms: Mapping[str, int],
    at: datetime,
) -> Feasibility:
    """Cut the directory. `layers[True]` are the rules for our own domain, `layers[False]` for others."""
    kept: list[Candidate] = []
    gone: list[Rejected] = []
    for listing in listings:
        rules = layers[listing.domain == local_domain]
        facts = DomainFacts.of(listing.profile, listing.domain, at)
        for cell in listing.summary.cells:
            found = _judge(request, context, listing, cell, facts, rules, local_domain, rtts_ms, at)
            if isinstance(found, Candidate):
                kept.append(found)
            else:
                gone.append(found)
    return Feasibility(tuple(kept), tuple(gone))


def _judge(
    request: RequestDescriptor,
    context: RequestContext,
    listing: Listing,
    cell: Cell,
    facts: DomainFacts | Unusable,
    rules: Layers,
    local_domain: str,
    rtts_ms: Mapping[str, int],
    at: datetime,
) -> Candidate | Rejected:
    key = f"{listing.domain} {cell.label} {cell.jur}"
    price = predicted_price(request, cell)
    if isinstance(facts, Unusable):
        return Rejected(listing.domain, key, (facts.reason,), None)
    subject = Subject(facts, claimed_facts(cell), price)
    rtt = 0 if listing.domain == local_domain else rtts_ms.get(listing.domain, DEFAULT_RTT_MS)
    candidate = Candidate(
        listing.domain, cell, subject, rtt, max(0.0, at.timestamp() - listing.summary.iat), price
    )
    reasons = [*_capability(request, cell), *_quality(request, cell), *_slo(request, candidate)]
    if listing.summary.draining:
        reasons.append("DRAINING")
    decision: Decision = rules.decide(context, subject)
    if decision.verdict != "allow":
        reasons += decision.reasons
    if reasons:
        return Rejected(listing.domain, key, tuple(sorted(set(reasons))), subject)
    return candidate


def claimed_facts(cell: Cell) -> AttestedFacts:
    """The provider's word about its TEEs: enough to prefilter, never to decide."""
    return AttestedFacts(
        assurance=cell.ar_min,
        simulated=cell.tee == "simulated",
        debug_allowed=False,
        confidential_gpu=cell.confidential_gpu,
        engine_in_tee=True,
        binding_mode="none",
        enrolled=True,
        age_s=0,
    )


def predicted_price(request: RequestDescriptor, cell: Cell) -> int:
    """Micro-units for the whole request at the advertised rates; 0 where none are disclosed."""
    if cell.rates is None:
        return 0
    return cell.rates.total(input_tokens=request.input_tokens, output_tokens=request.max_output_tokens)


def ttft_ms(request: RequestDescriptor, candidate: Candidate) -> int:
    """Predicted time to the first token: road, then the whole prompt."""
    rate = candidate.cell.prefill_tps or DEFAULT_RATE_TPS
    return candidate.rtt_ms + 1000 * request.input_tokens // rate


def total_ms(request: RequestDescriptor, candidate: Candidate) -> int:
    """Predicted time to the last token of the longest answer."""
    rate = candidate.cell.decode_tps or DEFAULT_RATE_TPS
    return ttft_ms(request, candidate) + 1000 * request.max_output_tokens // rate


def _capability(request: RequestDescriptor, cell: Cell) -> list[str]:
    if cell.cls != request.capability_class:
        return ["CAP-001-class"]
    if request.variant is not None and cell.variant not in (None, request.variant):
        return ["CAP-002-variant"]
    if request.version is not None and cell.version not in (None, request.version):
        return ["CAP-003-version"]
    return []


def _quality(request: RequestDescriptor, cell: Cell) -> list[str]:
    wanted, reasons = request.quality, []
    if wanted.tier is not None and cell.tier < wanted.tier:
        reasons.append("QUA-001-tier")
    if wanted.min_params is not None and cell.params_m * 1_000_000 < wanted.min_params:
        reasons.append("QUA-002-parameters")
    needed = max(request.input_tokens + request.max_output_tokens, wanted.context or 0)
    if cell.context_limit is not None and needed > cell.context_limit:
        reasons.append("QUA-003-context")
    return reasons


def _slo(request: RequestDescriptor, candidate: Candidate) -> list[str]:
    slo, reasons = request.slo, []
    if slo.ttft_ms is not None and ttft_ms(request, candidate) > slo.ttft_ms:
        reasons.append("SLO-001-ttft")
    if slo.total_ms is not None and total_ms(request, candidate) > slo.total_ms:
        reasons.append("SLO-002-total")
    rate = candidate.cell.decode_tps or DEFAULT_RATE_TPS
    if slo.tpot_ms is not None and 1000 // rate > slo.tpot_ms:
        reasons.append("SLO-003-tpot")
    return reasons
