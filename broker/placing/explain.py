"""What could be asked for, and what would happen to a request without running it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from broker.directory import Directory
from broker.edge.exchange import Accepted, Model
from broker.journey import Journey
from broker.placing.agreement import Placing
from broker.placing.refusals import infeasible
from broker.select.candidates import Rejected
from schemas.canonical import Json


def explain(placing: Placing, accepted: Accepted) -> Mapping[str, Json]:
    """Steps 2 and 3 in full: ranked plans with every term of J, rejected ones with their rules."""
    journey = Journey.begin(accepted)
    snapshot, found = placing.cut_or_lower(journey)
    if not found.candidates:
        return {"verdict": "infeasible", "plans": [], **infeasible(accepted.descriptor, found).detail}
    considered = placing.order(journey, snapshot, found)
    return {
        "verdict": "feasible",
        "registry": considered.registry.hex(),
        "plans": [{"domain": plan.domain, **plan.as_json()} for plan in considered.plans],
        "rejected": [_rejected(plan) for plan in considered.rejected],
        **({"lowered": list(journey.lowered)} if journey.lowered else {}),
    }


def models(directory: Directory) -> list[Model]:
    """Every class and class/variant that some domain lists now, with the domains."""
    owners: dict[str, set[str]] = {}
    for listing in directory.snapshot(datetime.now(UTC)).entries:
        for cell in listing.summary.cells:
            for name in {cell.cls, cell.label}:
                owners.setdefault(name, set()).add(listing.domain)
    return [Model(name, tuple(sorted(domains))) for name, domains in sorted(owners.items())]


def _rejected(plan: Rejected) -> Json:
    return {"domain": plan.domain, "plan": plan.key, "rules": list(plan.reasons)}
