"""What each domain says it can do right now, as far as we could verify who says it.

The directory ranks, it never permits: policy reads the charter's endorsed profiles, and TEE facts
come from our own appraisal. Owned by the broker's event loop; a restart begins empty and fills from
snapshots within a heartbeat.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime

from broker.select.candidates import Listing
from federation.register import Accepted, Advert, AdvertRegister, Equivocation
from receipts.statements.decided import registry_digest
from schemas.descriptors.profile import DomainProfile
from schemas.errors import Refused
from schemas.messages.advert import ReceivedAdvert, receive_advert
from schemas.papers.trust import FederationTrust

log = logging.getLogger("comity.directory")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The directory at one moment: what a decision was based on, by digest."""

    entries: tuple[Listing, ...]
    digest: bytes
    taken: datetime


class Directory:
    """Adverts by domain: newest wins, stale ones go, equivocation suspends."""

    def __init__(self, trust: FederationTrust) -> None:
        self._trust = trust
        self._register = AdvertRegister()
        self._entries: dict[str, Listing] = {}
        self._suspended: set[str] = set()
        self._profiles = {member.domain: member.endorsed.profile for member in trust.charter.members}

    def apply(self, sender: str, data: bytes, now: datetime) -> Listing | None:
        """Verify and file an advert; None when it is older than what we hold.

        Raises `Unreadable` or `Refused`; two different adverts under one (epoch, seq) suspend the
        domain and raise `Refused` (`directory.equivocation`).
        """
        keys = self._trust.keys(sender, "advert", now)
        advert = receive_advert(data, keys=keys, sender=sender, federation=self._trust.federation, now=now)
        match self._register.apply(_numbered(advert), now.timestamp()):
            case Accepted():
                entry = Listing(sender, advert.summary, advert.digest, self.profile(sender), now.timestamp())
                self._entries[sender] = entry
                return entry
            case Equivocation() as proof:
                if sender not in self._suspended:
                    log.error("two adverts under one number: suspended", extra=_envelopes(proof))
                self._suspended.add(sender)
                raise Refused("directory.equivocation", f"{sender} signed two adverts under one number")
        return None

    def profile(self, domain: str) -> DomainProfile:
        """The charter-endorsed profile. Raises `Refused` for a stranger."""
        try:
            return self._profiles[domain]
        except KeyError:
            raise Refused("directory.unknown_domain", f"{domain} is no member") from None

    def snapshot(self, now: datetime) -> Snapshot:
        """Every entry that is still alive, by domain name."""
        alive = [advert.domain for advert in self._register.live(now.timestamp())]
        entries = tuple(self._entries[domain] for domain in alive if domain not in self._suspended)
        return Snapshot(entries, registry_digest((each.domain, each.digest) for each in entries), now)

    def adverts(self, snapshot: Snapshot) -> list[bytes]:
        """The signed adverts behind a snapshot, while they are what is held here: for who must prove it."""
        listed = {entry.digest for entry in snapshot.entries}
        held = self._register.live(snapshot.taken.timestamp())
        return [advert.envelope for advert in held if advert.digest in listed]

    def collateral(self, domain: str) -> str | None:
        """Name of the bundle of collateral that a domain advertises now; None where it keeps none."""
        held = self.get(domain, datetime.now(UTC))
        return held.summary.collateral if held else None

    def get(self, domain: str, now: datetime) -> Listing | None:
        """One domain's current entry."""
        advert = self._register.current(domain, now.timestamp())
        return self._entries[domain] if advert and domain not in self._suspended else None


def _envelopes(proof: Equivocation) -> dict[str, str]:
    """Both as they were signed: anybody who has the domain's keys can check that it said both."""
    first, second = proof.first.envelope.decode(), proof.second.envelope.decode()
    return {"peer": proof.domain, "first": first, "second": second}


def _numbered(advert: ReceivedAdvert) -> Advert:
    summary = advert.summary
    return Advert(
        domain=summary.iss,
        epoch=summary.epoch,
        seq=summary.seq,
        digest=advert.digest,
        issued_at=summary.iat,
        ttl_s=summary.ttl_s,
        envelope=advert.envelope,
    )
