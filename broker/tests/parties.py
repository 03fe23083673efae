"""Two domains that trust each other, and a node of one of them with genuine simulated evidence."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from attestation.appraise import IssuedChallenge, NodeAppraisal, appraise_node, platform_digest
from attestation.expected import Expectations
from attestation.testing.chip import SimulatedChip, SimulatedVendor
from attestation.testing.expectations import simulated_expectations
from attestation.testing.forge import MEASUREMENT
from broker.peers import Peers
from broker.placing.negotiate import Offered
from receipts.note import NoteSigner
from schemas import envelope, seal
from schemas.descriptors.capability import Rates
from schemas.descriptors.profile import DomainProfile, LegalEntity, ProfileEvidence
from schemas.descriptors.request import PolicyTags
from schemas.keys import SigningKey
from schemas.messages.message import Received
from schemas.messages.negotiation import CallForOffers, Offer
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
from schemas.papers.manifest import DomainManifest, LogKey, Role, RoleKey, Roots, sign_manifest
from schemas.papers.trust import FederationTrust
from schemas.proof import binding
from schemas.proof.evidence import ChallengeProof, CpuEvidence, ModelFile, NodeConfiguration, NodeEvidence

FEDERATION = "test"
CONSUMER, PROVIDER = "clinic.de", "cloud.fr"
CAPABILITY = "chat.small/tiny"
MODEL = "11" * 32
ENGINE = "22" * 32
CHALLENGE = b"\x07" * 32
DAY = 86_400


@dataclass(slots=True)
class SimulatedNode:
    """A provider's node: keys in memory, a chip, and evidence that answers the consumer's challenge."""

    chip: SimulatedChip
    domain: str = PROVIDER
    node_id: str = "n1"
    sign: SigningKey = field(default_factory=SigningKey.generate)
    seal: seal.SealKey = field(default_factory=seal.SealKey.generate)

    def evidence(self, challenges: dict[str, bytes] | None = None, **changes: Any) -> bytes:
        tree = binding.ChallengeTree.over(challenges or {CONSUMER: CHALLENGE})
        fields: dict[str, Any] = {
            "federation": FEDERATION,
            "domain": self.domain,
            "node_id": self.node_id,
            "boot_id": "boot1",
            "key_epoch": 1,
            "sign_spki": self.sign.public.spki,
            "seal_key": self.seal.public,
            "challenge_root": tree.root.hex(),
            "challenges": [
                ChallengeProof(
                    domain=domain,
                    index=path.index,
                    size=path.size,
                    path=[part.hex() for part in path.path],
                )
                for domain, path in tree.paths.items()
            ],
            "configuration": NodeConfiguration(
                engine="in-tee",
                engine_kind="llama.cpp",
                engine_digest=ENGINE,
                engine_flags=[],
                engine_address="http://127.0.0.1:1",
                models=[ModelFile(capability=CAPABILITY, digest=MODEL)],
                prompt_logging=False,
            ),
        } | changes
        blank = NodeEvidence(**fields, cpu=CpuEvidence(tee="snp", report=b"", endorsements=[]))
        quoted = self.chip.quote(blank.expected_report_data())
        return NodeEvidence(**fields, cpu=quoted).write()


@dataclass(slots=True)
class Parties:
    """Everything that both sides hold."""

    trust: FederationTrust
    keys: dict[str, dict[Role, SigningKey]]
    node: SimulatedNode
    expectations: Expectations
    vendor: SimulatedVendor

    def peers(self, domain: str) -> Peers:
        """A road that must not be used: tests that need one give their own."""

        async def nobody(sender: str, op: str, payload: bytes) -> bytes:
            raise AssertionError(f"{op} from {sender} ({len(payload)} bytes) was not expected")

        return Peers(None, self.trust, domain, self.keys[domain]["message"], nobody)  # type: ignore[arg-type]

    def appraise(self, evidence: bytes | None = None, at: datetime | None = None) -> NodeAppraisal:
        now = at or datetime.now(UTC)
        return appraise_node(
            evidence or self.node.evidence(),
            expectations=self.expectations,
            challenges=[IssuedChallenge(CONSUMER, CHALLENGE, datetime.now(UTC).timestamp())],
            enrolments=self.trust.enrolments(),
            at=now,
        )

    def offered(self, **changes: Any) -> Offered:
        """A call by the consumer and the provider's offer of its node."""
        consumer, provider = self.peers(CONSUMER), self.peers(PROVIDER)
        call = consumer.compose(CallForOffers, PROVIDER, nid="nid1", **call_terms())
        call_data = consumer.sign(call)
        call_received = provider.receive(call_data, CallForOffers, CONSUMER)
        fields: dict[str, Any] = {
            "call": call_received.digest.hex(),
            "capability": CAPABILITY,
            "model_digest": MODEL,
            "rates": Rates(input=1, output=2, cached=0),
            "predicted_price": 3,
            "retention_s": 0,
            "node_sign": self.node.sign.thumbprint,
            "node_seal": _hex(self.node.seal.public),
            "evidence": _hex(self.node.evidence()),
            "profile_digest": "33" * 32,
            "policy_digest": "44" * 32,
            "hold_id": "hold1",
            "hold_ms": 3000,
            "queue_ms": 0,
            "headroom": 10,
        } | changes
        offer = provider.compose(
            Offer, CONSUMER, nid="nid1", seq=1, prev=call_received.digest.hex(), **fields
        )
        received: Received[Offer] = consumer.receive(provider.sign(offer), Offer, PROVIDER)
        return Offered(PROVIDER, call_received, received)


def call_terms(**changes: Any) -> dict[str, Any]:
    """The fields of a call that do not matter to most tests."""
    tags = PolicyTags(data_class="public", residency=["Global"], origin="DE")
    return {
        "capability": "chat.small",
        "tags": tags,
        "tags_digest": tags.value_digest().hex(),
        "tenant_policy_digest": "55" * 32,
        "request_commitment": "66" * 32,
        "input_length": 256,
        "input_tokens": 8,
        "max_output_tokens": 16,
        "hold_ms": 3000,
    } | changes


def make_parties() -> Parties:
    vendor = SimulatedVendor.create("Milan", name="demo")
    node = SimulatedNode(vendor.make_chip())
    platform = platform_digest(node.chip.chip_id).hex()
    roots = {domain: SigningKey.generate() for domain in (CONSUMER, PROVIDER)}
    roles: tuple[Role, ...] = ("message", "receipt", "advert", "promise", "attestation-verifier")
    keys = {domain: {role: SigningKey.generate() for role in roles} for domain in roots}
    manifests = {
        domain: _manifest(domain, roots[domain], keys[domain], [platform] if domain == PROVIDER else [])
        for domain in roots
    }
    publisher = SigningKey.generate()
    charter = _charter(vendor, roots, manifests, publisher)
    trust = FederationTrust.load(
        charter,
        pin=envelope.read(charter).digest,
        manifests=manifests.values(),
        reference_values=[_values(publisher)],
    )
    expectations = simulated_expectations(
        vendor.root_toml(), engine_digests=[ENGINE], models={CAPABILITY: [MODEL]}
    )
    return Parties(trust, keys, node, expectations, vendor)


def _now() -> int:
    return int(datetime.now(UTC).timestamp())


def _hex(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()


def _manifest(domain: str, root: SigningKey, keys: dict[Role, SigningKey], platforms: list[str]) -> bytes:
    listed = [
        RoleKey(
            thumbprint=key.thumbprint,
            jwk=key.public.jwk,
            role=role,
            not_before=_now() - DAY,
            not_after=_now() + DAY,
        )
        for role, key in keys.items()
    ]
    manifest = DomainManifest(
        federation=FEDERATION,
        domain=domain,
        version=1,
        expires=_now() + DAY,
        roots=Roots(threshold=1, keys=[root.public.jwk]),
        keys=listed,
        logs=[LogKey(origin=f"log.{domain}", vkey=log_signer(domain).key.vkey, max_merge_delay_s=10)],
        platforms=platforms,
    )
    return sign_manifest(manifest, root)


def log_signer(domain: str) -> NoteSigner:
    """Who signs the checkpoints of a domain's log."""
    return NoteSigner.of(f"log.{domain}", b"\x01" * 32)


def _charter(
    vendor: SimulatedVendor, roots: dict[str, SigningKey], manifests: dict[str, bytes], publisher: SigningKey
) -> bytes:
    members = [
        Member(
            domain=domain,
            roots=Roots(threshold=1, keys=[roots[domain].public.jwk]),
            manifest_digest=envelope.read(manifests[domain]).digest.hex(),
            endorsed=Endorsement(issuer="charter", profile=profile(domain)),
        )
        for domain in roots
    ]
    charter = Charter(
        federation=FEDERATION,
        version=1,
        issued=_now() - DAY,
        expires=_now() + DAY,
        currency="EUR",
        threshold=2,
        members=members,
        publishers=[ImagePublisher(name="images", jwk=publisher.public.jwk)],
        vendor_roots=["amd-sev-snp"],
        simulated_roots=[SimulatedRoot(name="demo", product="Milan", sha256=vendor.root_digest)],
        policy_digest="00" * 32,
    )
    return sign_charter(charter, *roots.values())


def profile(domain: str) -> DomainProfile:
    return DomainProfile(
        domain=domain,
        operator=domain,
        legal_entity=LegalEntity(name=domain),
        jurisdictions=[domain.rpartition(".")[2].upper()],
        exposed_to=[],
        evidence=ProfileEvidence(),
        valid_from=_now() - DAY,
        valid_until=_now() + DAY,
    )


def _values(publisher: SigningKey) -> bytes:
    value = ReferenceValue(
        measurement=MEASUREMENT.hex(),
        image_digest="77" * 32,
        engine_digests=[ENGINE],
        model_digests=[MODEL],
        provenance="test",
        valid_from=_now() - DAY,
        valid_until=_now() + DAY,
    )
    listed = ReferenceValues(publisher="images", version=1, values=[value])
    return envelope.sign(envelope.REFERENCE_VALUES, listed.write(), publisher)
