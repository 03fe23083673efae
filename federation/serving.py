"""What arrives for us: parsed, limited per sender, and handled by a bounded number of workers.

The order is nats.md 8's: size and subject, the sender from the token that the server wrote, its
bucket and queue, and only then the handler, which checks signatures. A reply goes only where a
requester of that kind may wait, so that nobody borrows our rights to publish (attack N6).
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from nats.aio.msg import Msg

from federation.accounts import domain_of_account
from federation.client.intake import Intake
from federation.flood import FloodGate, FloodLimits
from schemas.errors import ComityError, ConfigurationError, Refused, Undecided, Unreadable

MAX_SUBJECT_BYTES = 512  # two accounts of 253 bytes could not fit the server's control line anyway
MAX_FAILURE_BYTES = 400  # of a failure's text on the wire
FAILURE_HEADER = "Comity-Failure"
PEER_REPLIES = "_R_."  # the reply paths that the server makes for requests that cross accounts

_CODE = re.compile(r"^[A-Za-z0-9_.]{1,64}\Z")
_FAILURE = re.compile(
    r"^(unreadable|configuration|refused|undecided) ([A-Za-z0-9_.]{1,64}) ([\x20-\x7e]{0,400})\Z"
)
_log = logging.getLogger("comity.bus")


@dataclass(frozen=True, slots=True)
class Inbound:
    """One message. Everything but `payload` is transport: it routes, it never proves."""

    subject: str
    sender: str
    """The peer's domain, as the server wrote it; a node's id; or "" for our own broker or agent."""
    op: str
    payload: bytes = field(repr=False)
    reply: str
    """Where an answer may go; "" where none is wanted or none is allowed."""
    headers: Mapping[str, str] = field(repr=False)


Handler = Callable[[Inbound], Awaitable[bytes | None]]


class Publish(Protocol):
    def __call__(
        self, subject: str, payload: bytes, *, headers: Mapping[str, str] | None = None, reply: str = ""
    ) -> Awaitable[None]: ...


def new_token() -> str:
    """128 random bits as one subject token."""
    return secrets.token_hex(16)


def parse(subject: str) -> tuple[str, str, str]:
    """(sender, op, prefix that a reply subject must have) of a subject we serve. Raises `Unreadable`.

    Peers:   fed.v1.neg.<D>.<P>.<op>   sender written by the server, replies only on its reply paths
    Nodes:   node.<id>.out.<op>        sender bound by the node's permissions, replies to its own inbox
    Ours:    node.<id>.in.<op>, agent.<op>, broker.<op>
    """
    match subject.split("."):
        case ["fed", "v1", "neg", _, peer, op]:
            domain = domain_of_account(peer)
            if domain is None:
                raise Unreadable("bus.subject", "the sender's account is no domain's")
            return domain, op, PEER_REPLIES
        case ["node", node, "out", op]:
            return node, op, f"_INBOX.node.{node}."
        case ["node", node, "in", op]:
            return "", op, f"_INBOX.broker.|_INBOX.agent.|node.{node}.out.stream."
        case ["agent" | "broker", op]:
            return "", op, "_INBOX.broker.|_INBOX.agent."
    raise Unreadable("bus.subject", "not a subject that Comity serves")


def _parse_short(subject: str) -> tuple[str, str, str]:
    if len(subject) > MAX_SUBJECT_BYTES:
        raise Unreadable("bus.subject", "too long")
    return parse(subject)


class Serving:
    """One subscription with its gate and its workers. `Bus.serve` makes it."""

    def __init__(
        self, pattern: str, handler: Handler, *, limits: FloodLimits, concurrency: int, publish: Publish
    ) -> None:
        self.pattern = pattern
        self.gate: FloodGate[Inbound] = FloodGate(limits)
        self.counts: Counter[str] = Counter()
        """handled, failed, defects, unanswered, malformed, reply_refused; the gate has its own."""
        self._handler = handler
        self._concurrency = concurrency
        self._publish = publish
        self._running: set[asyncio.Task[None]] = set()
        self._intake: Intake | None = None
        self._forget: Callable[[], None] = lambda: None

    async def open(self, intake: Intake, forget: Callable[[], None]) -> None:
        self._intake, self._forget = intake, forget
        await intake.open()

    @property
    def shut(self) -> dict[str, float]:
        """Senders that are shut out at the moment, and for how many seconds each."""
        return self._intake.shut if self._intake else {}

    async def stop(self) -> None:
        """Receive nothing more, and let what runs end."""
        if self._intake:
            intake, self._intake = self._intake, None
            self._forget()
            await intake.close()
        while self._running:
            await asyncio.wait(self._running)

    def receive(self, message: Msg) -> None:
        """Called by the client for each message: cheap checks, then a queue."""
        inbound = self._read(message)
        if inbound is None:
            return
        verdict = self.gate.offer(inbound.sender, inbound, len(inbound.payload), time.monotonic())
        if verdict == "accepted":
            self._pump()
        elif verdict == "over_rate" and self.gate.floods(inbound.sender) and self._intake:
            self._intake.shut_out(inbound.sender)

    def unreadable(self, subject: str) -> None:
        """A message on `subject` could not be read; it costs its sender as much as one that can be."""
        self.counts["malformed"] += 1
        try:
            sender = _parse_short(subject)[0]
        except Unreadable:
            return
        verdict = self.gate.charge(sender, time.monotonic())
        if verdict == "over_rate" and self.gate.floods(sender) and self._intake:
            self._intake.shut_out(sender)

    def _read(self, message: Msg) -> Inbound | None:
        try:
            sender, op, prefixes = _parse_short(message.subject)
        except Unreadable:
            self.counts["malformed"] += 1
            return None
        if op.startswith("x-"):  # the rest of a long body, which its own subscription gets as well
            return None
        is_advert = op == "advert" and prefixes == PEER_REPLIES
        reply = "" if is_advert else message.reply  # never answer an advert (nats.md 3)
        if reply and not reply.startswith(tuple(prefixes.split("|"))):
            self.counts["reply_refused"] += 1
            reply = ""
        return Inbound(message.subject, sender, op, message.data, reply, message.headers or {})

    def _pump(self) -> None:
        while len(self._running) < self._concurrency and (inbound := self.gate.take()):
            task = asyncio.get_running_loop().create_task(self._handle(inbound))
            self._running.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._pump()

    async def _handle(self, inbound: Inbound) -> None:
        headers: dict[str, str] | None = None
        try:
            answer = await self._handler(inbound)
            self.counts["handled"] += 1
        except ComityError as error:
            self.counts["failed"] += 1
            answer, headers = b"", {FAILURE_HEADER: failure_line(error)}
        except Exception:
            self.counts["defects"] += 1
            if (
                self.counts["defects"] & (self.counts["defects"] - 1) == 0
            ):  # 1, 2, 4, 8 …: a flood logs little
                _log.exception("a handler failed", extra={"op": inbound.op, "sender": inbound.sender})
            answer, headers = b"", {FAILURE_HEADER: "undecided bus.defect the other side failed"}
        if answer is not None and inbound.reply:
            try:
                await self._publish(inbound.reply, answer, headers=headers)
            except ComityError:
                self.counts["unanswered"] += 1


def failure_line(error: ComityError) -> str:
    """A failure as one header line: kind, code, text. A hint; what must be proved is a signed Refuse."""
    kinds: list[tuple[type[ComityError], str]] = [
        (Unreadable, "unreadable"),
        (ConfigurationError, "configuration"),
        (Refused, "refused"),
    ]
    kind = next((name for cls, name in kinds if isinstance(error, cls)), "undecided")
    text = re.sub(r"[^\x20-\x7e]", "?", error.text)[:MAX_FAILURE_BYTES]
    code = error.code if _CODE.match(error.code) else "bus.defect"
    return f"{kind} {code} {text}"


def failure_of(line: str) -> ComityError:
    """The error that a failure line states; anything else is `bus.defect`."""
    kinds: dict[str, Any] = {
        "unreadable": Unreadable,
        "configuration": ConfigurationError,
        "refused": Refused,
    }
    match = _FAILURE.match(line)
    if not match:
        return Undecided("bus.defect", "the other side failed without a reason that can be read")
    made = kinds.get(match[1], Undecided)(match[2], match[3])
    assert isinstance(made, ComityError)
    return made
