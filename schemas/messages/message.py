"""The frame of every message between domains, and the one way to accept one.

A message says itself who sends it to whom, in which negotiation, and when it ends; the bus rewrites
subjects and may replay, so that nothing outside the signed bytes counts.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Final, Generic, TypeVar

from pydantic import Field

from schemas import envelope
from schemas.canonical import Wire
from schemas.errors import Refused
from schemas.keys import SigningKey, VerifyKey
from schemas.primitives import Count, Digest, DomainName, Label, Seconds, Token

CLOCK_SKEW_S: Final = 30  # seconds of tolerance between two domains' clocks (session.md 10)
MAX_LIFETIME_S: Final = 3600  # seconds a message may stay valid; bounds the replay cache
MAX_REPLAY_ENTRIES: Final = 50_000  # nonces of one issuer; beyond it its messages are refused, not forgotten
FIRST: Final = "0" * 64
"""`prev` of the first message of a negotiation."""


class Message(Wire):
    """Fields that every message begins with (C1). Times are POSIX seconds on the issuer's clock."""

    typ: Label
    federation: Label
    iss: DomainName
    aud: DomainName
    nid: Token
    """Negotiation id, a UUIDv7."""
    seq: Count
    iat: Seconds
    exp: Seconds
    nonce: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    prev: Digest
    """DSSE digest of the previous message of this negotiation: the transcript is a chain."""


M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True)
class Received(Generic[M]):
    """A message that was authenticated, with its identity."""

    body: M
    digest: bytes
    signer: str
    envelope: bytes = field(repr=False)


def new_nonce() -> str:
    """128 random bits as hex."""
    return secrets.token_hex(16)


def sign(message: Message, key: SigningKey) -> bytes:
    """The message's envelope, under a key of role `message`."""
    return envelope.sign(envelope.MESSAGE, message.write(), key)


def receive(
    data: bytes,
    model: type[M],
    *,
    keys: Iterable[VerifyKey],
    sender: str,
    audience: str,
    federation: str,
    now: datetime,
) -> Received[M]:
    """Authenticate, then parse, then judge (cheap before costly is the bus's part).

    `keys`: the sender's registered message keys at `now`. Raises `Unreadable`, or `Refused` with
    `message.type`, `message.sender`, `message.audience`, `message.federation`, `message.expired`,
    `message.lifetime` or `CLOCK_SKEW`.
    """
    verified = envelope.verify(data, envelope.MESSAGE, keys)
    body = model.read(verified.payload)
    if body.typ != model.__name__:
        raise Refused("message.type", f"a {model.__name__} was expected, not a {body.typ}")
    if body.iss != sender:
        raise Refused("message.sender", f"signed as {body.iss}, received from {sender}")
    if body.aud != audience:
        raise Refused("message.audience", f"meant for {body.aud}, not for {audience}")
    if body.federation != federation:
        raise Refused("message.federation", "another federation's message")
    check_times(body.iat, body.exp, now)
    return Received(body, verified.digest, verified.signer, data)


def check_times(iat: int, exp: int, now: datetime) -> None:
    """Raise `Refused` unless `now` lies within iat..exp, give or take `CLOCK_SKEW_S`."""
    seconds = int(now.timestamp())
    if not 0 < exp - iat <= MAX_LIFETIME_S:
        raise Refused("message.lifetime", f"valid for {exp - iat} s, at most {MAX_LIFETIME_S} allowed")
    if iat > seconds + CLOCK_SKEW_S:
        raise Refused("CLOCK_SKEW", f"issued at {iat}, but it is {seconds} here")
    if exp < seconds - CLOCK_SKEW_S:
        raise Refused("message.expired", f"ended at {exp}, it is {seconds} here")


class ReplayCache:
    """Remembers (issuer, nonce) until the message has surely expired. Owned by one receiver.

    In memory: after a restart a message of at most `MAX_LIFETIME_S` could come again; the state it
    would change (holds, runs) is void after a restart too (session.md 11).
    """

    def __init__(self) -> None:
        self._seen: dict[str, _Nonces] = {}

    def admit(self, message: Message, now: datetime) -> None:
        """Note the message. Raises `Refused` (`message.replayed`, `message.replay_cache_full`).

        Each issuer fills a part of its own: one that says too much shuts out itself alone.
        """
        seen = self._seen.setdefault(message.iss, _Nonces())
        seen.admit(message.nonce, message.exp + CLOCK_SKEW_S, int(now.timestamp()))


@dataclass(slots=True)
class _Nonces:
    """What one issuer has said lately."""

    until: dict[str, int] = field(default_factory=dict)
    swept: int = 0

    def admit(self, nonce: str, until: int, now: int) -> None:
        if nonce in self.until:
            raise Refused("message.replayed", "this nonce was used before")
        full = len(self.until) >= MAX_REPLAY_ENTRIES
        since = abs(now - self.swept)  # a clock may be set back
        if since >= CLOCK_SKEW_S or (full and since):
            self.until = {each: end for each, end in self.until.items() if end >= now}
            self.swept = now
        if len(self.until) >= MAX_REPLAY_ENTRIES:
            raise Refused("message.replay_cache_full", "too many messages at once")
        self.until[nonce] = until
