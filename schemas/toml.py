"""TOML files of people: read whole and strictly, each key by name, kind and bounds, and nothing left over.

A key that nobody asked for is a misspelling; a missing one is an error that says what to write. What
a room's own files need beyond that (waivers, paths, secrets) stands in that room.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final, Self

from schemas.errors import ConfigurationError
from schemas.files import read_up_to

MISSING: Final = object()
"""In place of a default: the key must be there."""


def load_toml(path: Path, *, limit: int, area: str) -> dict[str, Any]:
    """The document in a file. Raises `ConfigurationError` (`AREA.file` or `AREA.syntax`). limit: bytes."""
    return parse_toml(read_up_to(path, limit, f"{area}.file"), str(path), limit=limit, area=area)


def parse_toml(data: bytes, source: str, *, limit: int, area: str) -> dict[str, Any]:
    """The document in these bytes. Raises `ConfigurationError` and nothing else, whatever they are."""
    if len(data) > limit:
        raise ConfigurationError(f"{area}.file", f"{source}: more than {limit} bytes")
    try:
        return tomllib.loads(data.decode("utf-8-sig"))  # editors on Windows begin a file with a mark
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{area}.syntax", f"{source}: not TOML: {error}") from None


@dataclass(slots=True)
class Table:
    """One table of a file while it is being read."""

    source: str | Path
    name: str
    """Dotted; empty for the document itself."""
    values: Mapping[str, Any]
    taken: set[str] = field(default_factory=set, kw_only=True)

    UNSET: ClassVar[str] = "config.value"
    INVALID: ClassVar[str] = "config.value"
    UNKNOWN: ClassVar[str] = "config.unknown_key"
    MAX_LISTED: ClassVar[int] = 1024  # entries of one list or array of tables

    def error(self, key: str, problem: str, write: str) -> ConfigurationError:
        """An error that names file, table and key, and says what to write."""
        code = self.UNSET if problem == "is not set" else self.INVALID
        return ConfigurationError(code, f"{self.source}: {self.where(key)} {problem}; write {write}")

    def where(self, key: str) -> str:
        """The key with its table, as people say it."""
        return f"[{self.name}] {key}" if self.name else key

    def has(self, key: str) -> bool:
        """Whether an optional key is there. It is not taken by that."""
        return key in self.values

    def take(self, key: str, default: Any = MISSING, *, write: str) -> Any:
        """The value of `key`. Raises `ConfigurationError` when it is absent and has no default."""
        self.taken.add(key)
        value = self.values.get(key, default)
        if value is MISSING:
            raise self.error(key, "is not set", write)
        return value

    def text(self, key: str, pattern: str, *, write: str, default: Any = MISSING) -> str:
        """A text that the whole pattern matches."""
        value = self.take(key, default, write=write)
        if value is not default and not (isinstance(value, str) and re.fullmatch(pattern, value)):
            raise self.error(key, "is not what is expected", write)
        return str(value)

    def choice(self, key: str, allowed: Collection[str], default: Any = MISSING) -> str:
        """One of a few words."""
        write = " or ".join(f'{key} = "{word}"' for word in allowed)
        value = self.take(key, default, write=write)
        if value not in tuple(allowed):
            raise self.error(key, f"is {value!r}", write)
        return str(value)

    def child(self, key: str) -> Self:
        """The table inside, empty when absent, so that its required keys name themselves."""
        self.taken.add(key)
        value, name = self.values.get(key, {}), self.inside(key)
        if not isinstance(value, dict):
            raise self.error(key, "is no table", f"[{name}]")
        return self.of(name, value)

    def children(self, key: str, *, least: int = 0) -> list[Self]:
        """The array of tables of that name, empty when absent."""
        self.taken.add(key)
        value, name = self.values.get(key, []), self.inside(key)
        if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
            raise self.error(key, "is no array of tables", f"[[{name}]]")
        if not least <= len(value) <= self.MAX_LISTED:
            bound = f"at least {least}" if len(value) < least else f"at most {self.MAX_LISTED}"
            raise self.error(key, f"has {len(value)} entries", f"{bound} of [[{name}]]")
        return [self.of(f"{name}.{index}", entry) for index, entry in enumerate(value)]

    def finish(self, *, except_for: Collection[str] = ()) -> None:
        """Raises `ConfigurationError` for a key that nobody asked for."""
        for key in self.values:
            if key not in self.taken and key not in except_for:
                known = ", ".join(sorted({*self.taken, *except_for}))
                raise ConfigurationError(
                    self.UNKNOWN, f"{self.source}: {self.where(key)} is not a key here; known: {known}"
                )

    def inside(self, key: str) -> str:
        """The name of a table inside this one."""
        return f"{self.name}.{key}" if self.name else key

    def of(self, name: str, values: Mapping[str, Any]) -> Self:
        """Another table of the same file."""
        return type(self)(self.source, name, values)


def is_integer(value: Any, low: int, high: int) -> bool:
    """Whether a TOML value is an integer of that range (a boolean is none)."""
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
