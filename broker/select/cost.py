"""J(π,Q): what a plan costs, in milliseconds and ms-equivalents, term by term (routing.md 3).

Exact decimals, so that the same inputs give the same score on every machine and in every replay.
Hard policy is not in here: P_policy grades plans that are allowed already.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Final

from broker.select.candidates import DEFAULT_RATE_TPS, Candidate
from schemas.descriptors.request import RequestDescriptor

NAME: Final = "J"
VERSION: Final = "1"
MS: Final = Decimal("0.001")  # terms are kept to the microsecond
BYTES_PER_MS: Final = 12_500  # 100 Mbit/s: a modest link between domains
FULL_QUEUE_MS: Final = Decimal(2_000)  # wait assumed where no slot is free
COLD_START_MS: Final = Decimal(5_000)  # loading a model that no node has resident
Q0_MS: Final = Decimal(20)  # ms-equivalent of a half-loaded domain
MAX_LOAD_MS: Final = Decimal(2_000)
ASSURANCE_STEP_MS: Final = Decimal(1)  # ms-equivalent of one rung of assurance


@dataclass(frozen=True, slots=True)
class Weights:
    """How much one unit of each term counts. All terms are ms or ms-equivalent but money."""

    network: Decimal = Decimal(1)
    queue: Decimal = Decimal(1)
    execution: Decimal = Decimal(1)
    state: Decimal = Decimal(1)
    load: Decimal = Decimal(1)
    policy: Decimal = Decimal(1)
    money: Decimal = Decimal("0.001")
    """ms-equivalent per micro-unit of the charter's currency."""


@dataclass(frozen=True, slots=True)
class Terms:
    """The parts of J before weighting: milliseconds, but money, which is micro-units."""

    network: Decimal
    queue: Decimal
    execution: Decimal
    state: Decimal
    load: Decimal
    policy: Decimal
    money: Decimal

    def score(self, weights: Weights) -> Decimal:
        """Weighted sum, kept to the microsecond."""
        total = sum(
            (getattr(self, part.name) * getattr(weights, part.name) for part in fields(self)), Decimal(0)
        )
        return total.quantize(MS)


def terms(request: RequestDescriptor, candidate: Candidate) -> Terms:
    """Every term of J for one plan."""
    return Terms(
        network=_network(request, candidate),
        queue=FULL_QUEUE_MS if candidate.cell.headroom == 0 else Decimal(0),
        execution=_execution(request, candidate),
        state=COLD_START_MS if candidate.cell.cold else Decimal(0),
        load=_load(candidate),
        policy=(4 - min(4, candidate.subject.attested.assurance)) * ASSURANCE_STEP_MS,
        money=Decimal(candidate.price),
    )


def _network(request: RequestDescriptor, candidate: Candidate) -> Decimal:
    """Round trip and the request's bytes over the road; nothing inside our own domain."""
    if candidate.rtt_ms == 0:
        return Decimal(0)
    return (candidate.rtt_ms + Decimal(request.body_bytes) / BYTES_PER_MS).quantize(MS)


def _execution(request: RequestDescriptor, candidate: Candidate) -> Decimal:
    """Cold compute: the prompt at prefill rate, the longest answer at decode rate."""
    prefill = Decimal(candidate.cell.prefill_tps or DEFAULT_RATE_TPS)
    decode = Decimal(candidate.cell.decode_tps or DEFAULT_RATE_TPS)
    spent = 1000 * (request.input_tokens / prefill + request.max_output_tokens / decode)
    return spent.quantize(MS)


def _load(candidate: Candidate) -> Decimal:
    """Q0·ρ/(1−ρ), capped: convex, so that nearly full domains are left for last."""
    busy = 10 - candidate.cell.headroom
    if busy >= 10:
        return MAX_LOAD_MS
    return min(MAX_LOAD_MS, (Q0_MS * busy / (10 - busy))).quantize(MS)
