"""One program's connection to the bus, with the settings that nats.md 7 found necessary.

What arrives is bytes until `schemas.envelope` has verified it: a subject, a header or a connection
proves nothing. Owns the client, its pending requests and its services. A lost connection fails
pending requests at once and is retried for ever; nothing published meanwhile is buffered.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NoReturn, TypeVar
from weakref import WeakKeyDictionary

import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.protocol.parser import AUTHORIZATION_VIOLATION

from federation.client.guarded import GuardedClient, UnreadableMessage
from federation.client.intake import Intake, Senders
from federation.client.login import BusSettings, client_options
from federation.client.pending import Pending, check_answer
from federation.flood import FloodLimits
from federation.serving import Handler, Serving, new_token
from schemas.errors import ComityError, Refused, Undecided

CONNECT_S = 10.0  # s for a first connection, all attempts together
FLUSH_S = 5  # s for the server to confirm what was sent
MAX_REFUSALS = 8  # of our login, one after the other, before it counts as withdrawn
PENDING_MESSAGES = 4096  # per subscription, before the client drops the newest
PENDING_BYTES = 16 * 1024 * 1024  # per subscription
ALONE_S = 2.0  # s for a program with our identity to answer; one that is not there is known at once
LOOK_EVERY_S = 1.0  # s between looks at a client that can end, or go deaf, without calling us
MAX_REASON_CHARACTERS = 200  # of another's words in an error or a log line
MAX_PENDING_REQUESTS = 1024  # with a subscription each, inside the account's limit
MAX_MESSAGE_BYTES = 224 * 1024  # payload; the server's limit of 256 KiB also covers headers
LOG_EVERY_S = 5.0  # s between two log lines about the same kind of client error

__all__ = ["Bus", "BusSettings"]

Callback = Callable[[], Awaitable[None]]
Part = TypeVar("Part")
_log = logging.getLogger("comity.bus")


class Bus:
    """Requests, publications and services over one connection. Make it with `connect`."""

    def __init__(self, settings: BusSettings) -> None:
        self.settings = settings
        self.errors: Counter[str] = Counter()
        """Client errors by kind; `SlowConsumerError` and `UnreadableMessage` are messages dropped here."""
        self.reconnects = 0
        self.closed = asyncio.Event()
        """Set when the connection has ended for good: by `close`, or by the server (`over` says why)."""
        self.closing = False
        self.servings: list[Serving] = []
        self.streams: Counter[str] = Counter()
        """Streams asked for, and how those that failed did: stream.lost, stream.stalled, failed …"""
        self._client = GuardedClient()
        self._unreadable: WeakKeyDictionary[Subscription, Callable[[str], None]] = WeakKeyDictionary()
        self._pending: set[Pending] = set()
        self._on_reconnect: list[Callback] = []
        self._on_close: list[Callback] = []
        self._on_disconnect: list[Callable[[], None]] = []
        self._logged: dict[str, float] = {}
        self._parts: dict[type[Any], Any] = {}
        self._making = asyncio.Lock()
        self._refused: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._refusals = 0
        self._up = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    async def connect(
        cls,
        settings: BusSettings,
        *,
        timeout: float = CONNECT_S,  # noqa: ASYNC109 - its end is a typed error, not a bare TimeoutError
    ) -> Bus:
        """Log in. Raises `Refused` (login), `ConfigurationError` (files) or `Undecided` (out of reach)."""
        bus = cls(settings)
        await bus._connect(timeout)
        bus._up.set()
        return bus

    async def close(self) -> None:
        """Let what was received be handled, then disconnect. Harmless when closed."""
        self.closing = True
        for callback in self._on_close:
            await callback()
        for serving in list(self.servings):
            await serving.stop()
        try:
            await self._client.drain()
        except (nats.errors.Error, OSError):
            await self._abandon()
        for task in list(self._tasks):
            task.cancel()
        self.closed.set()

    async def _abandon(self) -> None:
        """Close without a server. The client then writes what it still holds to the transport of the lost
        connection, which may be taken apart already (an AttributeError out of asyncio's TLS)."""
        try:
            await self._client.close()
        except (nats.errors.Error, OSError, AttributeError) as error:
            _log.debug("closed without a server", extra={"code": type(error).__name__})

    @property
    def connected(self) -> bool:
        return self._client.is_connected

    async def over(self) -> NoReturn:
        """Wait until the connection has ended for good; a program has nothing to go on with then.

        The client comes back from every outage, and from no error that the server states. Whoever waits
        here also keeps it from staying deaf. Raises `Refused` (`bus.login`) when the login was withdrawn,
        or `Undecided` (`bus.ended`) with the reason.
        """
        while not (self.closed.is_set() or self._client.is_closed):
            if self._client.deaf and not self.closing:
                _log.error("nobody read the connection: connecting again", extra={"bus": self.settings.name})
                await self._client.force_reconnect()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.closed.wait(), LOOK_EVERY_S)
        self.closed.set()
        reason = self._client.last_error
        if self._refusals >= MAX_REFUSALS or isinstance(reason, nats.errors.AuthorizationError):
            raise Refused("bus.login", f"{self.settings.url}: the login {self.settings.name} was withdrawn")
        said = _printable(str(reason or "it was closed"))
        raise Undecided("bus.ended", f"{self.settings.url}: the connection has ended for good: {said}")

    def on_reconnect(self, callback: Callback) -> None:
        """Call this, in order of registration, after every reconnection: for example a new snapshot."""
        self._on_reconnect.append(callback)

    def on_close(self, callback: Callback) -> None:
        """Await this when the connection is about to be closed, while it still works."""
        self._on_close.append(callback)

    def on_disconnect(self, callback: Callable[[], None]) -> None:
        """Call this at once when the connection is lost. It must not block."""
        self._on_disconnect.append(callback)

    async def request(
        self,
        subject: str,
        payload: bytes,
        *,
        timeout: float,  # noqa: ASYNC109 - as for `connect`
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        """The answer's bytes.

        Raises `Undecided` with `bus.absent` (nobody serves it), `bus.timeout` or `bus.disconnected`;
        after the last two the request may still have been carried out. A handler's own `ComityError`
        comes back as the same kind and code, which is a hint that nobody signed.
        """
        if len(self._pending) >= MAX_PENDING_REQUESTS:
            raise Undecided("bus.busy", f"{MAX_PENDING_REQUESTS} requests are waiting already")
        pending = Pending(subject)
        inbox = f"{self.settings.inbox_prefix}.{new_token()}"
        subscription = await self._expect_one(inbox, pending.answer)
        self._pending.add(pending)
        try:
            await self.publish(subject, payload, headers=headers, reply=inbox)
            message = await pending.wait(timeout)
        finally:
            self._pending.discard(pending)
            pending.answer.cancel()  # publishing failed, perhaps; does nothing to one that was answered
            if pending.answer.cancelled():
                await self.unsubscribe(subscription)
        check_answer(subject, message)
        return message.data

    async def answers(self, subject: str) -> bool:
        """Whether a program serves `subject` and answers: our own kind of program, with our own identity.

        One whose connection is dead, while the server does not know it yet, answers nothing.
        """
        try:
            await self.request(subject, b"{}", timeout=ALONE_S)
        except Undecided:
            return False
        return True

    async def _expect_one(self, inbox: str, answer: asyncio.Future[Msg]) -> Subscription:
        """A subscription that the server itself ends with its first message.

        One inbox for all requests would let the server keep each reply path until it expires (1.3 kB
        a request, measured), and whoever we once asked could flood it.
        """
        self._check_connected(inbox)
        try:
            subscription = await self._client.subscribe(inbox, future=answer)
            await subscription.unsubscribe(limit=1)
        except nats.errors.Error as error:
            raise Undecided("bus.disconnected", f"{inbox}: {type(error).__name__}") from None
        return subscription

    def _check_connected(self, subject: str) -> None:
        if not self._client.is_connected:
            raise Undecided("bus.disconnected", f"{subject}: there is no connection")

    async def publish(
        self, subject: str, payload: bytes, *, headers: Mapping[str, str] | None = None, reply: str = ""
    ) -> None:
        """Hand one message to the server. Raises `Undecided` (`bus.disconnected`) or `Refused` (size)."""
        if len(payload) > MAX_MESSAGE_BYTES:
            raise Refused("bus.too_long", f"{len(payload)} bytes, at most {MAX_MESSAGE_BYTES} in one message")
        try:
            await self._client.publish(subject, payload, reply, dict(headers) if headers else None)
        except (nats.errors.BadSubjectError, nats.errors.BadHeaderError) as error:
            raise Refused("bus.subject", f"{subject!r}: {type(error).__name__}") from None
        except (nats.errors.Error, OSError, AttributeError) as error:
            raise Undecided("bus.disconnected", f"{subject}: {type(error).__name__}") from None

    async def subscribe(
        self,
        pattern: str,
        callback: Callable[[Msg], None],
        *,
        queue: str = "",
        unreadable: Callable[[str], None] | None = None,
    ) -> Subscription:
        """Deliver raw messages. The callback only enqueues: it may neither block nor do costly work.

        unreadable: told the subject of each message that the client could not read and has dropped.
        """
        self._check_connected(pattern)

        async def deliver(message: Msg) -> None:
            callback(message)

        try:
            subscription = await self._client.subscribe(
                pattern,
                queue=queue,
                cb=deliver,
                pending_msgs_limit=PENDING_MESSAGES,
                pending_bytes_limit=PENDING_BYTES,
            )
        except nats.errors.Error as error:
            raise Undecided("bus.disconnected", f"{pattern}: {type(error).__name__}") from None
        if unreadable:
            self._unreadable[subscription] = unreadable
        return subscription

    async def unsubscribe(self, subscription: Subscription) -> None:
        """Receive no more of it; harmless when the connection has gone first."""
        with contextlib.suppress(nats.errors.Error):
            await subscription.unsubscribe()

    async def drain(self, subscription: Subscription) -> None:
        """End a subscription at the server now, and hand over meanwhile what had been sent before."""

        async def drained() -> None:
            try:
                await subscription.drain()  # type: ignore[no-untyped-call]
            except (nats.errors.Error, OSError, AttributeError):
                # The client keeps a subscription whose draining failed, and would renew it later.
                subscription._stop_processing()
            finally:
                self._client._remove_sub(subscription._id)

        self.spawn(drained)
        await asyncio.sleep(0)  # so that its UNSUB goes out before whatever our caller does next

    async def serve(
        self,
        pattern: str,
        handler: Handler,
        *,
        limits: FloodLimits,
        concurrency: int,
        queue: str = "",
        senders: Senders | None = None,
    ) -> Serving:
        """Handle what arrives on `pattern`; what the handler returns is the answer, if one was asked for.

        queue: replicas that name the same queue share the messages; without it each gets all.
        senders: who may send here, as of now; one of them that floods is then shut out for a while.
        """
        serving = Serving(pattern, handler, limits=limits, concurrency=concurrency, publish=self.publish)
        intake = Intake(
            self, pattern, serving.receive, queue=queue, senders=senders, unreadable=serving.unreadable
        )
        self.servings.append(serving)
        await serving.open(intake, lambda: self.servings.remove(serving))
        return serving

    async def wait_connected(self, within: float) -> bool:
        """True as soon as there is a connection; False when there is none for `within` seconds."""
        if self.closing:
            return self.connected
        try:
            async with asyncio.timeout(within):
                await self._up.wait()
        except TimeoutError:
            return False
        return True

    async def flush(self) -> None:
        """Return when the server has seen everything sent so far. Raises `Undecided`."""
        try:
            # The client's ping overtakes what waits to be written; when its pong is here, that was written.
            await self._client.flush(FLUSH_S)
            await self._client.flush(FLUSH_S)
        except (nats.errors.Error, OSError, AttributeError) as error:
            raise Undecided("bus.disconnected", type(error).__name__) from None

    async def part(self, kind: type[Part], make: Callable[[Bus], Awaitable[Part]]) -> Part:
        """This connection's one `kind` (a desk of streams), made at first use."""
        async with self._making:
            if kind not in self._parts:
                self._parts[kind] = await make(self)
            return self._parts[kind]  # type: ignore[no-any-return]

    def spawn(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run something that ends with this connection."""

        async def run() -> None:
            with contextlib.suppress(ComityError):  # who needs the outcome keeps it itself
                await work()

        task = asyncio.get_running_loop().create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, within: float) -> None:
        options = client_options(self.settings) | {
            "error_cb": self._client_error,
            "disconnected_cb": self._disconnected,
            "reconnected_cb": self._reconnected,
            "closed_cb": self._closed,
        }
        first = asyncio.ensure_future(self._client.connect(**options))
        try:
            done, _ = await asyncio.wait(
                {first, self._refused}, timeout=within, return_when=asyncio.FIRST_COMPLETED
            )
            for future in done:
                future.result()
            if not done:
                seen = ", ".join(self.errors) or "no answer"
                raise Undecided("bus.unreachable", f"{self.settings.url}: {seen}")
        except BaseException:
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            await self._client.close()
            raise

    async def _client_error(self, error: Exception) -> None:
        kind, text = type(error).__name__, str(error).lower()
        self.errors[kind] += 1
        subject = str(getattr(error, "subject", ""))
        if isinstance(error, UnreadableMessage):
            self._unread(error)
        elif "permissions violation for publish" in text:
            self._not_permitted(text)
        elif AUTHORIZATION_VIOLATION in text:  # with its space, which no subject in a text can have
            self._login_refused()
        now = time.monotonic()
        if now - self._logged.get(kind, -LOG_EVERY_S) >= LOG_EVERY_S:
            self._logged[kind] = now
            _log.warning(
                "bus client error",
                extra={
                    "bus": self.settings.name,
                    "kind": kind,
                    "count": self.errors[kind],
                    "subject": _printable(subject),
                },
            )

    def _unread(self, error: UnreadableMessage) -> None:
        tell = self._unreadable.get(error.subscription) if error.subscription else None
        if tell:  # later, for a defect in it must not end the reading
            asyncio.get_running_loop().call_soon(tell, error.subject)

    def _login_refused(self) -> None:
        self._refusals += 1
        if not self._refused.done():
            self._refused.set_exception(Refused("bus.login", f"{self.settings.url}: the login was refused"))
            self._refused.exception()
        elif self._refusals == MAX_REFUSALS:
            _log.error("the bus login was withdrawn", extra={"bus": self.settings.name})
            self.spawn(self._client.close)

    def _not_permitted(self, text: str) -> None:
        for pending in list(self._pending):
            if f'"{pending.subject.lower()}"' in text:
                pending.fail(Refused("bus.not_permitted", f"{pending.subject}: not ours to publish"))

    async def _disconnected(self) -> None:
        self._up.clear()
        for pending in list(self._pending):
            pending.fail(Undecided("bus.disconnected", f"{pending.subject}: the connection was lost"))
        for callback in self._on_disconnect:
            callback()

    async def _reconnected(self) -> None:
        self.reconnects += 1
        self._refusals = 0
        self._up.set()
        self.spawn(self._after_reconnect)

    async def _after_reconnect(self) -> None:
        for callback in self._on_reconnect:
            try:
                await callback()
            except ComityError as error:
                _log.warning("after a reconnection: %s", error, extra={"bus": self.settings.name})

    async def _closed(self) -> None:
        self.closed.set()


def _printable(text: str) -> str:
    """Another's words for an error or a log line: short, on one line."""
    return re.sub(r"[^\x20-\x7e]", "?", text)[:MAX_REASON_CHARACTERS]
