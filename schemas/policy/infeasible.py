"""Why nobody can serve a request, and what would have to give.

Counts eliminations per rule, finds the minimal relaxations (single rules, then pairs, then larger
sets of which no part suffices), a minimal set of rules that together exclude everyone, and, per numeric
rule, the best value that could be had if that rule alone were relaxed. It says so and relaxes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from schemas.canonical import Json
from schemas.policy.facts import RequestContext
from schemas.policy.mask import Columns, Flags, Masked, Numbers, table

MAX_RELAXATIONS: Final = 8  # more would not be read


@dataclass(frozen=True, slots=True)
class Relaxation:
    """Rules which, dropped together, make candidates appear."""

    rules: tuple[str, ...]
    candidates: int

    def as_json(self) -> dict[str, Json]:
        return {"rules": list(self.rules), "candidates": self.candidates}


@dataclass(frozen=True, slots=True)
class Measured:
    """The values that a numeric rule was held against."""

    rule: str
    asked: int
    values: Numbers
    unit: str
    better: Literal["lower", "higher"]


@dataclass(frozen=True, slots=True)
class Achievable:
    """The best value among candidates that only this rule excludes (or nothing does)."""

    rule: str
    asked: int
    best: int
    unit: str
    domain: str

    def as_json(self) -> dict[str, Json]:
        return {
            "rule": self.rule,
            "asked": self.asked,
            "best": self.best,
            "unit": self.unit,
            "domain": self.domain,
        }


@dataclass(frozen=True, slots=True)
class Infeasibility:
    """The detail of an honest refusal (routing.md 1)."""

    candidates: int
    eliminated: Mapping[str, int]
    """Rule → how many candidates it excludes."""
    binding: tuple[str, ...]
    """A minimal set of rules that together exclude everyone: none of them can be left out."""
    relaxations: tuple[Relaxation, ...]
    achievable: tuple[Achievable, ...]

    def as_json(self) -> dict[str, Json]:
        return {
            "candidates": self.candidates,
            "eliminated": dict(sorted(self.eliminated.items())),
            "binding": list(self.binding),
            "relaxations": [relaxation.as_json() for relaxation in self.relaxations],
            "achievable": [value.as_json() for value in self.achievable],
        }


def report(
    denials: Mapping[str, Flags], domains: Sequence[str], measured: Sequence[Measured] = ()
) -> Infeasibility:
    """The report over any table of denials: rule → whom it excludes, in the order of `domains`."""
    denials = {rule: denied for rule, denied in denials.items() if denied.any()}
    sets = [
        frozenset(rule for rule, denied in denials.items() if denied[index]) for index in range(len(domains))
    ]
    return Infeasibility(
        candidates=len(domains),
        eliminated={rule: int(denied.sum()) for rule, denied in denials.items()},
        binding=_binding(denials, len(domains)),
        relaxations=_relaxations(sets),
        achievable=tuple(
            found for entry in measured if (found := _achievable(entry, sets, domains)) is not None
        ),
    )


def policy_report(
    request: RequestContext, on: Columns, masked: Masked, domains: Sequence[str]
) -> Infeasibility:
    """The report of a mask alone, for explanations without routing."""
    return report(masked.denials, domains, policy_measures(request, on))


def policy_measures(request: RequestContext, on: Columns) -> list[Measured]:
    """The table's numeric rules with the columns that they look at; a report ignores inactive ones."""
    return [
        Measured(row.rule, getattr(request, bound.asked), on.numbers[bound.column], bound.unit, bound.better)
        for row in table()
        if (bound := row.bound) is not None
    ]


def _relaxations(sets: Sequence[frozenset[str]]) -> tuple[Relaxation, ...]:
    """Inclusion-minimal sets of excluding rules; the smallest first, then those that free the most."""
    kinds = Counter(sets)
    if frozenset() in kinds:
        return ()
    minimal = [kind for kind in kinds if not any(other < kind for other in kinds)]
    freed = {kind: sum(count for other, count in kinds.items() if other <= kind) for kind in minimal}
    ordered = sorted(minimal, key=lambda kind: (len(kind), -freed[kind], sorted(kind)))
    return tuple(Relaxation(tuple(sorted(kind)), freed[kind]) for kind in ordered[:MAX_RELAXATIONS])


def _binding(denials: Mapping[str, Flags], size: int) -> tuple[str, ...]:
    """Greedy cover, then drop what is superfluous. Empty when somebody is left or nobody was there."""
    chosen: list[str] = []
    left = np.ones(size, bool)
    while left.any():
        best = max(sorted(denials), key=lambda rule: int((denials[rule] & left).sum()), default=None)
        if best is None or not (denials[best] & left).any():
            return ()
        chosen.append(best)
        left &= ~denials[best]
    for rule in list(chosen):
        others = [denials[other] for other in chosen if other != rule]
        if others and np.logical_or.reduce(others).all():
            chosen.remove(rule)
    return tuple(sorted(chosen))


def _achievable(entry: Measured, sets: Sequence[frozenset[str]], domains: Sequence[str]) -> Achievable | None:
    only = [index for index, kind in enumerate(sets) if kind <= {entry.rule}]
    if not any(entry.rule in kind for kind in sets) or not only:
        return None
    sign = 1 if entry.better == "lower" else -1
    best = min(only, key=lambda index: (sign * int(entry.values[index]), domains[index]))
    return Achievable(entry.rule, entry.asked, int(entry.values[best]), entry.unit, domains[best])
