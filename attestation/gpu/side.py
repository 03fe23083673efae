"""Signature checks side by side: noted while everything is read, then made by several threads, each once.

Public-key operations are most of what an appraisal of new devices costs, they wait for nothing, and they let
go of the interpreter's lock. Reading holds it, so it comes first. What a check finds is told where its result
is asked for: neither a verdict nor the order of reasons depends on who made it, and when.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from threading import Lock, Thread
from types import TracebackType
from typing import Any, Final, Protocol, Self, TypeVar

MAX_THREADS: Final = 4  # of one appraisal, with the caller: with more, what is between checks takes the time

T = TypeVar("T")


class Start(Protocol):
    """Begins a check of bytes, or of what was read from them. What comes back gives its result or raises.

    `functools.partial` is one: it begins when the result is asked for.
    """

    def __call__(self, check: Callable[..., T], /, *given: Hashable) -> Callable[[], T]: ...


class SideBySide:
    """Notes checks; while it is entered, they are made: the first by who asks, the last by threads.

    Whoever asks for what nobody has begun makes it, and waits only where both meet: who sleeps is slow to
    wake. The same check of the same bytes is made once. On one processor, and for one check, there are no
    threads. Leaving ends them, and drops what nobody asked for.
    """

    __slots__ = ("_noted", "_threads", "_waiting")

    def __init__(self) -> None:
        self._noted: dict[tuple[Callable[..., Any], tuple[Hashable, ...]], _Once] = {}
        self._waiting: list[_Once] = []
        self._threads: list[Thread] = []

    def __call__(self, check: Callable[..., T], /, *given: Hashable) -> Callable[[], T]:
        """As `Start`."""
        noted = self._noted.get((check, given))
        if noted is None:
            noted = self._noted[check, given] = _Once(partial(check, *given))
        return noted.result

    def __enter__(self) -> Self:
        self._waiting = list(self._noted.values())
        for _ in range(1, min(MAX_THREADS, len(os.sched_getaffinity(0)), len(self._waiting))):
            thread = Thread(target=self._work, name="comity-signatures")
            with suppress(RuntimeError):  # no more are to be had: the caller makes what is left
                thread.start()
                self._threads.append(thread)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._waiting.clear()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while True:
            try:
                noted = self._waiting.pop()
            except IndexError:
                return
            noted.make()


class _Once:
    """A check, made by whoever comes first."""

    __slots__ = ("_begun", "_check", "_found")

    def __init__(self, check: Callable[[], Any]) -> None:
        self._check = check
        self._begun = Lock()
        self._found: Future[Any] = Future()

    def make(self) -> None:
        if not self._begun.acquire(blocking=False):
            return
        try:
            self._found.set_result(self._check())
        except BaseException as error:  # told to who asks
            self._found.set_exception(error)

    def result(self) -> Any:
        """What was found; waits where another thread is at it. Raises the check's error."""
        self.make()
        return self._found.result()
