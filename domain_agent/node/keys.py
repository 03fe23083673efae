"""The node's keys: in memory only, made at start, and gone with the process (session.md 1).

The signing key lives as long as the boot; the seal key changes with each key epoch. An old seal key
is kept for a grace period, so that a request sealed just before the change still opens, and with it
everything it ever opened: the same request is never run twice (session.md 7).
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Final

from schemas.canonical import sha256
from schemas.errors import Refused, Undecided
from schemas.keys import SigningKey
from schemas.seal import SealKey

GRACE_S: Final = 120.0  # seconds an old seal key outlives its successor's birth (session.md 1: at most 2 min)
MAX_OPENED: Final = 200_000  # runs under one seal key: a minute's epoch at thousands per second


@dataclass(slots=True)
class SealEpoch:
    """One seal key and what it has opened."""

    epoch: int
    key: SealKey
    digest: str
    """SHA-256 of the public key in hex: its name in Execute headers."""
    dies_at: float | None = None
    """On the node's monotonic clock; None while it is the current one."""
    _seen: set[bytes] = field(default_factory=set, repr=False)

    def check_fresh(self, *names: bytes) -> None:
        """Raise `Refused` (`node.duplicate`) when one of these was opened before."""
        if not self._seen.isdisjoint(names):
            raise Refused("node.duplicate", "this request was run before")
        if len(self._seen) + len(names) > MAX_OPENED:
            raise Undecided("node.busy", "too many runs under one seal key")

    def remember(self, *names: bytes) -> None:
        """Note what was opened. It is forgotten when the key dies, never by clock."""
        self._seen.update(names)


class NodeKeys:
    """All keys of one boot. `now` is always the node's monotonic clock in seconds."""

    def __init__(self) -> None:
        self.sign = SigningKey.generate()
        self.boot_id = secrets.token_hex(16)
        self._epochs: list[SealEpoch] = []

    @property
    def current(self) -> SealEpoch | None:
        """The newest seal key; None before the first challenge."""
        return self._epochs[-1] if self._epochs else None

    def at_epoch(self, epoch: int, now: float) -> SealEpoch:
        """The seal key of this epoch, made if it is new. Raises `Refused` for an epoch of the past."""
        newest = self.current
        if newest and epoch == newest.epoch:
            return newest
        if newest and epoch < newest.epoch:
            raise Refused("node.key_epoch", f"epoch {epoch} is over; the current one is {newest.epoch}")
        if newest:
            newest.dies_at = now + GRACE_S
        key = SealKey.generate()
        made = SealEpoch(epoch, key, sha256(key.public).hex())
        self._epochs = [*self._alive(now), made]
        return made

    def named(self, digest: str, now: float) -> SealEpoch:
        """The living seal key with this digest. Raises `Refused` (`node.seal_key`)."""
        self._epochs = self._alive(now)
        for epoch in self._epochs:
            if epoch.digest == digest:
                return epoch
        raise Refused("node.seal_key", "sealed to a key that this node does not hold (any more)")

    def _alive(self, now: float) -> list[SealEpoch]:
        return [epoch for epoch in self._epochs if epoch.dies_at is None or now < epoch.dies_at]
