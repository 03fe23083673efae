"""The two clocks that the interior goes by, so that tests can bring their own."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True, slots=True)
class Clock:
    """`wall` for what others read (POSIX seconds), `steady` for waiting (seconds from anywhere)."""

    wall: Callable[[], float] = time.time
    steady: Callable[[], float] = time.monotonic

    def now(self) -> datetime:
        """The wall clock as a UTC moment."""
        return datetime.fromtimestamp(self.wall(), UTC)
