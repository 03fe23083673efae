"""The latest advert of each domain (nats.md 6): pure; signatures were checked before.

Adverts may be repeated, reordered, lost or kept back by the bus. Whatever their order, the newest
that still counts by the verifier's own clock wins; two different adverts under one number are
evidence against the domain that signed both, and the one that came first stays.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from schemas.errors import ConfigurationError

MAX_DOMAINS = 4096  # registers kept; the members of a charter are far fewer
MAX_TTL_S = 3600  # s that one advert may count, whatever it says
SKEW_S = 30  # s that an issuer's clock may be ahead of ours (session.md 10)


@dataclass(frozen=True, slots=True)
class Advert:
    """What the register needs of a verified advert."""

    domain: str
    epoch: int
    """Starts anew, higher, when the domain restarts."""
    seq: int
    digest: bytes
    """SHA-256 of what was signed, 32 bytes."""
    issued_at: int
    """POSIX seconds, by the issuer's clock."""
    ttl_s: int
    envelope: bytes
    """The signed bytes, as they came: they are the evidence."""

    @property
    def number(self) -> tuple[int, int]:
        return (self.epoch, self.seq)

    @property
    def expires(self) -> int:
        return self.issued_at + min(self.ttl_s, MAX_TTL_S)


@dataclass(frozen=True, slots=True)
class Accepted:
    """It is the newest of its domain now."""

    advert: Advert
    replaced: Advert | None


@dataclass(frozen=True, slots=True)
class Dropped:
    """It changes nothing."""

    why: Literal["older", "repeated", "expired", "from_the_future"]


@dataclass(frozen=True, slots=True)
class Equivocation:
    """One domain signed two different adverts under one number. Both are kept; a rule suspends it."""

    domain: str
    first: Advert
    second: Advert


Outcome: TypeAlias = Accepted | Dropped | Equivocation


class AdvertRegister:
    """One register per domain. `now` is POSIX seconds by our own clock."""

    def __init__(self) -> None:
        self._latest: dict[str, Advert] = {}
        self._evidence: dict[str, Equivocation] = {}

    def apply(self, advert: Advert, now: float) -> Outcome:
        """Take one verified advert. An expired one still counts as evidence, never as news."""
        held = self._latest.get(advert.domain)
        if held and advert.number == held.number:
            return self._same_number(held, advert)
        if held and advert.number < held.number:
            return Dropped("older")
        if advert.issued_at > now + SKEW_S:
            return Dropped("from_the_future")
        if advert.expires <= now:
            return Dropped("expired")
        if held is None and len(self._latest) >= MAX_DOMAINS:
            raise ConfigurationError("register.full", f"over {MAX_DOMAINS} domains; check the charter first")
        self._latest[advert.domain] = advert
        return Accepted(advert, held)

    def current(self, domain: str, now: float) -> Advert | None:
        """The newest advert while it counts; None when there is none, or it has expired."""
        held = self._latest.get(domain)
        return held if held and held.expires > now else None

    def live(self, now: float) -> Iterator[Advert]:
        """Every advert that counts now, in order of domain."""
        for domain in sorted(self._latest):
            if (advert := self.current(domain, now)) is not None:
                yield advert

    def equivocations(self) -> dict[str, Equivocation]:
        """The first evidence against each domain that equivocated."""
        return dict(self._evidence)

    def forget(self, domain: str) -> None:
        """Drop a domain that left the charter. Its evidence goes with it: store it first."""
        self._latest.pop(domain, None)
        self._evidence.pop(domain, None)

    def _same_number(self, held: Advert, advert: Advert) -> Outcome:
        if advert.digest == held.digest:
            return Dropped("repeated")
        found = Equivocation(advert.domain, held, advert)
        self._evidence.setdefault(advert.domain, found)
        return found
