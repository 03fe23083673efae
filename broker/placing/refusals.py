"""An honest refusal: which rules bind, what would be achievable, and the smallest relaxation.

Before anybody was called it is the cut's (`infeasible`), afterwards what the finalists came to (`nobody`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, Self

from broker.placing.negotiate import Declined
from broker.problems import Infeasible, RequestProblem, Shed, Upstream
from broker.select.candidates import Feasibility
from broker.select.rank import Plan
from schemas.canonical import Json
from schemas.descriptors.request import RequestDescriptor

RETRY_MS: Final = 1_000  # milliseconds to suggest where no provider suggested more
LATER: Final = frozenset({"NO_CAPACITY", "RATE", "DRAINING"})
"""Signed refusals that say nothing against the request: the same may go there in a while."""


@dataclass(frozen=True, slots=True)
class Fell:
    """A finalist that came to nothing."""

    plan: Plan
    reasons: tuple[str, ...]
    code: str | None = None
    """Of a signed refusal; None: it did not answer, or offered or proved less than it must."""
    retry_after_ms: int = 0
    """When its provider says that it may serve this; 0: not said."""

    @classmethod
    def of(cls, plan: Plan, answer: Declined) -> Self:
        """By its provider's word. A code counts as one only with the signed refusal that states it."""
        signed = answer.refusal is not None
        reasons, code = answer.rules or (answer.code,), answer.code if signed else None
        return cls(plan, reasons, code, answer.retry_after_ms)


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


def nobody(request: RequestDescriptor, allowed: Collection[str], fell: Sequence[Fell]) -> RequestProblem:
    """All finalists fell away: `Shed` where waiting helps, `Infeasible` where all providers' rules deny it.

    allowed: every domain that the cut had left. One that was never asked, or that failed, denied nothing:
    then it is `Upstream`, with each one's reason.
    """
    codes = {each.code for each in fell}
    if codes & LATER and codes <= LATER | {"POLICY"}:
        text = "every domain that may serve this is full or takes no calls now"
        retry_ms = max(each.retry_after_ms for each in fell) or RETRY_MS
        return Shed("capacity.none", text, retry_after_ms=retry_ms)
    if codes == {"POLICY"} and {each.plan.domain for each in fell} >= set(allowed):
        return _vetoed(request, fell)
    told: dict[str, dict[str, None]] = {}  # each reason once, in the order of the calls
    for each in fell:
        told.setdefault(each.plan.domain, {}).update(dict.fromkeys(each.reasons))
    text = "; ".join(f"{domain}: {', '.join(reasons)}" for domain, reasons in told.items())
    detail: dict[str, Json] = {domain: list(reasons) for domain, reasons in told.items()}
    return Upstream(
        "agree.no_offer", f"no allowed domain could serve this: {text}"[:512], detail={"declined": detail}
    )


def _vetoed(request: RequestDescriptor, fell: Sequence[Fell]) -> Infeasible:
    """Each provider refused by rules that only it knows: nobody can say what would relax them."""
    eliminated = Counter(rule for each in fell for rule in set(each.reasons))
    binding = sorted({each.reasons[0] for each in fell})
    return Infeasible(
        f"no domain may serve {request.capability}: {', '.join(binding)}"[:512],
        binding=binding,
        eliminated=eliminated,
        best_achievable={},
        smallest_relaxation=None,
        rejected=[
            {"domain": each.plan.domain, "plan": each.plan.candidate.key, "rules": list(each.reasons)}
            for each in fell
        ],
        code="request.vetoed",
    )
