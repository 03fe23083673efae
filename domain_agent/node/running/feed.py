"""What an engine says, as the run takes it: read ahead a little, in order, with a wake-up call.

One task reads the engine; the run sleeps until there is an event, the end, or a time of its own.
Reading ahead is bounded, so that a slow reader slows the engine.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from domain_agent.node.engine.client import Event
from schemas.errors import ComityError, Undecided

READ_AHEAD: Final = 16  # events: half a window of frames; one is what had come when the engine was looked at


class Feed:
    """The events of one run. Its owner enters it, takes events, and leaves; leaving stops the engine."""

    def __init__(self, events: AsyncGenerator[Event, None]) -> None:
        self._events = events
        self._ready: deque[Event] = deque()
        self._failure: ComityError | None = None
        self._ended = False
        self._awake: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Feed:
        self._task = asyncio.create_task(self._pump())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def take(self) -> Event | None:
        """The next event; None while there is none. Raises the engine's failure once all are taken."""
        if self._ready:
            if self._room and not self._room.done():
                self._room.set_result(None)
            return self._ready.popleft()
        if self._ended:
            raise self._failure or Undecided("engine.lost", "the engine's answer broke off")
        return None

    async def sleep(self, seconds: float) -> None:
        """Until there is something to take, until `wake`, or until the time is over."""
        if self._ready or self._ended:
            return
        loop = asyncio.get_running_loop()
        self._awake = loop.create_future()
        timer = loop.call_later(seconds, self.wake)
        try:
            await self._awake
        finally:
            timer.cancel()
            self._awake = None

    def wake(self) -> None:
        """End the sleep now."""
        if self._awake and not self._awake.done():
            self._awake.set_result(None)

    async def _pump(self) -> None:
        try:
            async with aclosing(self._events) as events:
                async for event in events:
                    self._ready.append(event)
                    self.wake()
                    if len(self._ready) >= READ_AHEAD:
                        self._room = asyncio.get_running_loop().create_future()
                        await self._room
        except ComityError as error:
            self._failure = error
        finally:
            self._ended = True
            self.wake()
