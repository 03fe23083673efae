"""An honest refusal: which rules bind, what would be achievable, and the smallest relaxation."""

from __future__ import annotations

from broker.problems import Infeasible
from broker.select.candidates import Feasibility
from schemas.canonical import Json
from schemas.descriptors.request import RequestDescriptor


def infeasible(request: RequestDescriptor, found: Feasibility, receipt: str | None = None) -> Infeasible:
    """The typed 409 for a request that no listed plan may serve. `receipt`: id of the signed refusal."""
    report = found.report()
    rejected: list[dict[str, Json]] = [
        {"domain": plan.domain, "plan": plan.key, "rules": list(plan.reasons)} for plan in found.rejected
    ]
    return Infeasible(
        f"no domain may serve {request.capability}: {', '.join(report.binding) or 'nothing is listed'}",
        binding=report.binding,
        eliminated=report.eliminated,
        best_achievable={each.rule: each.as_json() for each in report.achievable},
        smallest_relaxation=report.relaxations[0].as_json() if report.relaxations else None,
        rejected=rejected,
        receipt=receipt,
    )
