"""J(π,Q): what a plan costs, in milliseconds and ms-equivalents, term by term (routing.md 3).

Exact decimals over inputs that are kept: the same record gives the same score on every machine and
in every replay. Hard policy is not in here: P_policy grades plans that are allowed already, and no
weight can buy what policy forbids (ruling E13).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Annotated, ClassVar, Final

from pydantic import ConfigDict, Field

from broker.select.predict import COLD_START_MS, MS, network_ms
from schemas.primitives import Count

NAME: Final = "J"
VERSION: Final = "2"
Q0_MS: Final = Decimal(20)  # ms-equivalent of a half-loaded domain
MAX_LOAD_MS: Final = Decimal(2_000)  # the cap of a term that would grow without bound
ASSURANCE_STEP_MS: Final = Decimal(1)  # ms-equivalent of one rung of assurance
NOT_PREFERRED_MS: Final = Decimal(20)  # ms-equivalent of a domain that the tenant does not prefer
FULL_HEADROOM: Final = Decimal(10)

Exact = Annotated[str, Field(pattern=r"^-?[0-9]{1,18}(\.[0-9]{1,9})?$")]
"""A decimal number as text: no float ever stands in a record."""


@dataclass(frozen=True, slots=True)
class Weights:
    """How much one unit of each term counts. Units: per ms or ms-equivalent, but for money.

    They are the tenant's (routing.md 3): a request's class orders who waits, and nothing else (routing.md 1).
    """

    network: Decimal = Decimal(1)
    """α, per ms."""
    queue: Decimal = Decimal(1)
    """β, per ms."""
    execution: Decimal = Decimal(1)
    """γ, per ms."""
    state: Decimal = Decimal(1)
    """δ, per ms."""
    load: Decimal = Decimal(1)
    """ε, per ms-equivalent."""
    policy: Decimal = Decimal(1)
    """ζ, per ms-equivalent."""
    money: Decimal = Decimal(1)
    """κ, ms-equivalent per micro-unit: at 1, a thousandth of the currency is worth a second."""

    def as_json(self) -> dict[str, str]:
        return {part.name: str(getattr(self, part.name)) for part in fields(self)}


@dataclass(frozen=True, slots=True)
class Inputs:
    """Everything that J reads about one plan, exact, as it stands in the decision's record.

    A plain dataclass, for the hot path; the record that holds it checks it when it is read.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(strict=True, extra="forbid")

    key: str
    """Name of the plan within the decision; ties are broken by it."""
    rtt_ms: Count
    body_bytes: Count
    queue_ms: Exact
    fresh_tokens: Count
    """Input tokens to compute: those that can be reused are left out here and nowhere else (E17)."""
    output_tokens: Count
    """Expected, not the limit."""
    prefill_tps: Exact
    decode_tps: Exact
    cold: bool
    move_ms: Exact
    """Time to bring session state there; 0 when it is there or not worth it."""
    headroom: Exact
    """0 to 10, discounted by the age of the summary."""
    assurance: Annotated[int, Field(ge=0, le=4)]
    preferred: bool
    price: Count
    """Micro-units for the whole request."""


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
        """Weighted sum, ms-equivalent, kept to the microsecond."""
        total = (
            self.network * weights.network
            + self.queue * weights.queue
            + self.execution * weights.execution
            + self.state * weights.state
            + self.load * weights.load
            + self.policy * weights.policy
            + self.money * weights.money
        )
        return total.quantize(MS)

    def as_json(self) -> dict[str, str]:
        return {part.name: str(getattr(self, part.name)) for part in fields(self)}


def terms(plan: Inputs) -> Terms:
    """Every term of J for one plan."""
    prefill = 1000 * Decimal(plan.fresh_tokens) / Decimal(plan.prefill_tps)
    decode = 1000 * Decimal(plan.output_tokens) / Decimal(plan.decode_tps)
    grade = (4 - plan.assurance) * ASSURANCE_STEP_MS + (Decimal(0) if plan.preferred else NOT_PREFERRED_MS)
    return Terms(
        network=network_ms(plan.rtt_ms, plan.body_bytes),
        queue=Decimal(plan.queue_ms),
        execution=(prefill + decode).quantize(MS),
        state=Decimal(plan.move_ms) + (COLD_START_MS if plan.cold else 0),
        load=_load(Decimal(plan.headroom)),
        policy=grade,
        money=Decimal(plan.price),
    )


def _load(headroom: Decimal) -> Decimal:
    """Q0·ρ/(1−ρ), capped: convex, so that nearly full domains are left for last (I-46)."""
    if headroom <= 0:
        return MAX_LOAD_MS
    busy = FULL_HEADROOM - headroom
    return min(MAX_LOAD_MS, Q0_MS * busy / headroom).quantize(MS)


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of a staged plan (prefill→decode, draft→verify, redact→remote)."""

    terms: Terms
    needs: tuple[int, ...] = ()
    """Indices of the earlier stages that it waits for."""

    @property
    def latency(self) -> Decimal:
        return self.terms.network + self.terms.queue + self.terms.execution + self.terms.state


def staged(stages: Sequence[Stage]) -> Terms:
    """Terms of a plan of several stages: times along the critical path, everything else summed (E17).

    Stages stand in an order in which each needs only earlier ones. Raises `ValueError` otherwise.
    """
    ends: list[Decimal] = []
    paths: list[tuple[int, ...]] = []
    for index, stage in enumerate(stages):
        if any(not 0 <= need < index for need in stage.needs):
            raise ValueError("a stage needs only earlier stages")
        last = max(stage.needs, key=lambda need: ends[need], default=None)
        ends.append(stage.latency + (ends[last] if last is not None else 0))
        paths.append((*(paths[last] if last is not None else ()), index))
    critical = paths[max(range(len(stages)), key=lambda index: ends[index])]

    def path(name: str) -> Decimal:
        return sum((getattr(stages[index].terms, name) for index in critical), Decimal(0))

    def everywhere(name: str) -> Decimal:
        return sum((getattr(stage.terms, name) for stage in stages), Decimal(0))

    timed = {name: path(name) for name in ("network", "queue", "execution", "state")}
    return Terms(**timed, **{name: everywhere(name) for name in ("load", "policy", "money")})
