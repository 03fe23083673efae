"""What would happen to a request, domain by domain, without running it: `POST /v1/explain`."""

from __future__ import annotations

from collections.abc import Mapping

from broker.agreement import Placing
from broker.edge.exchange import Accepted
from broker.journey import Journey
from broker.refusals import infeasible
from broker.select.candidates import Rejected
from schemas.canonical import Json


def explain(placing: Placing, accepted: Accepted) -> Mapping[str, Json]:
    """Steps 2 and 3 in full: ranked plans with every term of J, rejected ones with their rules."""
    journey = Journey.begin(accepted)
    snapshot, found = placing.cut(journey)
    if not found.candidates:
        return {"verdict": "infeasible", "plans": [], **infeasible(accepted.descriptor, found).detail}
    considered = placing.order(journey, snapshot, found)
    return {
        "verdict": "feasible",
        "registry": considered.registry.hex(),
        "plans": [{"domain": plan.domain, **plan.as_json()} for plan in considered.plans],
        "rejected": [_rejected(plan) for plan in considered.rejected],
    }


def _rejected(plan: Rejected) -> Json:
    return {"domain": plan.domain, "plan": plan.key, "rules": list(plan.reasons)}
