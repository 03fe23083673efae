"""One agent for each folder of state: two would sell the same slots, and contradict each other abroad."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from schemas.errors import ConfigurationError
from schemas.lock import lock

LOCK: Final = "agent.lock"


@contextmanager
def alone(state: Path) -> Iterator[None]:
    """Be the only agent with this state. However this process ends, the system gives the lock back.

    Raises `ConfigurationError` where another one runs, or the folder cannot be written.
    """
    try:
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = lock(state / LOCK)
    except BlockingIOError:
        raise ConfigurationError(
            "agent.state",
            f"{state}: another agent runs with this state; stop it, or write another folder",
        ) from None
    except OSError as error:
        raise ConfigurationError(
            "agent.state", f"{state}: {error.strerror}; write state = a folder"
        ) from None
    try:
        yield
    finally:
        os.close(descriptor)
