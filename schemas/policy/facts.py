"""What a decision is about: a request's context and a place that might serve it.

Every field is mandatory, so that nothing can be left out and read as free. Legal attributes come
from the charter-endorsed profile, TEE attributes from our own appraisal alone (session.md 5), and
the price is the predicted total of this very request (DESIGN 19).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Final, Literal, Self

from schemas.descriptors.profile import SELF_DECLARED, DomainProfile
from schemas.descriptors.tags import UNBOUNDED, PolicyTags
from schemas.errors import Refused
from schemas.policy.jurisdictions import PREMISES, chain, premises_of

NO_PRICE_BOUND: Final = 2**53 - 1  # micro-units
UNKNOWN_AGE: Final = UNBOUNDED
UNKNOWN_RETENTION: Final = UNBOUNDED
UNKNOWN_CARBON: Final = UNBOUNDED
STRONGEST_BINDING: Final = "derived-nonce+evidence-hash"
BINDING_MODES: Final = frozenset(
    {"none", "cpu-only", "unbound", "shared-nonce", "derived-nonce", "evidence-hash", STRONGEST_BINDING}
)
"""The words of gpu.md 10; `none` where nothing was appraised."""
DESCRIBED: Final = 512  # facts remembered: a federation's domains for some seconds


@dataclass(frozen=True, slots=True)
class RequestContext:
    """The request's side. Lists are sets of vocabulary words; `premises` is resolved already."""

    consumer: str
    """The domain whose application asks."""
    tenant: str
    application: str
    data_class: str
    residency: frozenset[str]
    origin: str
    forbid_regimes: frozenset[str]
    require_certs: frozenset[str]
    min_assurance: int
    confidential_gpu: bool
    max_retention_s: int
    max_attestation_age_s: int
    max_carbon: int
    max_price: int
    """Micro-units for the whole request."""
    allow_debug: bool
    """The tenant policy's word alone."""
    simulated_allowed: bool
    """True when the charter lists a simulated root by name."""

    @classmethod
    def of(
        cls,
        tags: PolicyTags,
        *,
        consumer: str,
        tenant: str,
        application: str,
        max_price: int | None,
        allow_debug: bool,
        simulated_allowed: bool,
    ) -> Self:
        """From effective tags. Raises `Refused` when any of them is not stated."""
        data_class, residency, origin = tags.data_class, tags.residency, tags.origin
        regimes, certs, assurance = tags.forbid_regimes, tags.require_certs, tags.min_assurance
        gpu, retention, age = tags.confidential_gpu, tags.max_retention_s, tags.max_attestation_age_s
        carbon = tags.max_carbon_g_kwh
        if (
            data_class is None
            or residency is None
            or origin is None
            or regimes is None
            or certs is None
            or assurance is None
            or gpu is None
            or retention is None
            or age is None
            or carbon is None
        ):
            raise Refused("policy.tags_incomplete", "effective tags state every field")
        return cls(
            consumer=consumer,
            tenant=tenant,
            application=application,
            data_class=data_class,
            residency=frozenset(premises_of(consumer) if code == PREMISES else code for code in residency),
            origin=origin,
            forbid_regimes=frozenset(regimes),
            require_certs=frozenset(certs),
            min_assurance=assurance,
            confidential_gpu=gpu,
            max_retention_s=retention,
            max_attestation_age_s=age,
            max_carbon=carbon,
            max_price=NO_PRICE_BOUND if max_price is None else max_price,
            allow_debug=allow_debug,
            simulated_allowed=simulated_allowed,
        )


@dataclass(frozen=True, slots=True)
class Unusable:
    """A domain about which nothing may be decided: the engine is not even called (A3.1)."""

    domain: str
    reason: Literal["UNKNOWN-DOMAIN", "PROFILE-SIGNATURE", "PROFILE-EXPIRED"]


@dataclass(frozen=True, slots=True)
class DomainFacts:
    """A domain as its endorsed profile describes it at one time."""

    domain: str
    profile_digest: str
    status: str
    inside: frozenset[str]
    """Places that enclose *every* place of the domain, and its own premises."""
    exposed_to: frozenset[str]
    certs: frozenset[str]
    transfer_basis: frozenset[str]
    retention_s: int
    """The shortest promise on offer."""
    carbon: int
    jurisdiction_evidence: int
    evidence: int
    """The weakest class among location, exposure and ownership."""
    key_control: str
    support_access: frozenset[str]
    seal: int

    @classmethod
    def of(cls, profile: DomainProfile | None, domain: str, at: datetime) -> DomainFacts | Unusable:
        """Facts of an authenticated profile (the caller checked the signature over it), or why not."""
        if profile is None or profile.domain != domain:
            return Unusable(domain, "UNKNOWN-DOMAIN")
        return _described(_Named(profile.digest, profile), int(at.timestamp()))

    @classmethod
    def _of(cls, profile: DomainProfile, now: int) -> DomainFacts | Unusable:
        if not profile.valid_from <= now < profile.valid_until:
            return Unusable(profile.domain, "PROFILE-EXPIRED")
        retention = [entry.seconds for entry in profile.retention_classes]
        return cls(
            domain=profile.domain,
            profile_digest=profile.digest,
            status=profile.status,
            inside=enclosing(profile.jurisdictions) | {premises_of(profile.domain)},
            exposed_to=frozenset(profile.exposed_to),
            certs=_held_certificates(profile, now),
            transfer_basis=_usable_bases(profile, now),
            retention_s=min(min(retention, default=UNKNOWN_RETENTION), UNKNOWN_RETENTION),
            carbon=UNKNOWN_CARBON if profile.carbon_g_kwh is None else profile.carbon_g_kwh,
            jurisdiction_evidence=profile.evidence.jurisdictions.level,
            evidence=profile.lowest_evidence,
            key_control=profile.key_control,
            support_access=frozenset(profile.support_access),
            seal=min(profile.seal.values(), default=0),
        )


@dataclass(frozen=True, slots=True)
class _Named:
    """A profile that counts as the same where its digest is."""

    digest: str
    profile: DomainProfile = field(compare=False)


@lru_cache(maxsize=DESCRIBED)
def _described(named: _Named, now: int) -> DomainFacts | Unusable:
    """A request asks for the facts of each domain several times in the same second."""
    return DomainFacts._of(named.profile, now)


@dataclass(frozen=True, slots=True)
class AttestedFacts:
    """What our own appraisal of the node established. Nothing here comes from the provider's word."""

    assurance: int
    """0 none, 1 simulated TEE, 2 hardware with a warning, 3 affirmed, 4 with CPU and GPU bound."""
    simulated: bool
    debug_allowed: bool
    confidential_gpu: bool
    engine_in_tee: bool
    binding_mode: str
    """How CPU and GPU are tied together (gpu.md 10); `cpu-only` without a GPU."""
    enrolled: bool
    """The proven platform stands in the domain's manifest; without it location is only its word."""
    age_s: int
    """Seconds since we issued the challenge that the evidence answers, on our clock."""

    @property
    def key(self) -> Hashable:
        """Everything but the age: equal keys mean equal verdicts while the age stays in bounds."""
        return (
            self.assurance,
            self.simulated,
            self.debug_allowed,
            self.confidential_gpu,
            self.engine_in_tee,
            self.binding_mode,
            self.enrolled,
        )


UNATTESTED: Final = AttestedFacts(
    assurance=0,
    simulated=False,
    debug_allowed=False,  # there is no enclave that could be debugged; TEE-007 refuses all but public data
    confidential_gpu=False,
    engine_in_tee=False,
    binding_mode="none",
    enrolled=False,
    age_s=UNKNOWN_AGE,
)
"""A node without usable evidence: enough for public data, where policy says so."""


@dataclass(frozen=True, slots=True)
class Subject:
    """One domain's node that might serve one request."""

    domain: DomainFacts
    attested: AttestedFacts
    price: int
    """Predicted total for this request, micro-units."""

    @property
    def jurisdiction_evidence(self) -> int:
        """The endorsed class, unless the proven machine is none of the domain's own (session.md 3)."""
        foreign = self.attested.assurance > 0 and not self.attested.enrolled
        return SELF_DECLARED if foreign else self.domain.jurisdiction_evidence


def enclosing(places: Iterable[str]) -> frozenset[str]:
    """The places in which all of these lie: a domain in DE and FR is inside EU, and in neither of them."""
    chains = [frozenset(chain(place)) for place in places]
    return frozenset.intersection(*chains) if chains else frozenset()


def _held_certificates(profile: DomainProfile, now: int) -> frozenset[str]:
    """In date and vouched for by someone else: a provider's own word satisfies no requirement."""
    return frozenset(
        entry.scheme
        for entry in profile.certifications
        if entry.evidence > SELF_DECLARED and now < entry.valid_until
    )


def _usable_bases(profile: DomainProfile, now: int) -> frozenset[str]:
    """In date, vouched for, and made out to this very recipient (A6)."""
    names = {profile.domain, profile.legal_entity.name, profile.legal_entity.lei}
    return frozenset(
        entry.type
        for entry in profile.transfer_bases
        if entry.evidence > SELF_DECLARED and now < entry.valid_until and entry.recipient in names
    )
