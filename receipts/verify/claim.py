"""What a verification can say of each claim, and what follows from it (receipts.md 16.2, 16.3).

`proved` takes the evidence of a check that returned: there is no way to say it by default.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from schemas.canonical import Json
from schemas.errors import ComityError

Verdict: TypeAlias = Literal["proved", "asserted-by", "not-checked", "failed"]

ClaimName: TypeAlias = Literal[
    "signature",
    "schema",
    "issuer-key",
    "logged",
    "witnessed",
    "time",
    "anchored",
    "placement-link",
    "execution-link",
    "ack-link",
    "sequence",
    "complete",
    "capability",
    "attested",
    "policy",
    "plan-choice",
    "content",
    "usage",
    "cache",
    "not-equivocated",
]
CLAIMS: Final[tuple[ClaimName, ...]] = ClaimName.__args__  # type: ignore[attr-defined]

# Worst last: what a table over several statements shows for all of them together.
_RANK: Final[dict[Verdict, int]] = {"proved": 0, "asserted-by": 1, "not-checked": 2, "failed": 3}


@dataclass(frozen=True, slots=True)
class Claim:
    """One claim about one statement."""

    name: ClaimName
    verdict: Verdict
    text: str
    by: str | None = None
    """Who asserts it, where nothing else supports it."""
    code: str | None = None
    """Stable reason of a failure, or of a check that could not be made."""
    applies: bool = True
    """False where this kind of statement makes no such claim: nothing can then be required of it."""

    @property
    def label(self) -> str:
        return f"asserted-by({self.by})" if self.verdict == "asserted-by" else self.verdict

    def as_json(self) -> dict[str, Json]:
        return {
            "claim": self.name,
            "verdict": self.label,
            "text": self.text,
            "code": self.code,
            "applies": self.applies,
        }


def proved(name: ClaimName, evidence: object, text: str) -> Claim:
    """Checked here. `evidence` is what the check returned; None would mean that none was made."""
    if evidence is None:
        raise ValueError(f"{name} cannot be proved by nothing")
    return Claim(name, "proved", text)


def asserted(name: ClaimName, by: str, text: str) -> Claim:
    """Someone signed it; nothing else supports it."""
    return Claim(name, "asserted-by", text, by=by)


def not_checked(name: ClaimName, text: str, code: str | None = None) -> Claim:
    """Material is missing, or the check was not asked for."""
    return Claim(name, "not-checked", text, code=code)


def inapplicable(name: ClaimName, text: str) -> Claim:
    """This statement makes no such claim."""
    return Claim(name, "not-checked", text, applies=False)


def failed(name: ClaimName, error: ComityError) -> Claim:
    """Checked and wrong."""
    return Claim(name, "failed", error.text, code=error.code)


def complete(claims: Iterable[Claim], why: str) -> tuple[Claim, ...]:
    """All claims in their order; one that nobody judged says why, and counts as not checked."""
    made = {claim.name: claim for claim in claims}
    return tuple(made.get(name) or not_checked(name, why) for name in CLAIMS)


def worst(claims: Iterable[Claim]) -> Claim:
    """The claim that decides for several statements: those it applies to come first."""
    listed = list(claims)
    return max(listed, key=lambda claim: (claim.applies, _RANK[claim.verdict]))
