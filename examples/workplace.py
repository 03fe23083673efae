"""Folders and clocks of the demo. What it makes lies under `run/`; rounds never mix."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from schemas.errors import ConfigurationError
from schemas.lock import lock

MARK: Final = ".comity-demo"
"""A file that says: the folder beside it was made by the demo and may be removed by it. Also its lock."""


@contextmanager
def fresh_folder(path: Path) -> Iterator[Path]:
    """The path with nothing there, ours until the block is left.

    Removes what an earlier round left. Raises `ConfigurationError` for a folder of anybody else's,
    and while another round is running there.
    """
    mark = path.with_name(path.name + MARK)
    if path.exists() and not mark.exists():
        raise ConfigurationError("demo.folder", f"{path} was not made by the demo; choose another --run")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = lock(mark)
    except BlockingIOError:
        raise ConfigurationError("demo.running", f"another round runs in {path}; stop it first") from None
    try:
        if path.exists():
            shutil.rmtree(path)
        yield path
    finally:
        os.close(descriptor)


def waited() -> Callable[[], float]:
    """A stopwatch: call it to read the seconds since it was made."""
    began = time.monotonic()
    return lambda: time.monotonic() - began
