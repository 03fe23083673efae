"""Files that people name, read bounded, and new ones that stay.

A device has no size, and what is too long is never read whole.
"""

from __future__ import annotations

import os
from pathlib import Path

from schemas.errors import ConfigurationError


def read_up_to(path: Path, limit: int, code: str) -> bytes:
    """At most one byte more than the limit, so that the parser can say that it is too long. limit: bytes.

    Raises `ConfigurationError` with this code where there is nothing to read.
    """
    try:
        with path.open("rb") as file:
            return file.read(limit + 1)
    except OSError as error:
        raise ConfigurationError(code, f"{path}: {error.strerror}") from None


def sync_folder(folder: Path) -> None:
    """A new file is on disk when its name is. Raises `OSError`."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
