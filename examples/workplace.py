"""Folders and clocks of the demo. What it makes lies under `run/`; rounds never mix."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from schemas.errors import ConfigurationError

MARK: Final = ".comity-demo"
"""A file that says: this folder was made by the demo and may be removed by it."""


def fresh_folder(path: Path) -> Path:
    """The path, with nothing there. Removes what an earlier round left; refuses anything else."""
    if path.exists() and not path.with_name(path.name + MARK).exists():
        raise ConfigurationError("demo.folder", f"{path} was not made by the demo; choose another --run")
    if path.exists():
        shutil.rmtree(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name(path.name + MARK).touch()
    return path


def waited() -> Callable[[], float]:
    """A stopwatch: call it to read the seconds since it was made."""
    began = time.monotonic()
    return lambda: time.monotonic() - began
