"""Step 3: order the feasible plans by J; deterministic, replayable, and without a herd.

Among plans within a few percent of the best, the order is drawn in proportion to advertised
headroom, seeded by the request id: many brokers with the same stale summaries spread out, and the
same request replays to the same order.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from broker.select.candidates import Candidate
from broker.select.cost import Terms, Weights, terms
from schemas.descriptors.request import RequestDescriptor

NEAR_EQUAL: Final = Decimal("0.02")  # share of the best score within which plans count as equal


@dataclass(frozen=True, slots=True)
class Plan:
    """A feasible plan with its cost."""

    candidate: Candidate
    terms: Terms
    score: Decimal

    @property
    def domain(self) -> str:
        return self.candidate.domain


def rank(request: RequestDescriptor, candidates: Sequence[Candidate], weights: Weights) -> list[Plan]:
    """All candidates, best first. Ties go by domain name, then by cell."""
    plans = [_plan(request, candidate, weights) for candidate in candidates]
    plans.sort(key=lambda plan: (plan.score, plan.domain, plan.candidate.key))
    if not plans:
        return []
    bound = plans[0].score + abs(plans[0].score) * NEAR_EQUAL
    near = [plan for plan in plans if plan.score <= bound]
    return [*_spread(near, request.request_id), *plans[len(near) :]]


def _plan(request: RequestDescriptor, candidate: Candidate, weights: Weights) -> Plan:
    parts = terms(request, candidate)
    return Plan(candidate, parts, parts.score(weights))


def _spread(near: Sequence[Plan], seed: str) -> list[Plan]:
    """Draw without replacement, weighted by headroom."""
    draw, left, order = random.Random(seed), list(near), []  # noqa: S311  # spreads load, protects nothing
    while left:
        chosen = draw.choices(left, [plan.candidate.cell.headroom + 1 for plan in left])[0]
        left.remove(chosen)
        order.append(chosen)
    return order
