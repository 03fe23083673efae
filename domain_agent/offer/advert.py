"""This domain's adverts: one signed summary per peer, at least 1 s apart, at most 10 s, and on change.

An advert carries our current challenge and trust epoch as well, so that a peer that hears nothing
knows that it knows nothing. `(epoch, seq)` only rises: a restart begins a new epoch. Who subscribes
to what is the bus's matter; nothing is ever answered here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from attestation.appraise import IssuedChallenge
from domain_agent.admit.challenges import OwnChallenges
from domain_agent.admit.collateral import Collateral
from domain_agent.admit.revocations import Revocations
from domain_agent.clock import Clock
from domain_agent.membership import Membership
from domain_agent.offer.summary import Condenser
from schemas import envelope
from schemas.descriptors.summary import CapabilitySummary, Cell
from schemas.errors import ComityError
from schemas.keys import SigningKey
from schemas.messages.advert import sign_advert
from schemas.messages.interior import OwnAdvert
from schemas.primitives import subject_token

LEAST_S: Final = 1.0  # seconds between two adverts to the same audience
HEARTBEAT_S: Final = 10.0  # seconds of silence that we never exceed
TICK_S: Final = 0.25  # seconds between two looks at what changed

Publish = Callable[[str, bytes], Awaitable[None]]
_log = logging.getLogger("comity.agent")


@dataclass(frozen=True, slots=True)
class _Said:
    """What decides whether there is news."""

    cells: tuple[Cell, ...]
    challenge: bytes
    trust_epoch: int
    draining: bool
    collateral: str | None


@dataclass(slots=True)
class Advertiser:
    """Composes, signs and publishes. One per agent."""

    membership: Membership
    key: SigningKey = field(repr=False)
    condenser: Condenser
    own: OwnChallenges
    revocations: Revocations
    publish: Publish
    clock: Clock
    k_min: int
    ttl_s: int
    collateral: Collateral | None = None
    draining: bool = False
    _epoch: int = 0
    _seq: int = 0
    _said: _Said | None = None
    _said_at: float = float("-inf")
    _prev: str | None = None
    _latest: OwnAdvert | None = None
    _greet: bool = False

    def latest(self) -> OwnAdvert:
        """The newest advert, made now if there is none yet."""
        return self._latest or self._compose(self._news())

    def greet(self) -> None:
        """A peer began anew: it should hear of us without waiting for a heartbeat."""
        self._greet = True

    async def run(self) -> None:
        """Advertise for as long as the agent runs."""
        while True:
            await self.turn()
            await asyncio.sleep(TICK_S)

    async def turn(self) -> bool:
        """Advertise if it is time. Returns whether it did."""
        news, since = self._news(), self.clock.steady() - self._said_at
        if since < LEAST_S or (news == self._said and since < HEARTBEAT_S and not self._greet):
            return False
        await self._send(self._compose(news))
        return True

    async def farewell(self) -> None:
        """Say once more, and at once, that we take nothing new."""
        self.draining = True
        await self._send(self._compose(self._news()))

    def _news(self) -> _Said:
        return _Said(
            tuple(self.condenser.cells(self.clock.steady())),
            self.own.current(self.clock.wall()).value,
            self.revocations.trust_epoch,
            self.draining,
            self.collateral.digest if self.collateral else None,
        )

    def _compose(self, news: _Said) -> OwnAdvert:
        wall = self.clock.wall()
        challenge = self.own.current(wall)
        self._epoch = self._epoch or int(1000 * wall)  # ms: a restart within one second is a new epoch too
        summary = CapabilitySummary(
            federation=self.membership.federation,
            iss=self.membership.domain,
            epoch=self._epoch,
            seq=self._seq,
            iat=int(wall),
            ttl_s=self.ttl_s,
            prev=self._prev,
            profile_digest=self._profile_digest(),
            k_min=self.k_min,
            challenge=challenge.value.hex(),
            trust_epoch=news.trust_epoch,
            cells=list(news.cells),
            draining=news.draining,
            collateral=news.collateral,
        )
        signed = sign_advert(summary, self.key)
        self._prev = envelope.read(signed).digest.hex()
        self._seq += 1
        self._said, self._said_at, self._greet = news, self.clock.steady(), False
        self._latest = _own(signed, challenge, news.trust_epoch)
        return self._latest

    async def _send(self, advert: OwnAdvert) -> None:
        """A lost connection is no news: the next turn after it says everything again."""
        signed = advert.advert.encode("utf-8")
        subjects = [(f"peer.{subject_token(peer)}.advert", signed) for peer in self.membership.peers]
        for subject, payload in [("broker.advert", advert.write()), *subjects]:
            with suppress(ComityError):
                await self.publish(subject, payload)

    def _profile_digest(self) -> str:
        members = {member.domain: member for member in self.membership.trust.charter.members}
        return members[self.membership.domain].endorsed.profile.value_digest().hex()


def _own(signed: bytes, challenge: IssuedChallenge, trust_epoch: int) -> OwnAdvert:
    return OwnAdvert(
        advert=signed.decode("utf-8"),
        challenge=challenge.value.hex(),
        issued_at=int(challenge.issued_at),
        trust_epoch=trust_epoch,
    )
