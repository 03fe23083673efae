"""Which federation and domain a program belongs to: the part of the file that agent and node share.

domain = "clinic.de"
[federation]  charter, pin, manifests, reference_values      [bus]  url, seed, ca
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from domain_agent.toml_file import DIGEST, DOMAIN, Section, read_public
from federation.client.login import overridden
from federation.connection import BusSettings
from schemas.errors import ConfigurationError, Refused, Unreadable
from schemas.papers.trust import FederationTrust

ANY: Final = "any"
LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, slots=True)
class Membership:
    """The federation, our domain in it, and what we hold as true about the others."""

    domain: str
    bus: BusSettings
    trust: FederationTrust

    @property
    def federation(self) -> str:
        return self.trust.federation

    @property
    def peers(self) -> tuple[str, ...]:
        """Every other member."""
        return tuple(member for member in self.trust.members if member != self.domain)


def read_membership(top: Section, federation: Section, user: str) -> Membership:
    """The shared keys of the file. `user`: our login on the bus (`agent`, `node.<id>`).

    federation: the `[federation]` table; the caller may read more of its keys and finishes it.
    Raises `ConfigurationError`, also when the pinned charter does not hold or does not name us.
    """
    domain = top.text("domain", DOMAIN, write='domain = "clinic.example"')
    bus = _bus(top.child("bus"), domain, user)
    trust = _trust(federation, domain)
    if domain not in trust.members:
        raise top.error("domain", f"{domain} is no member", "one of " + ", ".join(trust.members))
    return Membership(domain, bus, trust)


def _bus(section: Section, domain: str, user: str) -> BusSettings:
    url = section.text("url", r"(tls|nats)://.{1,2000}", write='url = "tls://127.0.0.1:4222"')
    seed = section.secret("seed", write=f'seed = "<nkey seed file of bus user {user}>"')
    waived = section.values.get("ca") == ANY
    write = 'ca = "<PEM of the only authority trusted>", or "any" on loopback'
    ca = section.path("ca", write=write)
    if not waived:
        section.public("ca", write=write)
    section.finish()
    hosts = [urlsplit(address).hostname or "" for address in url.split(",")]
    if waived and not all(host in LOOPBACK for host in hosts):
        raise section.error("ca", 'is "any", but url leaves this machine', "a PEM file")
    settings = BusSettings(url, seed, None if waived else ca, f"{domain}/{user}", f"_INBOX.{user}")
    return overridden(settings, os.environ)


def _trust(section: Section, domain: str) -> FederationTrust:
    charter = section.public("charter", write='charter = "federation/charter.json"')
    pin = section.text("pin", DIGEST, write='pin = "<digest of the charter, agreed out of band>"')
    manifests = _files(section, "manifests", "each member's signed manifest")
    values = _files(section, "reference_values", "image publishers' signed lists")
    try:
        trust = FederationTrust.load(
            charter,
            pin=bytes.fromhex(pin),
            manifests=[read_public(path) for path in manifests],
            reference_values=[read_public(path) for path in values],
        )
        if domain in trust.members:  # a stranger is told so by name
            trust.keys(domain, "message", datetime.now(UTC))
        return trust
    except (Refused, Unreadable) as error:
        raise ConfigurationError(
            "config.trust", f"{section.source}: [federation] does not hold: {error}"
        ) from None


def _files(section: Section, key: str, holds: str) -> list[Path]:
    write = f'{key} = "<folder with {holds}>"'
    folder = section.path(key, write=write)
    if not folder.is_dir():
        raise section.error(key, f"{folder} is no folder", write)
    return sorted(path for path in folder.iterdir() if path.is_file())
