"""Numbers with their nouns, as people read them."""

from __future__ import annotations


def counted(number: int, one: str, more: str | None = None) -> str:
    """`1 day`, `2 days`; `more` where an s at the end does not do: `1 leaf`, `2 leaves`."""
    return f"{number} {one if number == 1 else more or f'{one}s'}"
