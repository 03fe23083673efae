"""A domain's signed advert: its capability summary, for one audience.

The summary may only rank, never permit. It brings the domain's fresh challenge and its trust epoch
(session.md 2 and 5).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from schemas import envelope
from schemas.descriptors.summary import CapabilitySummary
from schemas.errors import Refused
from schemas.keys import SigningKey, VerifyKey
from schemas.messages.message import CLOCK_SKEW_S

MAX_ADVERT_BYTES: Final = 24 * 1024  # envelope; the summary inside is at most 16 KB


@dataclass(frozen=True, slots=True)
class ReceivedAdvert:
    """An authenticated advert."""

    summary: CapabilitySummary
    digest: bytes
    envelope: bytes = field(repr=False)


def sign_advert(summary: CapabilitySummary, key: SigningKey) -> bytes:
    """The advert's envelope, under a key of role `advert`."""
    return envelope.sign(envelope.ADVERT, summary.write(), key)


def receive_advert(
    data: bytes, *, keys: Iterable[VerifyKey], sender: str, federation: str, now: datetime
) -> ReceivedAdvert:
    """Authenticate a peer's advert. Order and expiry in the directory: `federation.register`.

    Raises `Unreadable`, or `Refused` (`advert.too_long`, `advert.sender`, `advert.expired`, `CLOCK_SKEW`).
    """
    if len(data) > MAX_ADVERT_BYTES:
        raise Refused("advert.too_long", f"{len(data)} bytes, at most {MAX_ADVERT_BYTES}")
    verified = envelope.verify(data, envelope.ADVERT, keys)
    summary = CapabilitySummary.read(verified.payload)
    if (summary.iss, summary.federation) != (sender, federation):
        raise Refused("advert.sender", f"signed as {summary.iss}, received from {sender}")
    seconds = int(now.timestamp())
    if summary.iat > seconds + CLOCK_SKEW_S:
        raise Refused("CLOCK_SKEW", f"issued at {summary.iat}, but it is {seconds} here")
    if summary.iat + summary.ttl_s < seconds - CLOCK_SKEW_S:
        raise Refused("advert.expired", "this advert's time is over")
    return ReceivedAdvert(summary, verified.digest, data)
