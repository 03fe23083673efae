"""A small federation of two, made anew for each test that alters it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from schemas import envelope
from schemas.descriptors.profile import DomainProfile, LegalEntity, ProfileEvidence
from schemas.keys import SigningKey
from schemas.papers.charter import (
    Charter,
    Endorsement,
    ImagePublisher,
    Member,
    ReferenceValue,
    ReferenceValues,
    sign_charter,
)
from schemas.papers.manifest import DomainManifest, LogKey, Role, RoleKey, Roots, sign_manifest
from schemas.papers.trust import FederationTrust

NOW = datetime(2026, 6, 1, tzinfo=UTC)
START = int(NOW.timestamp()) - 3600
END = START + 30 * 86_400
ROLES: tuple[Role, ...] = ("message", "receipt", "advert")


@dataclass(slots=True)
class House:
    """One domain: its secret keys, and the documents that they sign."""

    domain: str
    root: SigningKey
    keys: dict[Role, SigningKey]
    manifest: DomainManifest

    @property
    def signed(self) -> bytes:
        return sign_manifest(self.manifest, self.root)


@dataclass(slots=True)
class Founding:
    """Everything that a verifier of the federation is given."""

    houses: dict[str, House]
    publisher: SigningKey
    charter: Charter

    @property
    def signed(self) -> bytes:
        return sign_charter(self.charter, *(house.root for house in self.houses.values()))

    def values(self, version: int = 1, **changes: object) -> bytes:
        value = ReferenceValue.model_validate(
            {
                "measurement": "ab" * 48,
                "image_digest": "cd" * 32,
                "engine_digests": [],
                "model_digests": [],
                "provenance": "test",
                "valid_from": START,
                "valid_until": END,
            }
            | changes
        )
        listed = ReferenceValues(publisher="images", version=version, values=[value])
        return envelope.sign(envelope.REFERENCE_VALUES, listed.write(), self.publisher)

    def trust(self, *values: bytes) -> FederationTrust:
        return FederationTrust.load(
            self.signed,
            pin=envelope.read(self.signed).digest,
            manifests=[house.signed for house in self.houses.values()],
            reference_values=values or [self.values()],
        )


def role_key(role: Role, key: SigningKey) -> RoleKey:
    return RoleKey(thumbprint=key.thumbprint, jwk=key.public.jwk, role=role, not_before=START, not_after=END)


def make_house(domain: str) -> House:
    root, keys = SigningKey.generate(), {role: SigningKey.generate() for role in ROLES}
    manifest = DomainManifest(
        federation="test",
        domain=domain,
        version=1,
        expires=END,
        roots=Roots(threshold=1, keys=[root.public.jwk]),
        keys=[role_key(role, key) for role, key in keys.items()],
        logs=[LogKey(origin=f"{domain}/log", vkey="test", max_merge_delay_s=10)],
        platforms=["ef" * 32],
    )
    return House(domain, root, keys, manifest)


def member(house: House) -> Member:
    profile = DomainProfile(
        domain=house.domain,
        operator="Operator",
        legal_entity=LegalEntity(name="Operator"),
        jurisdictions=["DE"],
        exposed_to=[],
        evidence=ProfileEvidence(),
        valid_from=START,
        valid_until=END,
    )
    return Member(
        domain=house.domain,
        roots=house.manifest.roots,
        manifest_digest=envelope.read(house.signed).digest.hex(),
        endorsed=Endorsement(issuer="charter", profile=profile),
    )


def make_founding(threshold: int = 2) -> Founding:
    houses = {domain: make_house(domain) for domain in ("a.example", "b.example")}
    publisher = SigningKey.generate()
    charter = Charter(
        federation="test",
        version=1,
        issued=START,
        expires=END,
        currency="EUR",
        threshold=threshold,
        members=[member(house) for house in houses.values()],
        publishers=[ImagePublisher(name="images", jwk=publisher.public.jwk)],
        vendor_roots=["amd-sev-snp"],
        simulated_roots=[],
        policy_digest="00" * 32,
    )
    return Founding(houses, publisher, charter)


@pytest.fixture
def found() -> Callable[..., Founding]:
    return make_founding


@pytest.fixture
def founding() -> Founding:
    return make_founding()


@pytest.fixture(scope="session")
def now() -> datetime:
    return NOW
