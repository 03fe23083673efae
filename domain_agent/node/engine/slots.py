"""Who may use which engine slot, so that no two scopes ever share cached state (session.md 4).

A slot remembers the scope whose tokens it holds. The same scope gets it back with its cache; any
other gets it empty. Requests wait in order of arrival, and only so many.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

from schemas.errors import Refused, Undecided

WAITING_PER_SLOT: Final = 64  # requests that may wait for one slot; beyond it the node is busy


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose state it is. Equal scopes may share; a request without a scope shares with nobody."""

    owner: str
    """The consumer domain, or `*` for public state."""
    kind: str
    key: str


@dataclass(slots=True)
class Slot:
    """One place in the engine, owned by at most one run at a time."""

    index: int
    holds: Scope | None = None
    """Whose tokens lie in it; None when it is empty or must not be reused."""
    used: float = 0.0
    """Monotonic seconds of its last release."""
    generation: int = field(default=0, repr=False)


@dataclass(frozen=True, slots=True)
class Seat:
    """A slot for one run."""

    index: int
    reuse: bool
    """True when what the slot holds is this scope's own."""


Erase = Callable[[int], Awaitable[None]]


class SlotTable:
    """The engine's slots. One per node, on its event loop; a crash forgets it with the engine."""

    def __init__(self, count: int, *, erase: Erase | None = None) -> None:
        self._free = [Slot(index) for index in range(count)]
        self._waiting: deque[tuple[Scope | None, asyncio.Future[Slot]]] = deque()
        self._erase = erase
        self._erasing: set[asyncio.Task[None]] = set()
        self._timers: set[asyncio.TimerHandle] = set()
        self.count = count

    @property
    def busy(self) -> int:
        return self.count - len(self._free)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @asynccontextmanager
    async def seat(self, scope: Scope | None, *, retention_s: int = 0) -> AsyncIterator[Seat]:
        """A slot for as long as the block lasts. Raises `Undecided` (`node.busy`) when too many wait.

        retention_s: how long the scope allows its state to lie in the engine after the run.
        """
        slot = await self._take(scope)
        reuse = scope is not None and slot.holds == scope
        slot.generation += 1
        try:
            yield Seat(slot.index, reuse)
        finally:
            kept = scope if scope is not None and retention_s > 0 else None
            self._done(slot, kept, retention_s)

    async def close(self) -> None:
        """Stop every timer and let erasures end."""
        for timer in self._timers:
            timer.cancel()
        if self._erasing:
            await asyncio.gather(*self._erasing, return_exceptions=True)

    async def _take(self, scope: Scope | None) -> Slot:
        if self._free and not self._waiting:
            return self._pick(scope)
        if len(self._waiting) >= WAITING_PER_SLOT * self.count:
            raise Undecided("node.busy", "too many requests wait for a slot")
        future: asyncio.Future[Slot] = asyncio.get_running_loop().create_future()
        waiting = (scope, future)
        self._waiting.append(waiting)
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self._give(future.result())
            with suppress(ValueError):  # who left takes nobody's place in the queue
                self._waiting.remove(waiting)
            raise

    def _pick(self, scope: Scope | None) -> Slot:
        """Its own state first, then an empty slot, then the one unused longest."""
        chosen = min(
            self._free,
            key=lambda slot: (scope is None or slot.holds != scope, slot.holds is not None, slot.used),
        )
        self._free.remove(chosen)
        return chosen

    def _done(self, slot: Slot, kept: Scope | None, retention_s: int) -> None:
        slot.holds, slot.used = kept, time.monotonic()
        if kept is None:
            self._empty(slot)
            return
        self._give(slot)
        loop, generation = asyncio.get_running_loop(), slot.generation
        self._timers = {
            timer for timer in self._timers if not timer.cancelled() and timer.when() > loop.time()
        }
        self._timers.add(loop.call_later(retention_s, self._forget, slot, generation))

    def _forget(self, slot: Slot, generation: int) -> None:
        """The retention of an idle slot's state is over."""
        if slot.generation == generation and slot in self._free:
            self._free.remove(slot)
            slot.holds = None
            self._empty(slot)

    def _empty(self, slot: Slot) -> None:
        """Erase the slot before anyone gets it; the engine's answer is not waited for by the run."""
        if self._erase is None:
            self._give(slot)
            return
        task = asyncio.get_running_loop().create_task(self._erased(slot))
        self._erasing.add(task)
        task.add_done_callback(self._erasing.discard)

    async def _erased(self, slot: Slot) -> None:
        try:
            assert self._erase
            await self._erase(slot.index)
        except (Refused, Undecided):
            pass  # the next run starts it without its cache, which discards the state as well
        finally:
            self._give(slot)

    def _give(self, slot: Slot) -> None:
        self._free.append(slot)
        while self._waiting and self._free:
            scope, future = self._waiting.popleft()
            if not future.done():
                future.set_result(self._pick(scope))
