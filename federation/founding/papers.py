"""What the members sign: profiles, manifests, the charter, and the publisher's reference values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Self

from federation.founding.keys import DomainKeys
from federation.founding.plan import DomainPlan, Plan
from schemas import envelope
from schemas.descriptors.profile import (
    Certification,
    DomainProfile,
    LegalEntity,
    ProfileEvidence,
    RetentionClass,
    TeeClaim,
    Vouched,
)
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
from schemas.papers.manifest import DomainManifest, LogKey, RoleKey, Roots, WitnessKey, sign_manifest

MAX_MERGE_DELAY_S: Final = 10  # seconds within which a promised receipt stands in its log
SIMULATED_ASSURANCE: Final = 1
HARDWARE_ASSURANCE: Final = 3


@dataclass(frozen=True, slots=True)
class Period:
    """From when until when the founding papers hold, POSIX seconds."""

    start: int
    end: int

    @classmethod
    def of(cls, now: datetime, days: int) -> Self:
        return cls(int(now.timestamp()), int((now + timedelta(days=days)).timestamp()))


@dataclass(frozen=True, slots=True)
class Papers:
    """The signed documents of a founding, all public."""

    charter: bytes
    manifests: Mapping[str, bytes]
    reference_values: bytes

    @property
    def pin(self) -> bytes:
        """The charter's digest: what members compare out of band (32 bytes)."""
        return envelope.read(self.charter).digest


def draw_up(
    plan: Plan, keys: Mapping[str, DomainKeys], publisher: SigningKey, policy_digest: str, now: datetime
) -> Papers:
    """Every document, signed: each manifest by its domain's root, the charter by all members."""
    period = Period.of(now, plan.valid_days)
    manifests = {
        domain.name: sign_manifest(manifest(plan, domain, keys[domain.name], period), keys[domain.name].root)
        for domain in plan.domains
    }
    charter = Charter(
        federation=plan.federation,
        version=1,
        issued=period.start,
        expires=period.end,
        currency=plan.currency,
        threshold=plan.threshold,
        members=[
            member(plan, domain, keys[domain.name], manifests[domain.name], period) for domain in plan.domains
        ],
        publishers=[ImagePublisher(name=plan.publisher, jwk=publisher.public.jwk)],
        vendor_roots=plan.vendor_roots,
        simulated_roots=plan.simulated_roots,
        policy_digest=policy_digest,
    )
    roots = [keys[domain.name].root for domain in plan.domains][: envelope.MAX_SIGNATURES]
    return Papers(sign_charter(charter, *roots), manifests, reference_values(plan, publisher, period))


def log_origin(domain: str) -> str:
    """The schema-less URL that names a domain's log (receipts.md 8.2)."""
    return f"{domain}/log"


def witness_name(domain: str) -> str:
    """What a domain's witness is called in its cosignatures."""
    return f"{domain}/witness"


def manifest(plan: Plan, domain: DomainPlan, keys: DomainKeys, period: Period) -> DomainManifest:
    """The domain's word about its own keys and machines."""
    origin = log_origin(domain.name)
    return DomainManifest(
        federation=plan.federation,
        domain=domain.name,
        version=1,
        expires=period.end,
        roots=_roots(keys),
        keys=[
            RoleKey(
                thumbprint=key.thumbprint,
                jwk=key.public.jwk,
                role=role,
                not_before=period.start,
                not_after=period.end,
            )
            for role, key in keys.roles.items()
        ],
        logs=[
            LogKey(
                origin=origin,
                vkey=keys.vkey(origin),
                max_merge_delay_s=MAX_MERGE_DELAY_S,
                beside=keys.beside_vkey(origin),
            )
        ],
        witnesses=[
            WitnessKey(name=witness_name(domain.name), vkey=keys.witness_vkey(witness_name(domain.name)))
        ],
        platforms=sorted({digest for node in domain.nodes for digest in node.platforms}),
    )


def member(plan: Plan, domain: DomainPlan, keys: DomainKeys, signed: bytes, period: Period) -> Member:
    """A member with what the charter vouches for; the members together are the issuer."""
    return Member(
        domain=domain.name,
        roots=_roots(keys),
        manifest_digest=envelope.read(signed).digest.hex(),
        endorsed=Endorsement(issuer=f"{plan.federation}-charter", profile=profile(domain, period)),
    )


def profile(domain: DomainPlan, period: Period) -> DomainProfile:
    """The endorsed profile. Everything in it carries the plan's evidence class."""
    vouched = Vouched(level=domain.evidence, credential=domain.credential)
    return DomainProfile(
        domain=domain.name,
        operator=domain.operator,
        legal_entity=LegalEntity(name=domain.operator),
        jurisdictions=domain.jurisdictions,
        exposed_to=domain.exposed_to,
        evidence=ProfileEvidence(
            jurisdictions=vouched,
            exposed_to=vouched,
            ownership=vouched,
            retention=vouched,
            key_control=vouched,
        ),
        valid_from=period.start,
        valid_until=period.end,
        certifications=[
            Certification(scheme=scheme, evidence=domain.evidence, valid_until=period.end)
            for scheme in domain.certifications
        ],
        retention_classes=[RetentionClass(name="standard", seconds=domain.retention_s)],
        tee=_tee(domain),
        key_control=domain.key_control,
        carbon_g_kwh=domain.carbon_g_kwh,
    )


def reference_values(plan: Plan, publisher: SigningKey, period: Period) -> bytes:
    """The publisher's signed list: which measurement is which image, with which engines and models."""
    models = sorted({digest for digests in plan.model_digests.values() for digest in digests})
    values: Sequence[ReferenceValue] = [
        ReferenceValue(
            measurement=image.measurement,
            image_digest=image.image_digest,
            engine_digests=image.engine_digests,
            model_digests=models,
            provenance=image.provenance,
            valid_from=period.start,
            valid_until=period.end,
        )
        for image in plan.images
    ]
    listed = ReferenceValues(publisher=plan.publisher, version=1, values=list(values))
    return envelope.sign(envelope.REFERENCE_VALUES, listed.write(), publisher)


def _roots(keys: DomainKeys) -> Roots:
    return Roots(threshold=1, keys=[keys.root.public.jwk])


def _tee(domain: DomainPlan) -> list[TeeClaim]:
    """A hint for ranking: what the nodes will have to prove anyway."""
    kinds = {(node.chip is not None, node.gpus is not None) for node in domain.nodes}
    return [
        TeeClaim(platform="simulated", assurance=SIMULATED_ASSURANCE, confidential_gpu=gpu)
        if simulated
        else TeeClaim(platform="snp", assurance=HARDWARE_ASSURANCE, confidential_gpu=gpu)
        for simulated, gpu in sorted(kinds)
    ]
