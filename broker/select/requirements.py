"""What a plan must meet besides policy: capability, quality, response time, budget, freshness.

Each unmet requirement has a code of its own, so that a refusal can say which one binds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np

from broker.select.predict import Prediction
from schemas.descriptors.capability import Rates
from schemas.descriptors.request import RequestDescriptor
from schemas.descriptors.summary import DROP_AFTER_TTLS, CapabilitySummary, Cell
from schemas.policy.infeasible import Measured

MILLION: Final = 1_000_000
PRICE_RULE: Final = "OPS-001-within-price"
"""The charter's own rule; a budget binds also where a charter has dropped it."""
TTFT_RULE: Final = "SLO-001-ttft"
TOTAL_RULE: Final = "SLO-002-total"
TPOT_RULE: Final = "SLO-003-tpot"
MODEL_RULE: Final = "CAP-004-model"
DEARER_RULE: Final = "BID-001-dearer-than-advertised"


@dataclass(frozen=True, slots=True)
class Asked:
    """A request at one moment, and what this attempt at it must avoid or keep."""

    request: RequestDescriptor
    at: datetime
    model_digest: str | None
    """Set where only this very model will do."""
    excluded: frozenset[str]
    """Domains that must not be used again."""


def unmet(
    asked: Asked, summary: CapabilitySummary, cell: Cell, predicted: Prediction, *, price: int
) -> list[str]:
    """Codes of all requirements that this plan does not meet. `price` is its total, micro-units."""
    return [
        *_capability(asked, cell),
        *_quality(asked.request, cell),
        *_response_time(asked.request, predicted),
        *_budget(asked.request, price),
        *_freshness(summary, asked.at),
        *(["EXC-001-excluded"] if summary.iss in asked.excluded else []),
    ]


def unmet_by_offer(request: RequestDescriptor, cell: Cell, rates: Rates, predicted: Prediction) -> list[str]:
    """Codes of what this plan does not meet now that its domain has made its offer.

    It was ranked by what its advert said; a promise that we know cannot be held is not accepted
    (routing.md 1). predicted: with the wait that the offer states.
    """
    shown, price = cell.rates, request_price(request, rates)
    dearer = shown is not None and (
        rates.input > shown.input or rates.output > shown.output or rates.cached > shown.cached
    )
    return [
        *([DEARER_RULE] if dearer else []),
        *_response_time(request, predicted),
        *_budget(request, price),
    ]


def request_price(request: RequestDescriptor, rates: Rates, cached_tokens: int = 0) -> int:
    """Micro-units for the whole request: its estimate of input, its limit of output (DESIGN 19)."""
    return rates.total(
        input_tokens=request.input_tokens,
        output_tokens=request.max_output_tokens,
        cached_tokens=min(cached_tokens, request.input_tokens),
    )


def _capability(asked: Asked, cell: Cell) -> list[str]:
    """A cell that does not disclose its variant can still be called: its offer names it, but no version."""
    request = asked.request
    if cell.cls != request.capability_class:
        return ["CAP-001-class"]
    if request.variant is not None and cell.variant not in (None, request.variant):
        return ["CAP-002-variant"]
    if request.version is not None and cell.version != request.version:
        return ["CAP-003-version"]
    if asked.model_digest is not None and cell.digest != asked.model_digest:
        return [MODEL_RULE]
    return []


def _quality(request: RequestDescriptor, cell: Cell) -> list[str]:
    wanted, reasons = request.quality, []
    if wanted.tier is not None and cell.tier < wanted.tier:
        reasons.append("QUA-001-tier")
    if wanted.min_params is not None and cell.params_m * MILLION < wanted.min_params:
        reasons.append("QUA-002-parameters")
    needed = max(request.input_tokens + request.max_output_tokens, wanted.context or 0)
    if cell.context_limit is not None and needed > cell.context_limit:
        reasons.append("QUA-003-context")
    return reasons


def _response_time(request: RequestDescriptor, predicted: Prediction) -> list[str]:
    slo, reasons = request.slo, []
    if slo.ttft_ms is not None and predicted.ttft_ms > slo.ttft_ms:
        reasons.append(TTFT_RULE)
    if slo.total_ms is not None and predicted.total_ms > slo.total_ms:
        reasons.append(TOTAL_RULE)
    if slo.tpot_ms is not None and predicted.tpot_ms > slo.tpot_ms:
        reasons.append(TPOT_RULE)
    return reasons


def _budget(request: RequestDescriptor, price: int) -> list[str]:
    over = request.budget.max_price is not None and price > request.budget.max_price
    # Nobody advertises the energy of a request yet: a bound on it cannot be promised, so it is refused.
    unknown = request.budget.max_carbon_g is not None
    return [PRICE_RULE] * over + ["BUD-001-carbon-unknown"] * unknown


def _freshness(summary: CapabilitySummary, at: datetime) -> list[str]:
    dead = at.timestamp() > summary.iat + DROP_AFTER_TTLS * summary.ttl_s
    return ["STA-001-stale"] * dead + ["STA-002-draining"] * summary.draining


def slo_measures(request: RequestDescriptor, predictions: Sequence[Prediction]) -> list[Measured]:
    """The response-time bounds that were stated, with every plan's prediction, rounded up."""
    stated = (
        (TTFT_RULE, request.slo.ttft_ms, [each.ttft_ms for each in predictions]),
        (TOTAL_RULE, request.slo.total_ms, [each.total_ms for each in predictions]),
        (TPOT_RULE, request.slo.tpot_ms, [each.tpot_ms for each in predictions]),
    )
    return [
        Measured(rule, bound, np.array([math.ceil(value) for value in values], np.int64), "ms", "lower")
        for rule, bound, values in stated
        if bound is not None
    ]
