"""Step 3: order the feasible plans by J; deterministic, replayable, and without a herd.

Ties go by the plan's name. Among domains whose best plans lie within a few percent of the best of all, in
score and in price, the order is drawn in proportion to advertised headroom, seeded by the request id: many
brokers with the same stale summaries spread out, and the same request replays to the same order. A plan
whose summary has outlived its time comes after all fresh ones, whatever its score.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Final

from pydantic import Field

from broker.select.candidates import Candidate
from broker.select.cost import NAME, VERSION, Exact, Inputs, Terms, Weights, terms
from schemas.canonical import Json, Wire
from schemas.descriptors.request import RequestDescriptor

NEAR_SCORE: Final = Decimal("0.02")  # share of the best score within which plans count as equal
NEAR_PRICE: Final = Decimal("0.05")  # share of the lowest price among them: a clearly cheaper plan wins
MAX_DRAWN: Final = 9  # three rounds of three finalists; behind them the order is by score
MAX_RECORDED: Final = 256  # plans in a stored decision; more are counted by Merkle root elsewhere


@dataclass(frozen=True, slots=True)
class Plan:
    """A feasible plan with its cost, term by term."""

    candidate: Candidate
    inputs: Inputs
    terms: Terms
    score: Decimal
    """J, ms-equivalent."""

    @property
    def domain(self) -> str:
        return self.candidate.domain

    def as_json(self) -> dict[str, Json]:
        """For a trace: the score with its terms."""
        return {"plan": self.inputs.key, "score": str(self.score), "terms": {**self.terms.as_json()}}


class StoredPlan(Wire):
    """One plan of a stored decision."""

    inputs: Inputs
    stale: bool


class RankRecord(Wire):
    """A decision's inputs: enough to compute its order again, anywhere, bit for bit."""

    name: str = NAME
    version: str = VERSION
    seed: str
    weights: dict[str, Exact]
    plans: Annotated[list[StoredPlan], Field(max_length=MAX_RECORDED)]


def rank(
    request: RequestDescriptor,
    candidates: Sequence[Candidate],
    weights: Weights,
    *,
    preferred: frozenset[str] = frozenset(),
) -> list[Plan]:
    """All candidates, best first. `preferred` names domains that the tenant favours; none means no favour."""
    plans = []
    dearest = max((candidate.price for candidate in candidates), default=0)
    for candidate in candidates:
        inputs = candidate.inputs(request, preferred, undisclosed_price=dearest)
        parts = terms(inputs)
        plans.append(Plan(candidate, inputs, parts, parts.score(weights)))
    by_key = {plan.inputs.key: plan for plan in plans}
    rows = [_Row(plan.inputs, plan.score, plan.candidate.stale) for plan in plans]
    return [by_key[key] for key in _order(rows, request.request_id)]


def record(request: RequestDescriptor, plans: Sequence[Plan], weights: Weights) -> RankRecord:
    """What to store with the decision."""
    return RankRecord(
        seed=request.request_id,
        weights=weights.as_json(),
        plans=[StoredPlan(inputs=plan.inputs, stale=plan.candidate.stale) for plan in plans[:MAX_RECORDED]],
    )


def replay(stored: RankRecord) -> list[tuple[str, Decimal]]:
    """The order that a record leads to: plan names with their scores, best first."""
    weights = Weights(**{name: Decimal(value) for name, value in stored.weights.items()})
    rows = [_Row(plan.inputs, terms(plan.inputs).score(weights), plan.stale) for plan in stored.plans]
    scores: Mapping[str, Decimal] = {row.inputs.key: row.score for row in rows}
    return [(key, scores[key]) for key in _order(rows, stored.seed)]


@dataclass(frozen=True, slots=True)
class _Row:
    inputs: Inputs
    score: Decimal
    stale: bool

    @property
    def domain(self) -> str:
        """First word of the plan's name (broker.select.candidates.plan_key)."""
        return self.inputs.key.partition(" ")[0]


def _order(rows: Sequence[_Row], seed: str) -> list[str]:
    ordered = sorted(rows, key=lambda row: (row.stale, row.score, row.inputs.key))
    if not ordered:
        return []
    drawn = _spread(_near(ordered), seed)
    taken = set(drawn)
    return [*drawn, *(row.inputs.key for row in ordered if row.inputs.key not in taken)]


def _near(ordered: Sequence[_Row]) -> list[_Row]:
    """The best plan, and those of other domains that are as good and as cheap, of equal freshness.

    A domain draws once, however many plans it lists; and only what a record holds counts, so that it replays.
    """
    best = ordered[0]
    bound = best.score + abs(best.score) * NEAR_SCORE
    close = [row for row in ordered[:MAX_RECORDED] if row.score <= bound and row.stale == best.stale]
    price = min(row.inputs.price for row in close) * (1 + NEAR_PRICE)
    near = [row for row in close if row.inputs.price <= price]
    drawing: dict[str, _Row] = {}
    for row in near if best in near else [best]:
        drawing.setdefault(row.domain, row)
    return list(drawing.values())


def _spread(near: Sequence[_Row], seed: str) -> list[str]:
    """Draw the first few, weighted by headroom. SHA-256 is the source: equal in every language."""
    left = list(near)
    order: list[str] = []
    while left and len(order) < MAX_DRAWN:
        shares = [int(Decimal(row.inputs.headroom) * 1000) + 1 for row in left]
        draw = int.from_bytes(hashlib.sha256(f"{seed} {len(order)}".encode()).digest()) % sum(shares)
        index = 0
        while draw >= shares[index]:
            draw -= shares[index]
            index += 1
        order.append(left.pop(index).inputs.key)
    return order
