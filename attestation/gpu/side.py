"""Signature checks side by side: under way while the rest is read, each once.

Public-key operations are most of what an appraisal of new devices costs, they wait for nothing, and they let
go of the interpreter's lock. What one finds is told where its result is asked for: neither a verdict nor the
order of reasons depends on which was the faster.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Any, Final, Protocol, Self, TypeVar

MAX_THREADS: Final = 4  # of one appraisal: with more, what is read in between takes the time

T = TypeVar("T")


class Start(Protocol):
    """Begins a check of bytes. What comes back gives its result, or raises its error.

    `functools.partial` is one: it begins when the result is asked for.
    """

    def __call__(self, check: Callable[..., T], /, *given: bytes) -> Callable[[], T]: ...


class SideBySide:
    """Threads for the length of one appraisal; none before the first check, and none on one processor.

    The same check of the same bytes is made once. Leaving ends the threads, and drops what nobody waited for.
    """

    __slots__ = ("_begun", "_pool", "_threads")

    def __init__(self) -> None:
        self._threads = min(MAX_THREADS, len(os.sched_getaffinity(0)))
        self._pool: ThreadPoolExecutor | None = None
        self._begun: dict[tuple[Callable[..., Any], tuple[bytes, ...]], Future[Any]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def __call__(self, check: Callable[..., T], /, *given: bytes) -> Callable[[], T]:
        """As `Start`."""
        if self._threads < 2:
            return partial(check, *given)
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="comity-signatures")
        begun = self._begun.get((check, given))
        if begun is None:
            begun = self._begun[check, given] = self._pool.submit(check, *given)
        return begun.result
