"""Files that nobody but their owner reads, from their first byte on: mode 0600, whatever the umask allows."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def opener(path: str, flags: int) -> int:
    """For `open`: a file that it makes is private. Raises `OSError`."""
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def make(path: Path) -> None:
    """An empty private file, where there is none. Raises `OSError`.

    For SQLite, which gives a write-ahead log and its index the mode of their database. One that is there is
    not opened: closing it again would give up the locks that this process holds on it.
    """
    target = os.path.realpath(path)  # what a link leads to is made, as SQLite does it
    with contextlib.suppress(FileExistsError):
        os.close(opener(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
