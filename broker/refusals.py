"""An honest refusal: which rules bind, what would be achievable, and the smallest relaxation."""

from __future__ import annotations

from collections import Counter

from broker.problems import Infeasible
from broker.select.candidates import Feasibility
from schemas.canonical import Json
from schemas.descriptors.request import RequestDescriptor


def infeasible(request: RequestDescriptor, found: Feasibility) -> Infeasible:
    """The typed 409 for a request that no listed plan may serve."""
    eliminated = Counter(rule for plan in found.rejected for rule in plan.reasons)
    smallest = min(
        (plan.reasons for plan in found.rejected), key=lambda rules: (len(rules), rules), default=()
    )
    rejected: list[dict[str, Json]] = [
        {"domain": plan.domain, "plan": plan.key, "rules": list(plan.reasons)} for plan in found.rejected
    ]
    possible = sorted({plan.domain for plan in found.rejected if set(plan.reasons) <= set(smallest)})
    return Infeasible(
        f"no domain may serve {request.capability}: {', '.join(smallest) or 'none is listed'}",
        binding=list(smallest),
        eliminated=dict(sorted(eliminated.items())),
        best_achievable=_best(found),
        smallest_relaxation=({"drop": list(smallest), "then_possible": list(possible)} if smallest else None),
        rejected=rejected,
    )


def _best(found: Feasibility) -> dict[str, Json]:
    """Per numeric rule that rejects something on its own: the best value that was on offer."""
    best: dict[str, Json] = {}
    for plan in found.rejected:
        if plan.reasons == ("OPS-001-within-price",) and plan.subject is not None:
            known = best.get("max_price")
            best["max_price"] = (
                min(plan.subject.price, known) if isinstance(known, int) else plan.subject.price
            )
    return best
