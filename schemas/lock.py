"""One process at a time: a lock on a file that the operating system gives back, however its holder dies."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def lock(path: Path) -> int:
    """The descriptor that holds the lock until it is closed; the file is made where it is not there.

    Raises `BlockingIOError` where another process holds it, another `OSError` for the file.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
