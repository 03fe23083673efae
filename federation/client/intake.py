"""A served subject from which single senders can be shut out, at the server (nats.md 8).

A bucket protects the handler, but every dropped message has still crossed our one socket, in order,
before everyone else's. So a sender that keeps on flooding is no longer subscribed to: for a while the
wildcard gives way to one subscription for each other sender, and the server drops the flood.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from typing import TYPE_CHECKING, Final

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from federation.accounts import account

if TYPE_CHECKING:
    from federation.connection import Bus

SHUT_S: Final = 10.0  # s that a first offence costs; each further one twice as much
MAX_SHUT_S: Final = 300.0  # s, however many offences there were
MAX_DOUBLINGS: Final = 16  # of SHUT_S: far beyond MAX_SHUT_S, and far from what no float holds (1,024)
MAX_EXPLICIT: Final = 256  # senders; with more, nobody is shut out and only the buckets protect

STRANGERS: Final = "strangers"  # all who may not send here: shut out together, however many names they have

Senders = Callable[[], Collection[str]]
_log = logging.getLogger("comity.bus")


class Intake:
    """The subscriptions of one served pattern.

    senders: who may send here, as of now (domains of the charter; a domain's nodes). Without it nobody
    is ever shut out. What had arrived before, from whomever, is still handed over.
    unreadable: told the subject of each message that the client could not read, to charge its sender.
    """

    def __init__(
        self,
        bus: Bus,
        pattern: str,
        callback: Callable[[Msg], None],
        *,
        queue: str = "",
        senders: Senders | None = None,
        unreadable: Callable[[str], None] | None = None,
    ) -> None:
        self.pattern = pattern
        self.shut: dict[str, float] = {}
        """Senders that are shut out, and for how many seconds."""
        self._bus = bus
        self._callback = callback
        self._unreadable = unreadable
        self._queue = queue
        self._senders = senders
        self._offences: dict[str, int] = {}
        self._subscriptions: dict[str, Subscription] = {}
        self._arranging = asyncio.Lock()
        self._timers: set[asyncio.TimerHandle] = set()
        self._closed = False

    async def open(self) -> None:
        self._bus.on_reconnect(self._arrange)  # what an outage kept from being arranged
        await self._arrange()

    async def close(self) -> None:
        """Receive nothing more."""
        self._closed = True
        for timer in self._timers:
            timer.cancel()
        await self._arrange()

    def shut_out(self, sender: str) -> None:
        """Stop listening to a sender for a while. Harmless when it is shut out, or nobody may be."""
        if not self._senders or self._closed:
            return
        senders = self._senders()
        sender = sender if sender in senders else STRANGERS
        if sender in self.shut or len(senders) > MAX_EXPLICIT or "*" not in self.pattern:
            return
        offences = self._offences[sender] = self._offences.get(sender, 0) + 1
        seconds = self.shut[sender] = min(MAX_SHUT_S, SHUT_S * 2 ** min(offences - 1, MAX_DOUBLINGS))
        _log.warning(
            "a flooding sender is shut out",
            extra={
                "sender": sender,
                "pattern": self.pattern,
                "seconds": seconds,
                "bus": self._bus.settings.name,
            },
        )
        self._later(seconds, sender)
        self._bus.spawn(self._arrange)

    def _later(self, seconds: float, sender: str) -> None:
        def readmit() -> None:
            self._timers.discard(timer)
            self.shut.pop(sender, None)
            self._bus.spawn(self._arrange)

        timer = asyncio.get_running_loop().call_later(seconds, readmit)
        self._timers.add(timer)

    async def _arrange(self) -> None:
        """Bring the subscriptions in line with `shut`: first less, then more, so nothing comes twice."""
        async with self._arranging:
            wanted = self._wanted()
            for pattern in list(self._subscriptions.keys() - wanted):
                await self._bus.drain(self._subscriptions.pop(pattern))
            for pattern in wanted - self._subscriptions.keys():
                self._subscriptions[pattern] = await self._subscribe(pattern)

    def _subscribe(self, pattern: str) -> Awaitable[Subscription]:
        return self._bus.subscribe(pattern, self._callback, queue=self._queue, unreadable=self._unreadable)

    def _wanted(self) -> set[str]:
        if self._closed:
            return set()
        if not self.shut or not self._senders:
            return {self.pattern}
        return {self._explicit(sender) for sender in self._senders() if sender not in self.shut}

    def _explicit(self, sender: str) -> str:
        token = account(sender) if self.pattern.startswith("fed.") else sender
        return self.pattern.replace("*", token, 1)
