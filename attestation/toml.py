"""Reading a file of expectations so that nothing is open by omission.

Every key is taken by name and by kind (schemas/toml.py). `"any"` is the one waiver, and each is
remembered by name.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, ClassVar, Final

from schemas import toml
from schemas.toml import MISSING, is_integer

ANY: Final = "any"
MAX_LISTED: Final = 10_000  # entries of one list: a fleet's measurements or chips


@dataclass(slots=True)
class Table(toml.Table):
    """One table of expectations while it is being read."""

    waived: list[str] = field(default_factory=list)
    """Collects `table.key` of each explicit waiver, across tables."""
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    """Key → name of the table that states it, where another overrides this one."""

    UNSET: ClassVar[str] = "expected.unset"
    INVALID: ClassVar[str] = "expected.invalid"
    UNKNOWN: ClassVar[str] = "expected.unknown_key"
    MAX_LISTED: ClassVar[int] = MAX_LISTED

    def overridden(self, by: Table, waived: list[str]) -> Table:
        """This table with the other's keys in place of its own; an error names the one that states a key."""
        elsewhere = dict.fromkeys(by.values, by.name)
        return Table(self.source, self.name, {**self.values, **by.values}, waived, elsewhere)

    def inside(self, key: str) -> str:
        name = self.elsewhere.get(key, self.name)
        return f"{name}.{key}" if name else key

    def where(self, key: str) -> str:
        name = self.elsewhere.get(key, self.name)
        return f"[{name}] {key}" if name else key

    def of(self, name: str, values: Mapping[str, Any]) -> Table:
        return Table(self.source, name, values, self.waived)

    def demand(self, key: str, default: Any = MISSING, *, write: str) -> Any:
        """The value of a key that may be waived."""
        return self.take(key, default, write=f'{write} to demand it, or {key} = "{ANY}" to waive it')

    def is_any(self, key: str, value: Any) -> bool:
        """Whether the value is the waiver, which is then remembered by name."""
        if value == ANY:
            self.waived.append(self.inside(key))
        return bool(value == ANY)

    def states(self, key: str) -> bool:
        """Whether an optional key is there."""
        self.taken.add(key)
        return key in self.values

    def digests(self, key: str, size: int) -> frozenset[bytes] | None:
        """A required set of byte strings of `size`, in hex; None when waived."""
        write = f'{key} = ["<{2 * size} hex digits>"]'
        value = self.demand(key, write=write)
        if self.is_any(key, value):
            return None
        listed = [value] if isinstance(value, str) else value
        pattern = re.compile(rf"[0-9a-f]{{{2 * size}}}", re.IGNORECASE)
        if not isinstance(listed, list) or not 1 <= len(listed) <= MAX_LISTED:
            raise self.error(key, "is no list of hex", write)
        if not all(isinstance(each, str) and pattern.fullmatch(each) for each in listed):
            raise self.error(key, f"holds something other than {2 * size} hex digits", write)
        return frozenset(bytes.fromhex(each) for each in listed)

    def integers(self, key: str, low: int, high: int, default: Any = MISSING) -> frozenset[int] | None:
        """A set of integers; None when waived."""
        write = f"{key} = [{low}]"
        value = self.demand(key, default, write=write)
        if self.is_any(key, value):
            return None
        listed = value if isinstance(value, list) else [value]
        if not listed or not all(is_integer(each, low, high) for each in listed):
            raise self.error(key, f"holds something other than {low}..{high}", write)
        return frozenset(listed)

    def integer(self, key: str, low: int, high: int, default: Any = MISSING) -> int | None:
        """One integer; None when waived."""
        write = f"{key} = {low}"
        value = self.demand(key, default, write=write)
        if self.is_any(key, value):
            return None
        if not is_integer(value, low, high):
            raise self.error(key, f"is not between {low} and {high}", write)
        return int(value)

    def version(self, key: str, parts: int, default: Any = MISSING) -> tuple[int, ...] | None:
        """A dotted version; None when waived or when the default is None."""
        write = f'{key} = "{".".join(["1"] * parts)}"'
        value = self.demand(key, default, write=write)
        if value is None or self.is_any(key, value):
            return None
        if not isinstance(value, str) or not re.fullmatch(rf"\d{{1,3}}(\.\d{{1,3}}){{{parts - 1}}}", value):
            raise self.error(key, f"is not {parts} numbers with dots", write)
        return tuple(int(part) for part in value.split("."))

    def choice(self, key: str, allowed: Collection[str], default: Any = MISSING) -> str:
        """One word; a waiver is remembered where `"any"` is allowed."""
        value = toml.Table.choice(self, key, allowed, default)
        self.is_any(key, value)
        return value

    def names(self, key: str, allowed: Collection[str], default: Any = MISSING) -> frozenset[str] | None:
        """A set of words; None when waived."""
        write = f"{key} = {sorted(allowed)[:2]}"
        value = self.demand(key, default, write=write)
        if self.is_any(key, value):
            return None
        if not isinstance(value, list) or not all(each in allowed for each in value):
            raise self.error(key, f"holds something other than {', '.join(sorted(allowed))}", write)
        return frozenset(value)

    def texts(self, key: str, default: Any = MISSING, *, write: str) -> frozenset[str] | None:
        """A set of any texts; None when waived."""
        value = self.demand(key, default, write=write)
        if self.is_any(key, value):
            return None
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise self.error(key, "is no list of texts", write)
        return frozenset(value)

    def text(self, key: str, pattern: str, *, write: str, default: Any = MISSING, dated: bool = False) -> str:
        """One text that no waiver replaces. `dated`: a date or time may stand without quotes."""
        value = self.take(key, default, write=write)
        if dated and isinstance(value, date):  # a time is one too
            value = value.isoformat().replace("+00:00", "Z")
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise self.error(key, f"is {value!r}", write)
        return value
