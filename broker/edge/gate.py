"""How many requests are inside at once, who waits, and how everything ends when the broker drains.

A request enters before its body is read, runs when there is a place, and leaves. Waiting ones are
served by priority, then deadline, then arrival (routing.md 3). Nothing here survives the process.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Final

from broker.problems import RequestProblem, Shed, Unavailable
from broker.starting.config import Limits
from schemas.descriptors.request import RequestDescriptor
from schemas.primitives import parse_time

MIN_RETRY_MS: Final = 1_000
MAX_RETRY_MS: Final = 60_000
SMOOTHING: Final = 0.1  # weight of the newest service time in the running mean
FIRST_MEAN_S: Final = 1.0  # seconds; the mean before anything was measured
ENDING_S: Final = 2.0  # seconds for cancelled requests to tell their callers

_SERVICE_ORDER: Final = {"interactive": 0, "standard": 1, "batch": 2}


@dataclass(eq=False, slots=True)
class Inside:
    """One request that is inside. `ended_by` says why it was cancelled, when we did it."""

    task: asyncio.Task[object]
    ended_by: RequestProblem | None = None
    caller_left: bool = False
    running: bool = False

    def stop(self, problem: RequestProblem) -> None:
        """Cancel it; its caller is told this problem."""
        if self.ended_by is None and not self.caller_left:
            self.ended_by = problem
            self.task.cancel()

    def leave(self) -> None:
        """Cancel it; there is no caller any more."""
        if self.ended_by is None and not self.caller_left:
            self.caller_left = True
            self.task.cancel()


@dataclass(order=True, slots=True)
class _Waiting:
    rank: tuple[int, int, float, int]
    place: asyncio.Future[None] = field(compare=False)


class Gate:
    """Bounded admission for one broker. Owned by its event loop."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.draining = False
        self._inside: set[Inside] = set()
        self._waiting: list[_Waiting] = []
        self._running = 0
        self._arrivals = 0
        self._mean_s = FIRST_MEAN_S
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def running(self) -> int:
        return self._running

    @property
    def queued(self) -> int:
        return len(self._inside) - self._running

    @contextmanager
    def enter(self) -> Iterator[Inside]:
        """Count the current task as inside. Raises `Unavailable` when draining, `Shed` when full."""
        if self.draining:
            raise Unavailable("broker.draining", "this broker is shutting down")
        if len(self._inside) >= self.limits.running + self.limits.queued:
            raise self._shed("queue_full", "too many requests are waiting")
        task = asyncio.current_task()
        assert task is not None
        inside = Inside(task)
        self._inside.add(inside)
        self._empty.clear()
        try:
            yield inside
        finally:
            self._inside.discard(inside)
            if not self._inside:
                self._empty.set()

    @asynccontextmanager
    async def run(self, inside: Inside, descriptor: RequestDescriptor) -> AsyncIterator[None]:
        """Wait for a place, hold it, hand it on. Raises `Shed` when none becomes free in time."""
        if self._running < self.limits.running:
            self._running += 1
        else:
            await self._wait(descriptor)
        inside.running, started = True, time.monotonic()
        try:
            yield
        finally:
            inside.running = False
            self._mean_s += SMOOTHING * (time.monotonic() - started - self._mean_s)
            self._give_back()

    async def _wait(self, descriptor: RequestDescriptor) -> None:
        self._arrivals += 1
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = _Waiting(_rank(descriptor, self._arrivals), place)
        heapq.heappush(self._waiting, waiting)
        try:
            async with asyncio.timeout(self.limits.queue_ms / 1000):
                await place
        except BaseException as error:
            if place.done() and not place.cancelled():
                self._give_back()  # the place came at the same moment: it goes to the next one
            elif waiting in self._waiting:
                self._waiting.remove(waiting)
                heapq.heapify(self._waiting)
            if isinstance(error, TimeoutError):
                raise self._shed("queue_timeout", "no place became free in time") from None
            raise

    def _give_back(self) -> None:
        """Free one place; whoever waits longest by rank has it at once."""
        self._running -= 1
        while self._waiting and self._running < self.limits.running:
            waiting = heapq.heappop(self._waiting)
            if not waiting.place.done():
                self._running += 1
                waiting.place.set_result(None)

    def _shed(self, code: str, text: str) -> Shed:
        expected_ms = 1000 * self._mean_s * (self.queued + 1) / self.limits.running
        wait = min(MAX_RETRY_MS, max(MIN_RETRY_MS, int(expected_ms)))
        return Shed(f"broker.{code}", text, retry_after_ms=wait)

    async def drain(self) -> None:
        """Let nobody in, let those inside finish until the limit, then end them in type."""
        self.draining = True
        try:
            async with asyncio.timeout(self.limits.drain_ms / 1000):
                await self._empty.wait()
        except TimeoutError:
            for inside in list(self._inside):
                inside.stop(
                    Unavailable("broker.drained", "this broker shut down before the answer was complete")
                )
            try:
                async with asyncio.timeout(ENDING_S):
                    await self._empty.wait()
            except TimeoutError:
                return


def _rank(descriptor: RequestDescriptor, arrival: int) -> tuple[int, int, float, int]:
    """Order of service: class, then priority 5 before 1, then earliest deadline, then arrival."""
    deadline = parse_time(descriptor.deadline).timestamp() if descriptor.deadline else math.inf
    return _SERVICE_ORDER[descriptor.service_class], -descriptor.priority, deadline, arrival
