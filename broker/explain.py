"""What would happen to a request, domain by domain, without running it: `POST /v1/explain`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from broker.agreement import Placing
from broker.edge.exchange import Accepted
from broker.journey import Journey
from broker.problems import Infeasible
from broker.select.candidates import Rejected
from broker.select.rank import Plan
from schemas.canonical import Json


def explain(placing: Placing, accepted: Accepted) -> Mapping[str, Json]:
    """Steps 2 and 3 in full: ranked plans with every term of J, rejected ones with their rules."""
    try:
        considered = placing.consider(Journey.begin(accepted))
    except Infeasible as refusal:
        return {"verdict": "infeasible", "plans": [], **refusal.detail}
    return {
        "verdict": "feasible",
        "registry": considered.registry.hex(),
        "plans": [_plan(plan) for plan in considered.plans],
        "rejected": [_rejected(plan) for plan in considered.rejected],
    }


def _plan(plan: Plan) -> Json:
    terms: dict[str, Json] = {name: str(value) for name, value in asdict(plan.terms).items()}
    return {"domain": plan.domain, "plan": plan.candidate.key, "score": str(plan.score), "terms": terms}


def _rejected(plan: Rejected) -> Json:
    return {"domain": plan.domain, "plan": plan.key, "rules": list(plan.reasons)}
