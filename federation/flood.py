"""Flood control for what peers send (nats.md 8): pure, bounded, and before anything that costs.

The bus has no rate limit of its own, and one signature check costs more than receiving a hundred
messages. So each sender has a token bucket and a short queue; what does not fit is dropped and
counted, never logged one by one. Senders are served in turn: a loud one cannot starve a quiet one.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

Item = TypeVar("Item")
Verdict = Literal["accepted", "too_long", "over_rate", "queue_full"]
"""What became of one message."""

MAX_SENDERS = 2048  # buckets kept; the sender that was quiet longest is forgotten first


@dataclass(frozen=True, slots=True)
class FloodLimits:
    """What one sender may do to one service."""

    rate: float = 200.0
    """Messages per second, sustained."""
    burst: float = 400.0
    """Messages at once after a quiet time."""
    queue: int = 256
    """Messages that wait for a worker."""
    max_bytes: int = 256 * 1024
    """Payload of one message."""
    shut_after: int = 1000
    """Messages over the rate, without a quiet time between, after which a sender is to be shut out."""


@dataclass(slots=True)
class FloodCounts:
    """Plain counters for Prometheus."""

    accepted: int = 0
    too_long: int = 0
    over_rate: int = 0
    queue_full: int = 0

    def add(self, verdict: Verdict) -> None:
        setattr(self, verdict, getattr(self, verdict) + 1)


@dataclass(slots=True)
class _Sender(Generic[Item]):
    tokens: float
    refilled: float
    excess: int = 0
    waiting: deque[Item] = field(default_factory=deque)
    counts: FloodCounts = field(default_factory=FloodCounts)


class FloodGate(Generic[Item]):
    """Buckets and queues of one service. `now` is any monotonic clock in seconds."""

    def __init__(self, limits: FloodLimits) -> None:
        self.limits = limits
        self.total = FloodCounts()
        self._senders: OrderedDict[str, _Sender[Item]] = OrderedDict()
        self._turn: deque[str] = deque()

    @property
    def waiting(self) -> int:
        """Messages in all queues."""
        return sum(len(self._senders[name].waiting) for name in self._turn)

    def counts(self) -> dict[str, FloodCounts]:
        """Per sender; senders forgotten since are only in `total`."""
        return {name: sender.counts for name, sender in self._senders.items()}

    def offer(self, name: str, item: Item, size: int, now: float) -> Verdict:
        """Take one message of `size` bytes into the sender's queue, or say why not."""
        sender = self._sender(name, now)
        verdict = self._judge(sender, size, now)
        if verdict == "accepted":
            if not sender.waiting:
                self._turn.append(name)
            sender.waiting.append(item)
        sender.counts.add(verdict)
        self.total.add(verdict)
        return verdict

    def charge(self, name: str, now: float) -> Verdict:
        """Take the token of a message that is dropped all the same, and say whether there was one."""
        verdict = self._judge(self._sender(name, now), 0, now)
        return "over_rate" if verdict == "over_rate" else "accepted"

    def floods(self, name: str) -> bool:
        """True once, each time a sender has passed `shut_after`: its next offence counts anew."""
        sender = self._senders.get(name)
        if sender is None or sender.excess < self.limits.shut_after:
            return False
        sender.excess = 0
        return True

    def take(self) -> Item | None:
        """The next message, one sender after the other; None when nothing waits."""
        if not self._turn:
            return None
        name = self._turn.popleft()
        waiting = self._senders[name].waiting
        item = waiting.popleft()
        if waiting:
            self._turn.append(name)
        return item

    def _judge(self, sender: _Sender[Item], size: int, now: float) -> Verdict:
        if size > self.limits.max_bytes:
            return "too_long"
        elapsed = max(0.0, now - sender.refilled)
        sender.tokens = min(self.limits.burst, sender.tokens + elapsed * self.limits.rate)
        sender.refilled = now
        if sender.tokens < 1.0:
            sender.excess += 1
            return "over_rate"
        if sender.tokens >= self.limits.burst:
            sender.excess = 0
        sender.tokens -= 1.0
        return "accepted" if len(sender.waiting) < self.limits.queue else "queue_full"

    def _sender(self, name: str, now: float) -> _Sender[Item]:
        sender = self._senders.get(name)
        if sender is None:
            if len(self._senders) >= MAX_SENDERS:
                self._forget_one()
            sender = self._senders[name] = _Sender(self.limits.burst, now)
        else:
            self._senders.move_to_end(name)
        return sender

    def _forget_one(self) -> None:
        for name, sender in self._senders.items():
            if not sender.waiting:
                del self._senders[name]
                return
