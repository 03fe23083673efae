"""The answering side of a stream: sends as far as the reader's credit goes, and hears it cancel.

One control subscription per served subject carries credit, long bodies and cancellations of all
its streams. A lost connection cancels every stream at once: what would be sent now reaches nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from nats.aio.msg import Msg

from federation.client.intake import Intake, Senders
from federation.flood import FloodGate, FloodLimits
from federation.serving import Inbound, Serving, failure_line, new_token, parse
from federation.streaming import frames
from federation.streaming.frames import BODY_WINDOW, WINDOW, Frame, Opening
from schemas.errors import ComityError, ConfigurationError, Refused, Undecided, Unreadable

if TYPE_CHECKING:
    from federation.connection import Bus

MAX_STREAMS: Final = 256  # running at once per served subject
MAX_STREAMS_PER_SENDER: Final = 128  # so that one peer leaves room for the others
MAX_HELD_BYTES: Final = 256 * 1024 * 1024
"""Of the bodies that all running streams announce; one sender's share of it is its share of the streams."""
CREDIT_STALL_S: Final = 30.0  # s without a word from a reader that we wait for
CONTROLS_BESIDE: Final = 32  # control frames of a stream beside one for each frame and part that it carried
CONTROLS_PER_S: Final = 4.0  # more of them a second: a reader that looks whether we live sends less than one
TELL_S: Final = 5.0  # s to be reconnected and still tell the reader that its stream is lost
STOP_S: Final = 5.0  # s for running streams to end when serving stops
TICK_S: Final = 0.5

STRAYS: Final = FloodLimits(rate=2000, burst=4000)  # control frames of ended streams, per sender

StreamHandler = Callable[[Inbound, "Responder"], Awaitable[None]]
_log = logging.getLogger("comity.bus")


class Responder:
    """One stream that a handler answers: `receive_body`, then `send` as often as needed, then `end`."""

    def __init__(self, bus: Bus, inbound: Inbound, opening: Opening, token: str) -> None:
        self.inbound = inbound
        self.id = secrets.token_bytes(frames.ID_BYTES)
        self.announced = opening.total_bytes
        self.cancelled = asyncio.Event()
        """Set when the requester left, the connection was lost, or serving stops."""
        self.finished = False
        self._bus = bus
        self._token = token
        self._parts = list(opening.parts)
        self._total = (opening.total_parts, opening.total_bytes)
        self._held = sum(map(len, opening.parts))
        self._body_messages = 0
        self._sequence = 0  # answer frames sent
        self._data = 0  # data frames sent
        self._credit = WINDOW
        self._heard = 0  # control frames received
        self._opened_at = self._heard_at = self._waiting_since = time.monotonic()
        self._waiters: set[asyncio.Future[None]] = set()
        self._reason: ComityError | None = None
        self._on_cancel: list[Callable[[], None]] = []

    async def open(self) -> None:
        """Say where control frames go."""
        await self._publish(frames.OPENED, frames.opened(self._token, self.id))

    async def receive_body(self) -> tuple[bytes, ...]:
        """All parts of the body, in order. Raises `Undecided` (cancelled, lost, stalled) or `Refused`."""
        while len(self._parts) < self._total[0]:
            await self._wait()
        return tuple(self._parts)

    async def send(self, payload: bytes) -> None:
        """Send one frame when the reader has credit for it.

        Raises `Undecided` with `stream.cancelled`, `stream.lost` or `stream.stalled`, or `Refused` (size).
        """
        if len(payload) > frames.MAX_FRAME_BYTES:
            raise Refused("stream.frame_too_long", f"{len(payload)} bytes")
        self._check()
        while self._data >= self._credit:
            await self._wait()
        self._data += 1
        await self._publish(frames.DATA, payload)

    async def end(self) -> None:
        """Say that everything was sent. What was sent proves itself; this is transport."""
        self._check()
        self.finished = True
        await self._publish(frames.END)

    async def fail(self, error: ComityError) -> None:
        """End the stream with an error; the requester gets its kind, code and text."""
        if self.finished:
            return
        self.finished = True
        try:
            if not await self._bus.wait_connected(TELL_S):
                return
            await self._publish(frames.ERROR, failure_line(error).encode("ascii"))
        except ComityError:
            self._bus.streams["untold"] += 1

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Call this once when the stream is cancelled; at once if it is already."""
        if self.cancelled.is_set():
            callback()
        else:
            self._on_cancel.append(callback)

    def cancel(self, reason: ComityError) -> None:
        """Wake whoever waits, with `reason`."""
        if self._reason:
            return
        self._reason = reason
        self.cancelled.set()
        self._wake()
        for callback in self._on_cancel:
            callback()

    def receive(self, frame: Frame) -> None:
        """One control frame of this stream."""
        try:
            if frame.sequence != self._heard:
                raise Undecided("stream.gap", f"control frame {self._heard} was lost or came twice")
            self._heard += 1
            self._heard_at = time.monotonic()
            self._check_pace()
            self._take(frame)
        except ComityError as error:
            self.cancel(error)

    def _check_pace(self) -> None:
        """A reader speaks of what it reads; one that says more floods us, and nothing else would count it.

        Raises `Refused` (`stream.overrun`).
        """
        due = self._data + len(self._parts) + CONTROLS_PER_S * (self._heard_at - self._opened_at)
        if self._heard > due + CONTROLS_BESIDE:
            raise Refused("stream.overrun", "more control frames came than there is anything to say")

    def tick(self, now: float) -> None:
        if self._waiters and now - max(self._heard_at, self._waiting_since) > CREDIT_STALL_S:
            self.cancel(Undecided("stream.stalled", f"the reader said nothing for {CREDIT_STALL_S:g} s"))

    def _take(self, frame: Frame) -> None:
        if frame.kind == frames.CANCEL:
            raise Undecided("stream.cancelled", "the requester left the stream")
        if frame.kind == frames.CREDIT:
            self._credit = min(max(self._credit, frames.count(frame.payload)), self._data + WINDOW)
        else:
            self._take_body(frames.read_parts(frame.payload))
        self._wake()

    def _take_body(self, parts: tuple[bytes, ...]) -> None:
        self._parts += parts
        self._held += sum(map(len, parts))
        self._body_messages += 1
        complete = len(self._parts) == self._total[0]
        if len(self._parts) > self._total[0] or self._held > self._total[1]:
            raise Refused("stream.body_too_long", "more of the body came than was announced")
        if complete and self._held != self._total[1]:
            raise Refused("stream.body_short", "less of the body came than was announced")
        if not complete:
            self._bus.spawn(self._want)

    async def _want(self) -> None:
        leave = self._body_messages + BODY_WINDOW
        if not self.finished:
            await self._publish(frames.WANT, leave.to_bytes(4, "big"))

    def _check(self) -> None:
        if self._reason:
            raise self._reason
        if self.finished:
            raise Refused("stream.finished", "the stream has ended already")

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _wait(self) -> None:
        self._check()
        if not self._waiters:
            self._waiting_since = time.monotonic()
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)
        self._check()

    async def _publish(self, kind: int, payload: bytes = b"") -> None:
        sequence, self._sequence = self._sequence, self._sequence + 1
        try:
            await self._bus.publish(self.inbound.reply, frames.answer(kind, sequence, payload))
        except Undecided:
            lost = Undecided("stream.lost", "the connection was lost in mid-stream")
            self.cancel(lost)
            raise lost from None


class StreamServing:
    """Streams on one subject pattern. `serve_streams` makes it."""

    def __init__(self, bus: Bus, handler: StreamHandler, total: int, per_sender: int) -> None:
        self.counts: Counter[str] = Counter()
        """served, failed, defects, busy, malformed (openings), stray (control frames of no stream)."""
        self.serving: Serving | None = None
        self._bus = bus
        self._handler = handler
        self._limits = (total, per_sender)
        self._token = f"x-{new_token()}"
        self._strays: FloodGate[None] = FloodGate(STRAYS)
        self._control: Intake | None = None
        self._running: dict[bytes, tuple[Responder, asyncio.Task[None]]] = {}
        self._per_sender: Counter[str] = Counter()
        self._announced: Counter[str] = Counter()
        """Bytes of the bodies of running streams, by sender."""
        self._timer: asyncio.TimerHandle | None = None

    @property
    def running(self) -> int:
        return len(self._running)

    async def open(self, pattern: str, limits: FloodLimits, queue: str, senders: Senders | None) -> None:
        prefix = pattern.rpartition(".")[0]
        self._control = Intake(
            self._bus,
            f"{prefix}.{self._token}",
            self._receive,
            senders=senders,
            unreadable=self._unreadable,
        )
        await self._control.open()
        self._bus.on_disconnect(self._disconnected)
        self._bus.on_close(self.stop)
        self.serving = await self._bus.serve(
            pattern, self._accept, limits=limits, concurrency=self._limits[0], queue=queue, senders=senders
        )

    async def stop(self) -> None:
        """Take no new stream, cancel those that run, and let their handlers end."""
        if self.serving:
            await self.serving.stop()
        for responder, _ in list(self._running.values()):
            responder.cancel(Undecided("stream.stopping", "the responder is stopping"))
        tasks = [task for _, task in self._running.values()]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=STOP_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if self._control:
            await self._control.close()
            self._control = None
        if self._timer:
            self._timer.cancel()

    async def _accept(self, inbound: Inbound) -> None:
        """Start a stream in a task of its own, so that a long one holds nobody up."""
        if not inbound.reply:
            return
        try:
            opening = frames.read_opening(inbound.payload)
        except Unreadable:
            self.counts["malformed"] += 1
            raise
        self._admit(inbound.sender, opening)
        responder = Responder(self._bus, replace(inbound, payload=opening.head), opening, self._token)
        task = asyncio.get_running_loop().create_task(self._run(responder))
        self._running[responder.id] = (responder, task)
        self._per_sender[inbound.sender] += 1
        self._announced[inbound.sender] += responder.announced
        if not self._timer:
            self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def _admit(self, sender: str, opening: Opening) -> None:
        total, per_sender = self._limits
        full = len(self._running) >= total or self._per_sender[sender] >= per_sender
        share = MAX_HELD_BYTES * per_sender // total
        full = full or self._announced[sender] + opening.total_bytes > share
        if full or self._announced.total() + opening.total_bytes > MAX_HELD_BYTES:
            self.counts["busy"] += 1
            raise Undecided("stream.busy", "as many streams run as may")

    async def _run(self, responder: Responder) -> None:
        try:
            await responder.open()
            await self._handler(responder.inbound, responder)
            if not responder.finished:
                raise Undecided("stream.unfinished", "the responder stopped without ending the stream")
            self.counts["served"] += 1
        except ComityError as error:
            self.counts["failed"] += 1
            await responder.fail(error)
        except asyncio.CancelledError:
            self.counts["failed"] += 1
            raise
        except Exception:
            self.counts["defects"] += 1
            _log.exception("a stream handler failed", extra={"op": responder.inbound.op})
            await responder.fail(Undecided("bus.defect", "the other side failed"))
        finally:
            self._drop(responder)

    def _drop(self, responder: Responder) -> None:
        del self._running[responder.id]
        sender = responder.inbound.sender
        self._per_sender[sender] -= 1
        self._announced[sender] -= responder.announced
        if not self._per_sender[sender]:
            del self._per_sender[sender], self._announced[sender]

    def _receive(self, message: Msg) -> None:
        """A control frame; it must come from whom the server says opened the stream."""
        try:
            frame = frames.read_control(message.data)
            sender = parse(message.subject)[0]
        except Unreadable:
            self.counts["malformed"] += 1
            return
        found = self._running.get(frame.stream)
        if found and found[0].inbound.sender == sender:
            found[0].receive(frame)
        else:
            self._stray(sender, len(message.data))

    def _unreadable(self, subject: str) -> None:
        """A control frame that the client could not read: of no stream, for all that can be known."""
        self.counts["malformed"] += 1
        with contextlib.suppress(Unreadable):
            self._stray(parse(subject)[0], 0)

    def _stray(self, sender: str, size: int) -> None:
        """Credit for a stream that has just ended is normal; a flood of it is not."""
        self.counts["stray"] += 1
        if self._strays.offer(sender, None, size, time.monotonic()) == "accepted":
            self._strays.take()
        elif self._strays.floods(sender) and self._control:
            self._control.shut_out(sender)

    def _disconnected(self) -> None:
        for responder, _ in list(self._running.values()):
            responder.cancel(Undecided("stream.lost", "the connection was lost in mid-stream"))

    def _tick(self) -> None:
        now = time.monotonic()
        for responder, _ in list(self._running.values()):
            responder.tick(now)
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(TICK_S, self._tick) if self._running else None


def check_pattern(pattern: str) -> None:
    """Streams are served on one operation, whose name the control subject replaces."""
    if pattern.endswith((">", "*")):
        raise ConfigurationError("bus.pattern", f"{pattern}: name one operation to serve streams on")
