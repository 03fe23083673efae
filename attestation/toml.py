"""Reading a file of expectations so that nothing is open by omission.

Every key is taken by name and by kind; a key that nobody takes is a misspelling and an error; a
required key that is absent is an error that says what to write. `"any"` is the one waiver.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Final, TypeVar

from schemas.errors import ConfigurationError

ANY: Final = "any"
MAX_LISTED: Final = 10_000  # entries of one list: a fleet's measurements or chips
_MISSING: Final = object()
_T = TypeVar("_T")


@dataclass(slots=True)
class Table:
    """One table of the file while it is being read."""

    values: dict[str, Any]
    name: str
    source: str
    waived: list[str]
    """Collects `table.key` of each explicit waiver, across tables."""
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    """Key → name of the table that states it, where another overrides this one."""
    taken: set[str] = field(default_factory=set)

    def overridden(self, by: Table, waived: list[str]) -> Table:
        """This table with the other's keys in place of its own; an error names the one that states a key."""
        elsewhere = dict.fromkeys(by.values, by.name)
        return Table({**self.values, **by.values}, self.name, self.source, waived, elsewhere)

    def error(self, key: str, problem: str, write: str) -> ConfigurationError:
        return ConfigurationError(
            "expected.unset" if problem == "is not set" else "expected.invalid",
            f"{self.source}: {self._where(key)} {problem}; write {write}",
        )

    def _where(self, key: str) -> str:
        name = self.elsewhere.get(key, self.name)
        return f"[{name}] {key}" if name else key

    def take(self, key: str, default: Any = _MISSING, *, write: str) -> Any:
        """The value of `key`. Raises `ConfigurationError` when it is absent and has no default."""
        self.taken.add(key)
        value = self.values.get(key, default)
        if value is _MISSING:
            raise self.error(key, "is not set", f'{write} to demand it, or {key} = "{ANY}" to waive it')
        return value

    def is_any(self, key: str, value: Any) -> bool:
        """Whether the value is the waiver, which is then remembered by name."""
        if value == ANY:
            self.waived.append(f"{self.elsewhere.get(key, self.name)}.{key}")
        return bool(value == ANY)

    def states(self, key: str) -> bool:
        """Whether an optional key is there."""
        self.taken.add(key)
        return key in self.values

    def finish(self, *, except_for: Collection[str] = ()) -> None:
        """Raises `ConfigurationError` for a key that nobody asked for."""
        for key in self.values:
            if key not in self.taken and key not in except_for:
                known = ", ".join(sorted({*self.taken, *except_for}))
                raise ConfigurationError(
                    "expected.unknown_key", f"{self.source}: {self._where(key)} is not a key; known: {known}"
                )

    def digests(self, key: str, size: int) -> frozenset[bytes] | None:
        """A required set of byte strings of `size`, in hex; None when waived."""
        write = f'{key} = ["<{2 * size} hex digits>"]'
        value = self.take(key, write=write)
        if self.is_any(key, value):
            return None
        listed = [value] if isinstance(value, str) else value
        pattern = re.compile(rf"[0-9a-f]{{{2 * size}}}", re.IGNORECASE)
        if not isinstance(listed, list) or not 1 <= len(listed) <= MAX_LISTED:
            raise self.error(key, "is no list of hex", write)
        if not all(isinstance(each, str) and pattern.fullmatch(each) for each in listed):
            raise self.error(key, f"holds something other than {2 * size} hex digits", write)
        return frozenset(bytes.fromhex(each) for each in listed)

    def integers(self, key: str, low: int, high: int, default: Any = _MISSING) -> frozenset[int] | None:
        """A set of integers; None when waived."""
        write = f"{key} = [{low}]"
        value = self.take(key, default, write=write)
        if self.is_any(key, value):
            return None
        listed = value if isinstance(value, list) else [value]
        if not listed or not all(is_integer(each, low, high) for each in listed):
            raise self.error(key, f"holds something other than {low}..{high}", write)
        return frozenset(listed)

    def integer(self, key: str, low: int, high: int, default: Any = _MISSING) -> int | None:
        """One integer; None when waived."""
        write = f"{key} = {low}"
        value = self.take(key, default, write=write)
        if self.is_any(key, value):
            return None
        if not is_integer(value, low, high):
            raise self.error(key, f"is not between {low} and {high}", write)
        return int(value)

    def version(self, key: str, parts: int, default: Any = _MISSING) -> tuple[int, ...] | None:
        """A dotted version; None when waived or when the default is None."""
        write = f'{key} = "{".".join(["1"] * parts)}"'
        value = self.take(key, default, write=write)
        if value is None or self.is_any(key, value):
            return None
        if not isinstance(value, str) or not re.fullmatch(rf"\d{{1,3}}(\.\d{{1,3}}){{{parts - 1}}}", value):
            raise self.error(key, f"is not {parts} numbers with dots", write)
        return tuple(int(part) for part in value.split("."))

    def choice(self, key: str, allowed: Collection[str], default: str) -> str:
        """One word; a waiver is remembered where `"any"` is allowed."""
        value = self.take(key, default, write="")
        if value not in allowed:
            raise self.error(key, f"is {value!r}", " or ".join(f'{key} = "{each}"' for each in allowed))
        self.is_any(key, value)
        return str(value)

    def names(self, key: str, allowed: Collection[str], default: Any = _MISSING) -> frozenset[str] | None:
        """A set of words; None when waived."""
        write = f"{key} = {sorted(allowed)[:2]}"
        value = self.take(key, default, write=write)
        if self.is_any(key, value):
            return None
        if not isinstance(value, list) or not all(each in allowed for each in value):
            raise self.error(key, f"holds something other than {', '.join(sorted(allowed))}", write)
        return frozenset(value)

    def texts(self, key: str, default: Any = _MISSING, *, write: str) -> frozenset[str] | None:
        """A set of any texts; None when waived."""
        value = self.take(key, default, write=write)
        if self.is_any(key, value):
            return None
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise self.error(key, "is no list of texts", write)
        return frozenset(value)

    def text(self, key: str, pattern: str, *, write: str, dated: bool = False) -> str:
        """One required text that no waiver replaces. `dated`: a date or time may stand without quotes."""
        self.taken.add(key)
        value = self.values.get(key)
        if value is None:
            raise self.error(key, "is not set", write)
        if dated and isinstance(value, date):  # a time is one too
            value = value.isoformat().replace("+00:00", "Z")
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise self.error(key, f"is {value!r}", write)
        return value

    def child(self, key: str) -> Table:
        """The table inside, empty when absent. Raises `ConfigurationError` when it is none."""
        self.taken.add(key)
        value = self.values.get(key, {})
        if not isinstance(value, dict):
            raise self.error(key, "is no table", f"[{self.name}.{key}]" if self.name else f"[{key}]")
        outer = self.elsewhere.get(key, self.name)
        return Table(value, f"{outer}.{key}" if outer else key, self.source, self.waived)

    def children(self, key: str) -> list[Table]:
        """The array of tables of that name, empty when absent."""
        self.taken.add(key)
        value = self.values.get(key, [])
        if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
            raise self.error(key, "is no array of tables", f"[[{key}]]")
        if len(value) > MAX_LISTED:
            raise self.error(key, f"has more than {MAX_LISTED} entries", "fewer")
        return [Table(each, key, self.source, self.waived) for each in value]


def is_integer(value: Any, low: int, high: int) -> bool:
    """Whether a TOML value is an integer of that range (a boolean is none)."""
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
