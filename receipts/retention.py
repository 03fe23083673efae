"""How long receipts must be kept, as data: the longest duty wins, and nothing is erased before its time.

Periods are the law's own minimum for records of this kind, not advice; a domain may keep longer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from receipts.statements.fields import Retention
from schemas.errors import Refused
from schemas.primitives import format_time, parse_time


@dataclass(frozen=True, slots=True)
class RetentionClass:
    """One duty to keep."""

    name: str
    days: int
    """Minimum, from the receipt's own time."""
    source: str


CLASSES: Final = {
    each.name: each
    for each in (
        RetentionClass("none", 0, "no duty to keep"),
        RetentionClass("ai-act-deployer", 184, "Regulation (EU) 2024/1689 Art. 26(6): at least six months"),
        RetentionClass("ai-act-provider", 184, "Regulation (EU) 2024/1689 Art. 19(1): at least six months"),
        RetentionClass("hipaa", 6 * 366, "45 CFR 164.316(b)(2)(i): six years"),
        RetentionClass("de-medical", 10 * 366, "BGB § 630f(3): ten years after treatment ends"),
    )
}


def retention(names: Iterable[str], issued: datetime) -> Retention:
    """The block for a receipt that falls under these classes. Raises `Refused` for an unknown one."""
    listed = list(names) or ["none"]
    if unknown := [name for name in listed if name not in CLASSES]:
        raise Refused("retention.unknown", f"no retention class {unknown[0]!r:.40}")
    longest = max((CLASSES[name] for name in listed), key=lambda each: each.days)
    return Retention(class_=longest.name, not_before=format_time(issued + timedelta(days=longest.days)))


def check_erasable(stated: Retention | None, at: datetime) -> Retention | None:
    """Return what the receipt states if it may be erased by now. Raises `Refused`."""
    if stated is not None and stated.hold:
        raise Refused("retention.hold", "a legal hold lies on this receipt")
    if stated is not None and at < parse_time(stated.not_before):
        raise Refused("retention.early", f"class {stated.class_}: not before {stated.not_before}")
    return stated
