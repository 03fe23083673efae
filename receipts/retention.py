"""How long receipts must be kept, as data: the longest duty wins, and nothing is erased before its time.

Periods are the law's own minimum for records of this kind, not advice; a domain may keep longer.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from importlib.resources import files

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


@cache
def classes() -> Mapping[str, RetentionClass]:
    """Every class in `retention.toml`, by name."""
    table = tomllib.loads(files("receipts").joinpath("retention.toml").read_text("utf-8"))
    return {name: RetentionClass(name, entry["days"], entry["source"]) for name, entry in table.items()}


def check_known(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names if each is a class. Raises `Refused` (`retention.unknown`)."""
    listed = tuple(names)
    if unknown := [name for name in listed if name not in classes()]:
        raise Refused("retention.unknown", f"no retention class {unknown[0]!r:.40}")
    return listed


def retention(names: Iterable[str], issued: datetime) -> Retention:
    """The block for a receipt that falls under these classes. Raises `Refused` for an unknown one."""
    listed = check_known(names) or ("none",)
    longest = max((classes()[name] for name in listed), key=lambda each: each.days)
    return Retention(class_=longest.name, not_before=format_time(issued + timedelta(days=longest.days)))


def check_erasable(stated: Retention | None, at: datetime) -> Retention | None:
    """Return what the receipt states if it may be erased by now. Raises `Refused`."""
    if stated is not None and stated.hold:
        raise Refused("retention.hold", "a legal hold lies on this receipt")
    if stated is not None and at < parse_time(stated.not_before):
        raise Refused("retention.early", f"class {stated.class_}: not before {stated.not_before}")
    return stated
