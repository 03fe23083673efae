"""A program's TOML file, read strictly: each key by name, kind and bounds, and nothing left over.

A key that nobody asked for is a misspelling; a missing one is an error that says what to write.
Paths are relative to the file, so that a folder of configuration can be moved as a whole.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from schemas.errors import ConfigurationError
from schemas.keys import read_secret

MAX_FILE_BYTES: Final = 1024 * 1024  # a domain with hundreds of capabilities stays far below it
MAX_LISTED: Final = 1024  # entries of one list or array of tables
DOMAIN: Final = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)+"
TOKEN: Final = r"[A-Za-z0-9_-]{1,64}"  # noqa: S105 - a pattern, not a password
LABEL: Final = r"[\x21-\x7e]{1,128}"
DIGEST: Final = r"[0-9a-f]{64}"

_MISSING: Final = object()


@dataclass(slots=True)
class Section:
    """One table of the file while it is being read."""

    file: Path
    name: str
    values: dict[str, Any]
    _taken: set[str] = field(default_factory=set)

    def error(self, key: str, problem: str, write: str) -> ConfigurationError:
        """An error that names file, section and key, and says what to write."""
        where = f"[{self.name}] {key}" if self.name else key
        return ConfigurationError("config.value", f"{self.file}: {where} {problem}; write {write}")

    def has(self, key: str) -> bool:
        return key in self.values

    def text(self, key: str, pattern: str, *, write: str, default: Any = _MISSING) -> str:
        """A text that the whole pattern matches."""
        value = self._take(key, write, default)
        if value is default:
            return str(value)
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise self.error(key, "is not what is expected", write)
        return value

    def choice(self, key: str, allowed: Collection[str], *, default: Any = _MISSING) -> str:
        """One of a few words."""
        write = " or ".join(f'{key} = "{word}"' for word in allowed)
        value = self._take(key, write, default)
        if value not in allowed:
            raise self.error(key, f"is {value!r}", write)
        return str(value)

    def integer(self, key: str, low: int, high: int, *, unit: str, default: Any = _MISSING) -> int:
        """A whole number between two bounds."""
        write = f"{key} = a number of {unit} from {low} to {high}"
        value = self._take(key, write, default)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self.error(key, f"is {value!r}", write)
        return value

    def path(self, key: str, *, write: str) -> Path:
        """A path, relative to the file. Whether it exists is the reader's business."""
        return self.file.parent / self.text(key, r".{1,4096}", write=write)

    def secret(self, key: str, *, write: str) -> Path:
        """The path of a secret file that only its owner may read, relative to the file."""
        path = self.path(key, write=write)
        try:
            read_secret(path)
        except ConfigurationError as error:
            raise self.error(key, f"cannot be used: {error.text}", write) from None
        return path

    def texts(self, key: str, pattern: str, *, write: str, default: Any = _MISSING) -> list[str]:
        """A list of texts that the pattern matches."""
        value = self._take(key, write, default)
        if not isinstance(value, list) or len(value) > MAX_LISTED:
            raise self.error(key, "is no list", write)
        if not all(isinstance(entry, str) and re.fullmatch(pattern, entry) for entry in value):
            raise self.error(key, "holds something that is not expected", write)
        return list(value)

    def section(self, key: str) -> Section:
        """The table of that name; empty when absent, so that its required keys name themselves."""
        self._taken.add(key)
        value = self.values.get(key, {})
        name = f"{self.name}.{key}" if self.name else key
        if not isinstance(value, dict):
            raise self.error(key, "is no table", f"[{name}]")
        return Section(self.file, name, value)

    def sections(self, key: str, *, least: int = 0) -> list[Section]:
        """The array of tables of that name."""
        self._taken.add(key)
        value = self.values.get(key, [])
        if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
            raise self.error(key, "is no array of tables", f"[[{key}]]")
        if not least <= len(value) <= MAX_LISTED:
            raise self.error(key, f"has {len(value)} entries", f"at least {least} of [[{key}]]")
        return [Section(self.file, f"{key}.{index}", entry) for index, entry in enumerate(value)]

    def finish(self) -> None:
        """Raise `ConfigurationError` for a key that nobody asked for."""
        for key in self.values:
            if key not in self._taken:
                known = ", ".join(sorted(self._taken))
                where = f"[{self.name}] {key}" if self.name else key
                raise ConfigurationError(
                    "config.unknown_key", f"{self.file}: {where} is not a key here; known: {known}"
                )

    def _take(self, key: str, write: str, default: Any) -> Any:
        self._taken.add(key)
        value = self.values.get(key, default)
        if value is _MISSING:
            raise self.error(key, "is not set", write)
        return value


def open_toml(path: Path) -> Section:
    """The file's top table. Raises `ConfigurationError` when it cannot be read as TOML."""
    try:
        data = path.read_bytes()
        if len(data) > MAX_FILE_BYTES:
            raise ConfigurationError("config.file", f"{path}: more than {MAX_FILE_BYTES} bytes")
        return Section(path, "", tomllib.loads(data.decode("utf-8")))
    except OSError as error:
        raise ConfigurationError("config.file", f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigurationError("config.file", f"{path}: {error}") from None


def read_public(path: Path) -> bytes:
    """A file that is no secret: a certificate, a charter. Raises `ConfigurationError`."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError("config.file", f"{path}: {error.strerror}") from None
