"""Disks that are full, or that cannot say that they hold what was written."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock


@contextmanager
def full_at(size: int) -> Iterator[None]:
    """No file of this process grows beyond so many bytes: what does not fit of a write is left out."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def never_synced() -> Iterator[None]:
    """Everything is taken, and nothing is known to be there."""
    with mock.patch("os.fsync", side_effect=OSError(errno.EIO, os.strerror(errno.EIO))):
        yield
