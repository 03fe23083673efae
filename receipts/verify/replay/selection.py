"""How a broker selects, handed in by whoever has its room at hand: this one may not import it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TypeAlias

from receipts.statements.receipt import Objective
from schemas.canonical import Json
from schemas.descriptors.profile import DomainProfile
from schemas.descriptors.request import RequestDescriptor
from schemas.descriptors.summary import CapabilitySummary
from schemas.policy.layers import Layers


@dataclass(frozen=True, slots=True)
class Ranked:
    """One plan of a ranking that was computed again."""

    key: str
    """Domain, blank, what it offers: the plan's name within the decision."""
    score: Decimal
    objective: Objective
    """What a receipt that chose it has to state."""


@dataclass(frozen=True, slots=True)
class Advertised:
    """What a domain offered, as it signed it, and who it is, as the charter endorses it."""

    domain: str
    summary: CapabilitySummary
    digest: bytes
    """Of its advert."""
    profile: DomainProfile


@dataclass(frozen=True, slots=True)
class OnOffer:
    """Everything behind a cut that stands without the broker's word."""

    consumer: str
    adverts: Sequence[Advertised]
    rules: Mapping[bool, Layers]
    """By whether a plan is the consumer's own."""
    simulated_allowed: bool
    """Whether the charter lists a simulated root."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Both sides of a cut that was made again, and what was asked for."""

    at: datetime
    request: RequestDescriptor
    allowed: Sequence[str]
    """Names of the plans that nothing excludes."""
    rejected: Sequence[Json]
    """Every other plan with its reasons, as a refusal lists it."""
    binding: tuple[str, ...]
    """A minimal set of rules that together excludes every plan."""
    on_word: Sequence[str]
    """Plans that fell by nothing but what the broker measured or remembered itself."""


Rerank: TypeAlias = Callable[[bytes], Sequence[Ranked]]
"""Stored inputs of a ranking → the order that they lead to, best first. Raises `ComityError`."""
Recut: TypeAlias = Callable[[bytes, OnOffer], Cut]
"""Stored inputs of a cut, and what was on offer → the cut that they lead to. Raises `ComityError`."""


@dataclass(frozen=True, slots=True)
class Selection:
    """A broker's ranking and its cut, to be made again."""

    rerank: Rerank
    recut: Recut
