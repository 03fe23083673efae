"""Challenges: ours, which make our peers' nodes prove themselves to us, and theirs, which ours answer.

One quote of a node answers all current challenges at once (session.md 2). Age is always measured on
the clock of whoever issued the challenge, from when it was issued. In memory: after a restart the
first new challenge is answered within seconds.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from attestation.appraise import IssuedChallenge
from schemas.proof.binding import CHALLENGE_BYTES

ROTATE_S: Final = 50.0  # seconds a challenge is current; session.md 2 allows 60
STEP_BACK_S: Final = (
    2.0  # seconds that a moment may lie before a current one: whole seconds, a clock's correction
)
KEEP_S: Final = 86_400.0  # seconds an old one may still be answered for: the longest age anyone may accept
MAX_KEPT: Final = 2048  # our own challenges of a day at `ROTATE_S`
MAX_ANSWERED: Final = 200  # challenges in one quote: its document of some 600 bytes each fits one bus message
PACE_S: Final = (
    10.0  # seconds that a peer's challenge counts at least, on average: each makes all nodes quote
)
SPARE: Final = 5.0  # challenges that may come sooner, as after a peer's restarts
FORGET_PEER_S: Final = 3600.0  # seconds without an advert after which a peer's challenge is answered no more


class OwnChallenges:
    """What this domain asks. `now` is POSIX seconds on our clock."""

    def __init__(self, domain: str) -> None:
        self._domain = domain
        self._issued: list[IssuedChallenge] = []

    def current(self, now: float) -> IssuedChallenge:
        """The challenge to publish, drawn anew when the last one is old enough, or the clock was set back."""
        newest = self._issued[-1] if self._issued else None
        if newest is None or not -STEP_BACK_S <= now - newest.issued_at < ROTATE_S:
            newest = IssuedChallenge(self._domain, secrets.token_bytes(CHALLENGE_BYTES), now)
            kept = [each for each in self._issued if now - each.issued_at < KEEP_S]
            self._issued = [*kept[-MAX_KEPT:], newest]
        return newest

    def issued(self, now: float) -> list[IssuedChallenge]:
        """All that evidence may answer, the current one included."""
        self.current(now)
        return list(self._issued)


@dataclass(frozen=True, slots=True)
class _Heard:
    value: bytes
    at: float
    spare: float
    """Challenges that may follow at once."""


class PeerChallenges:
    """What the peers ask now, by their latest verified adverts."""

    def __init__(self) -> None:
        self._heard: dict[str, _Heard] = {}
        self.version = 0
        """Rises with every new challenge: a node's next quote is due soon."""

    def note(self, domain: str, value: bytes, now: float) -> None:
        """A peer's current challenge, authenticated by the caller.

        One that comes sooner than a peer may ask waits: it counts with a later advert that repeats it.
        """
        held = self._heard.get(domain, _Heard(b"", now, SPARE))
        spare = min(SPARE, held.spare + max(0.0, now - held.at) / PACE_S)
        if value != held.value and spare >= 1:
            self.version += 1
            held, spare = _Heard(value, now, spare), spare - 1
        self._heard[domain] = _Heard(held.value, now, spare)

    def current(self, now: float) -> Mapping[str, bytes]:
        """Per peer; beyond what one quote can answer, those heard last count."""
        fresh = {domain: each for domain, each in self._heard.items() if now - each.at < FORGET_PEER_S}
        newest = sorted(fresh, key=lambda domain: fresh[domain].at)[-(MAX_ANSWERED - 1) :]
        return {domain: fresh[domain].value for domain in newest}
