"""The asking side of a stream: reads frames in order and grants credit as it reads.

Each stream has a subscription of its own, so that leaving it ends it at the server too, and a
responder that floods it hurts no other stream. Nothing here waits for ever: silence, a lost
connection, a gap and a repeat each end the stream with their own code, after the frames that had
arrived in order were read.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from federation.client.pending import check_answer
from federation.serving import failure_of, new_token
from federation.streaming import frames
from federation.streaming.frames import WINDOW, Frame
from schemas.errors import ComityError, Refused, Undecided, Unreadable

if TYPE_CHECKING:
    from federation.connection import Bus

STALL_S: Final = 30.0  # s of nothing = stalled (session.md 10); three keepalives of the node
LOST_AFTER_S: Final = 2.0  # s after a lost connection in which frames must go on in order
CREDIT_EVERY: Final = 8  # frames read between two credits: a quarter of the window
CREDIT_EVERY_S: Final = 10.0  # s between credits of a reader that lives but does not read
PROBE_AFTER_S: Final = 2.0  # s of silence before we look whether the responder is still there
ABSENT_PROBES: Final = 2  # one may fall into the responder's own reconnect
TICK_S: Final = 0.25  # s between looks at the clock for all streams of a connection
COUNTED: Final = frozenset(
    f"stream.{what}" for what in ("cancelled", "gap", "lost", "overrun", "repeat", "stalled")
)  # codes with a counter of their own: a peer's codes make no new ones
MAX_OPEN: Final = 512  # streams asked for over one connection


@dataclass(frozen=True, slots=True)
class Ask:
    """What a stream is opened with."""

    subject: str
    head: bytes = field(repr=False)
    body: Sequence[bytes] = field(repr=False)
    headers: Mapping[str, str] | None
    stall_s: float


class Stream:
    """One answer as it arrives. Use it with `async with`, then `async for`."""

    def __init__(self, desk: RequesterDesk, ask: Ask) -> None:
        self._desk = desk
        self._bus = desk.bus
        self._ask = ask
        self._first, self._rest = frames.cut(ask.head, ask.body)
        self._reply = ""
        self._ready: deque[bytes] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._received = 0  # answer frames, of any kind
        self._data = 0  # data frames received
        self._read = 0  # data frames handed to the reader
        self._granted = WINDOW
        self._sent = 0  # control frames
        self._body_leave = frames.BODY_WINDOW
        self._wanted = 0  # WANT frames received
        self._control: tuple[str, bytes] | None = None
        self._finished = False
        self._told = False  # the responder itself ended the stream, or never was
        self._left = False
        self._error: ComityError | None = None
        self._heard = self._credited = time.monotonic()
        self._suspect: float | None = None
        self._probed = self._heard
        self._absent = 0

    async def __aenter__(self) -> Self:
        """Send the request, and the whole of a long body. Raises as `__anext__` does."""
        self._reply = await self._desk.enter(self, self._ask.subject)
        try:
            await self._bus.publish(
                self._ask.subject, self._first, headers=self._ask.headers, reply=self._reply
            )
            for number, message in enumerate(self._rest):
                await self._may_send(number)
                await self._send(frames.BODY, message)
        except BaseException:
            await self._leave()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._leave()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        """The next frame's payload.

        Raises `Undecided` (`bus.absent`, `bus.disconnected`, `stream.stalled`, `stream.lost`,
        `stream.gap`), `Refused` (`stream.repeat`, `stream.overrun`), `Unreadable` (`stream.frame`),
        or whatever the responder failed with, in its own kind and code.
        """
        while not self._ready:
            if self._finished:
                if self._error:
                    raise self._error
                raise StopAsyncIteration
            await self._wait()
        frame = self._ready.popleft()
        self._read += 1
        if self._read + WINDOW - self._granted >= CREDIT_EVERY and not self._finished:
            await self.grant()
        return frame

    def abort(self) -> None:
        """Stop reading, from a callback: the reader gets `stream.cancelled` at once."""
        self._ready.clear()
        self._finish(Undecided("stream.cancelled", "the reader of this stream went away"))

    async def grant(self) -> None:
        """Tell the responder how far it may go. A lost connection shows elsewhere."""
        self._granted = self._read + WINDOW
        self._credited = time.monotonic()
        if self._control:
            try:
                await self._send(frames.CREDIT, self._granted.to_bytes(4, "big"))
            except Undecided:
                return

    def receive(self, message: Msg) -> None:
        """Called for each message on this stream's reply subject."""
        if self._finished and not self._left:
            return
        try:
            if message.headers and self._control and self._absence(message):
                return
            if message.headers:
                self._told = True
                check_answer(self._ask.subject, message)
                self._told = False
            frame = frames.read_answer(message.data)
            self._in_order(frame)
            self._take(frame)
        except ComityError as error:
            self._finish(error)

    def unreadable(self, subject: str) -> None:
        """The client could not read a message on our reply subject: no frame of a stream is like that."""
        self._finish(Unreadable("stream.frame", f"{subject}: a frame could not be read"))

    def tick(self, now: float) -> None:
        """Judge silence."""
        if self._suspect is not None and now - self._suspect > LOST_AFTER_S:
            self._finish(Undecided("stream.lost", "the connection was lost in mid-stream"))
        elif now - max(self._heard, self._credited) > self._ask.stall_s and not self._ready:
            self._finish(Undecided("stream.stalled", f"nothing came for {self._ask.stall_s:g} s"))
        elif self._control and not self._finished and now - self._credited > CREDIT_EVERY_S and self._ready:
            self._bus.spawn(self.grant)
        elif self._control and not self._finished and now - max(self._heard, self._probed) > PROBE_AFTER_S:
            self._probed = now
            self._bus.spawn(self._probe)

    def _absence(self, message: Msg) -> bool:
        """Whether the server says that nobody hears our control frames. Raises `Undecided` the second time.

        The run had begun, so this is no `bus.absent`, after which nothing can have happened.
        """
        if (message.headers or {}).get("Status") != "503":
            return False
        self._absent += 1
        if self._absent < ABSENT_PROBES:
            return True
        self._told = True
        raise Undecided("stream.lost", "the responder is gone")

    async def _probe(self) -> None:
        """A killed responder says nothing; the server knows that it is gone, and answers in its place."""
        try:
            await self._send(frames.CREDIT, self._granted.to_bytes(4, "big"), reply=self._reply)
        except Undecided:
            return

    def disconnected(self, *, for_good: bool) -> None:
        if for_good:
            self._finish(Undecided("stream.lost", "the connection was closed"))
        elif self._suspect is None:
            self._suspect = time.monotonic()

    def _in_order(self, frame: Frame) -> None:
        if frame.sequence > self._received:
            raise Undecided("stream.gap", f"frame {self._received} was lost on the way")
        if frame.sequence < self._received:
            raise Refused("stream.repeat", f"frame {frame.sequence} came twice")
        if (frame.kind == frames.OPENED) != (frame.sequence == 0):
            raise Unreadable("stream.frame", "a stream opens once, with its first frame")
        self._received += 1
        self._heard = time.monotonic()
        self._suspect = None
        self._absent = 0

    def _take(self, frame: Frame) -> None:
        if frame.kind == frames.DATA:
            self._data += 1
            if self._data > self._granted:
                raise Refused("stream.overrun", "the responder sent more than it had credit for")
            self._ready.append(frame.payload)
        elif frame.kind == frames.OPENED:
            token, stream = frames.read_opened(frame.payload)
            self._control = (f"{self._ask.subject.rpartition('.')[0]}.{token}", stream)
            if self._left:
                self._bus.spawn(self._cancel)
        elif frame.kind == frames.WANT:
            self._body_leave = max(self._body_leave, frames.count(frame.payload))
            self._wanted += 1
            if self._wanted > len(self._rest):  # one for each BODY; more would pass for life
                raise Unreadable("stream.frame", "more of the body is wanted than there is")
        elif frame.kind == frames.END:
            self._told = True
            self._finish(None)
        else:
            self._told = True
            self._finish(failure_of(frame.payload.decode("utf-8", "replace")))
        self._wake()

    def _finish(self, error: ComityError | None) -> None:
        if not self._finished:
            self._finished, self._error = True, error
            if error:
                self._bus.streams[error.code if error.code in COUNTED else "failed"] += 1
        self._wake()
        if self._left:
            self._bus.spawn(self._forget)

    def _wake(self) -> None:
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    async def _may_send(self, number: int) -> None:
        """Wait until the responder has room for this BODY frame."""
        while self._control is None or number >= self._body_leave:
            if self._finished:
                raise self._error or Undecided("stream.ended", "the stream ended before the body was sent")
            await self._wait()

    async def _send(self, kind: int, payload: bytes = b"", *, reply: str = "") -> None:
        assert self._control
        subject, stream = self._control
        sequence, self._sent = self._sent, self._sent + 1
        await self._bus.publish(subject, frames.control(kind, stream, sequence, payload), reply=reply)

    async def _leave(self) -> None:
        """Forget the stream; if it still runs, tell the responder, now or as soon as it says where."""
        if self._left:
            return
        self._left = True
        self._ready.clear()
        if self._told:
            await self._forget()
        elif self._control:
            await self._cancel()

    async def _forget(self) -> None:
        await self._desk.forget(self._reply)

    async def _cancel(self) -> None:
        await self._forget()
        try:
            await self._send(frames.CANCEL)
        except ComityError:
            return


class RequesterDesk:
    """All streams that one connection asks for."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self._open: dict[str, tuple[Stream, Subscription]] = {}
        self._timer: asyncio.TimerHandle | None = None

    @classmethod
    async def make(cls, bus: Bus) -> Self:
        desk = cls(bus)
        bus.on_disconnect(desk._disconnected)
        return desk

    @property
    def open(self) -> int:
        """Streams that are being read, or wait to be cancelled."""
        return len(self._open)

    async def enter(self, stream: Stream, subject: str) -> str:
        """The reply subject for a new stream. Raises `Undecided` when too many are open."""
        if len(self._open) >= MAX_OPEN:
            raise Undecided("stream.busy", f"{MAX_OPEN} streams are open already")
        if subject.startswith("node."):
            # A node may publish only under its own name, so its answers come there (session.md 10).
            reply = f"node.{subject.split('.')[1]}.out.stream.{new_token()}"
        else:
            reply = f"{self.bus.settings.inbox_prefix}.s.{new_token()}"
        subscription = await self.bus.subscribe(reply, stream.receive, unreadable=stream.unreadable)
        self._open[reply] = stream, subscription
        self.bus.streams["asked"] += 1
        if not self._timer:
            self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)
        return reply

    async def forget(self, reply: str) -> None:
        """Hear no more of a stream. Harmless when it is forgotten."""
        _, subscription = self._open.pop(reply, (None, None))
        if subscription:
            await self.bus.unsubscribe(subscription)

    def _disconnected(self) -> None:
        for stream, _ in list(self._open.values()):
            stream.disconnected(for_good=self.bus.closing)

    def _tick(self) -> None:
        now = time.monotonic()
        for stream, _ in list(self._open.values()):
            stream.tick(now)
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(TICK_S, self._tick) if self._open else None
