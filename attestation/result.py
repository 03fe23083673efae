"""What an appraisal found: every single check, and the RATS verdict that follows from them.

A check never decides by being absent: one that could not be made is listed as `not_evaluated`, and
says whether that leaves the whole undecided.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final, Literal, NamedTuple, TypeAlias

from schemas.canonical import Json

Verdict: TypeAlias = Literal["affirming", "warning", "contraindicated", "none"]
Status: TypeAlias = Literal["pass", "fail", "not_evaluated"]
Effect: TypeAlias = Literal["contraindicated", "warning", "none", "shown"]

EXIT_CODES: Final[dict[Verdict, int]] = {"affirming": 0, "warning": 0, "contraindicated": 1, "none": 3}
"""DESIGN 7."""


class Check(NamedTuple):
    """One thing that was looked at. A tuple: dozens are made for every verification."""

    name: str
    """What was looked at, e.g. `snp.chain`."""
    status: Status
    seen: str = ""
    wanted: str = ""
    clause: str = ""
    """Where the rule stands."""
    code: str | None = None
    """Stable reason code of a check that did not pass."""
    effect: Effect = "shown"
    """What a check that did not pass does to the verdict."""

    def as_json(self) -> dict[str, Json]:
        return {
            "check": self.name,
            "status": self.status,
            "code": self.code,
            "seen": self.seen,
            "wanted": self.wanted,
            "clause": self.clause,
            "effect": self.effect if self.status != "pass" else None,
        }


_new = tuple.__new__  # half the price of the generated constructor, in the one place that is hot


def passed(name: str, seen: str, wanted: str, clause: str) -> Check:
    """It was looked at and holds."""
    return _new(Check, (name, "pass", seen, wanted, clause, None, "shown"))


def failed(name: str, code: str, seen: str, wanted: str, clause: str) -> Check:
    """It was looked at and does not hold: the whole is contraindicated."""
    return _new(Check, (name, "fail", seen, wanted, clause, code, "contraindicated"))


def downranked(name: str, code: str, seen: str, wanted: str, clause: str) -> Check:
    """It does not hold, and policy lowers the verdict to `warning` for it."""
    return _new(Check, (name, "fail", seen, wanted, clause, code, "warning"))


def undecided(name: str, code: str, seen: str, wanted: str, clause: str) -> Check:
    """Something needed is missing or stale: the whole cannot be decided."""
    return _new(Check, (name, "not_evaluated", seen, wanted, clause, code, "none"))


def not_evaluated(name: str, why: str, clause: str = "") -> Check:
    """Not looked at, with the reason; nothing follows from it."""
    return _new(Check, (name, "not_evaluated", why, "", clause, None, "shown"))


def compared(name: str, code: str, holds: bool, seen: str, wanted: str, clause: str) -> Check:
    """The check that `holds` decides."""
    if holds:
        return _new(Check, (name, "pass", seen, wanted, clause, None, "shown"))
    return _new(Check, (name, "fail", seen, wanted, clause, code, "contraindicated"))


def renamed(checks: Sequence[Check], names: Sequence[str]) -> list[Check]:
    """The same checks under other names."""
    return [
        _new(Check, (name, status, seen, wanted, clause, code, effect))
        for name, (_, status, seen, wanted, clause, code, effect) in zip(names, checks, strict=True)
    ]


def decide(checks: Sequence[Check]) -> tuple[Verdict, str | None]:
    """The verdict and the first reason for it: a failure outweighs a gap, a gap outweighs a warning."""
    gap = lowered = None
    for check in checks:
        if check.effect == "shown":
            continue
        if check.effect == "contraindicated":
            return "contraindicated", check.code
        if check.effect == "none":
            gap = gap or check.code
        elif check.effect == "warning":
            lowered = lowered or check.code
    if gap is not None:
        return "none", gap
    if lowered is not None:
        return "warning", lowered
    return "affirming", None


def _nothing_stated() -> dict[str, Json]:
    return {}


class AttestationResult(NamedTuple):
    """The outcome of one appraisal, complete enough to be read by a person or kept by a machine.

    A tuple: each report of a known guest gets its own, changed in a few members.
    """

    tee: str
    verdict: Verdict
    reason: str | None
    """Code of the first check that explains the verdict; None when affirming."""
    checks: tuple[Check, ...]
    at: datetime
    """The moment at which everything was judged."""
    identity: bytes
    """SHA-256 of what the hardware signed."""
    platform: str = "unknown"
    """E.g. `snp-milan`; `simulated-snp-milan` under a simulated root."""
    simulated: bool = False
    debug: bool = False
    expectations_digest: bytes | None = None
    """None when no reference values were demanded."""
    valid_until: float | None = None
    """POSIX seconds: the earliest end of a certificate or CRL that this rests on."""
    waived: tuple[str, ...] = ()
    """What the relying party chose not to ask for."""
    advisories: tuple[str, ...] = ()
    """Conditions that a stricter policy may refuse."""
    stated: Callable[[], dict[str, Json]] = _nothing_stated
    """What the evidence states, for display; made only when someone looks."""

    def __eq__(self, other: object) -> bool:
        """What was found is the same; how it is shown does not count."""
        return isinstance(other, AttestationResult) and self[:-1] == other[:-1]

    def __ne__(self, other: object) -> bool:  # a tuple brings its own
        return not self == other

    def __hash__(self) -> int:
        return hash(self[:-1])

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.verdict]

    def check(self, name: str) -> Check:
        """The check of that name. Raises `KeyError`."""
        for check in self.checks:
            if check.name == name:
                return check
        raise KeyError(name)
