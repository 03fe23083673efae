"""A program's TOML file, read strictly (schemas/toml.py), with what settings alone hold: paths and secrets.

Paths are relative to the file, so that a folder of configuration can be moved as a whole.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from schemas.errors import ConfigurationError
from schemas.keys import read_secret
from schemas.toml import MISSING, Table, is_integer, load_toml

MAX_FILE_BYTES: Final = 1024 * 1024  # a domain with hundreds of capabilities stays far below it
DOMAIN: Final = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)+"
TOKEN: Final = r"[A-Za-z0-9_-]{1,64}"  # noqa: S105 - a pattern, not a password
LABEL: Final = r"[\x21-\x7e]{1,128}"
DIGEST: Final = r"[0-9a-f]{64}"


@dataclass(slots=True)
class Section(Table):
    """One table of settings while it is being read."""

    def integer(self, key: str, low: int, high: int, *, unit: str, default: Any = MISSING) -> int:
        """A whole number between two bounds."""
        write = f"{key} = a number of {unit} from {low} to {high}"
        value = self.take(key, default, write=write)
        if not is_integer(value, low, high):
            raise self.error(key, f"is {value!r}", write)
        return int(value)

    def path(self, key: str, *, write: str) -> Path:
        """A path, relative to the file. Whether it exists is the reader's business."""
        return Path(self.source).parent / self.text(key, r"[^\0\n]{1,4096}", write=write)

    def public(self, key: str, *, write: str) -> bytes:
        """What stands in a file that is no secret: a certificate, a charter."""
        try:
            return read_public(self.path(key, write=write))
        except ConfigurationError as error:
            raise self.error(key, f"cannot be used: {error.text}", write) from None

    def secret(self, key: str, *, write: str) -> Path:
        """The path of a secret file that only its owner may read, relative to the file."""
        path = self.path(key, write=write)
        try:
            read_secret(path)
        except ConfigurationError as error:
            raise self.error(key, f"cannot be used: {error.text}", write) from None
        return path

    def texts(self, key: str, pattern: str, *, write: str, default: Any = MISSING) -> list[str]:
        """A list of texts that the pattern matches."""
        value = self.take(key, default, write=write)
        if not isinstance(value, list) or len(value) > self.MAX_LISTED:
            raise self.error(key, "is no list", write)
        if not all(isinstance(entry, str) and re.fullmatch(pattern, entry) for entry in value):
            raise self.error(key, "holds something that is not expected", write)
        return list(value)


def open_toml(path: Path) -> Section:
    """The file's top table. Raises `ConfigurationError` when it cannot be read as TOML."""
    return Section(path, "", load_toml(path, limit=MAX_FILE_BYTES, area="config"))


def read_public(path: Path) -> bytes:
    """A file that is no secret: a certificate, a charter. Raises `ConfigurationError`."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError("config.file", f"{path}: {error.strerror}") from None
