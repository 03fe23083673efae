"""The marker of the hostile suite: who tells which lie, who notices, by which code, and what remains.

A test asserts the codes of its own marker, so that the page made from the markers cannot say more
than the tests do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

Test = TypeVar("Test", bound=Callable[..., Any])
PARTIES: Final = ("a border", "a provider", "a node", "a consumer", "a bus operator")


@dataclass(frozen=True, slots=True)
class Lie:
    """One row of the page."""

    party: str
    text: str
    """What it does, as in session.md 12."""
    by: str
    """Who notices, and by what."""
    codes: tuple[str, ...]
    """Exact codes that the refusal, alarm or claim carries."""
    receipt: str
    """What the receipt then says."""

    @property
    def code(self) -> str:
        """The only code."""
        (code,) = self.codes
        return code


def lie(party: str, text: str, *, by: str, codes: str, receipt: str) -> Callable[[Test], Test]:
    """Mark a test. `codes`: separated by spaces; the test receives the marker as the fixture `told`."""
    if party not in PARTIES:
        raise ValueError(f"{party!r} is no party")
    made = Lie(party, text, by, tuple(codes.split()), receipt)

    def mark(test: Test) -> Test:
        test.lie = made  # type: ignore[attr-defined]
        return test

    return mark
