"""`DomainProfile`: what is known about a domain for a day or longer, and who vouches for it.

The charter carries each member's endorsed profile (schemas/papers/charter.py): that copy feeds policy. A
domain's own copy may narrow it, never widen it. Every legal attribute carries an evidence class,
and no class claims more than its kind can: hardware attests neither a country nor an owner.
"""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from schemas.canonical import Wire
from schemas.errors import Unreadable
from schemas.policy import jurisdictions as words
from schemas.primitives import Count, Digest, DomainName, Label, Seconds

SELF_DECLARED: Final = 0
CONTRACTUAL: Final = 1
THIRD_PARTY: Final = 2
MEASURED: Final = 3
HARDWARE_ATTESTED: Final = 4

MAX_LISTED: Final = 64  # entries per list: a profile stays far below one message
MAX_TEXT: Final = 256  # characters of a name, reference or address


def _word(check: object) -> AfterValidator:
    def checked(text: str) -> str:
        try:
            return check(text)  # type: ignore[operator, no-any-return]
        except Unreadable as error:
            raise ValueError(error.text) from None

    return AfterValidator(checked)


Text = Annotated[str, Field(max_length=MAX_TEXT)]
Place = Annotated[str, _word(words.check_place)]
"""An ISO 3166-1 or -2 code or a group of them."""
Residency = Annotated[str, _word(words.check_residency)]
"""A `Place`, or `premises`."""
Regime = Annotated[str, _word(words.check_regime)]
CertificationScheme = Annotated[str, _word(words.check_certification)]
TransferBasisType = Annotated[str, _word(words.check_transfer_basis)]
EvidenceClass = Annotated[int, Field(ge=SELF_DECLARED, le=HARDWARE_ATTESTED)]
"""0 self-declared, 1 contractual, 2 third-party credential, 3 measured, 4 hardware-attested."""


class LegalEntity(Wire):
    """The legal person that operates the domain, and those that can give it orders."""

    name: Text
    lei: Annotated[str, Field(pattern=r"^[A-Z0-9]{18}[0-9]{2}$")] | None = None
    """ISO 17442 legal entity identifier."""
    parents: list[Text] = Field(default_factory=list, max_length=MAX_LISTED)


class Certification(Wire):
    """One certificate that the domain holds. Self-declared ones (class 0) satisfy no policy."""

    scheme: CertificationScheme
    evidence: EvidenceClass
    valid_until: Seconds
    level: Text = ""
    certificate_id: Text = ""
    issuer: Text = ""


class TransferBasis(Wire):
    """A legal ground for sending personal data to this domain."""

    type: TransferBasisType
    reference: Text
    recipient: Text
    """The importer; counts only when it is this domain, its legal entity's name or its LEI."""
    evidence: EvidenceClass
    valid_until: Seconds


class TeeClaim(Wire):
    """A platform that the domain says it runs: a hint that prefilters, never a decision."""

    platform: Literal["snp", "tdx", "simulated"]
    assurance: Annotated[int, Field(ge=0, le=4)]
    confidential_gpu: bool = False
    reference_value_digests: list[Digest] = Field(default_factory=list, max_length=MAX_LISTED)


class RetentionClass(Wire):
    """A promise that the domain can make about keeping request data."""

    name: Label
    seconds: Count


class Vouched(Wire):
    """How well an attribute is evidenced, with a pointer to the credential."""

    level: EvidenceClass = SELF_DECLARED
    credential: Text = ""


class ProfileEvidence(Wire):
    """The evidence class of each attribute that policy reads. What is left out is self-declared."""

    jurisdictions: Vouched = Vouched()
    exposed_to: Vouched = Vouched()
    ownership: Vouched = Vouched()
    retention: Vouched = Vouched()
    key_control: Vouched = Vouched()
    support_access: Vouched = Vouched()


class DomainProfile(Wire):
    """Static facts about a domain (B1). Its digest is `value_digest()`; keys stand in the manifest."""

    v: Literal[1] = 1
    domain: DomainName
    operator: Text
    legal_entity: LegalEntity
    jurisdictions: Annotated[list[Place], Field(min_length=1, max_length=MAX_LISTED)]
    """Where the machines stand. Several places mean: anywhere among them."""
    exposed_to: Annotated[list[Regime], Field(max_length=MAX_LISTED)]
    """Who can compel the operator: its own, its parents' and its staff's exposure."""
    evidence: ProfileEvidence
    valid_from: Seconds
    valid_until: Seconds
    certifications: list[Certification] = Field(default_factory=list, max_length=MAX_LISTED)
    transfer_bases: list[TransferBasis] = Field(default_factory=list, max_length=MAX_LISTED)
    retention_classes: list[RetentionClass] = Field(default_factory=list, max_length=MAX_LISTED)
    """None listed means unknown, which no bound admits."""
    tee: list[TeeClaim] = Field(default_factory=list, max_length=MAX_LISTED)
    seal: dict[str, Annotated[int, Field(ge=0, le=4)]] = Field(default_factory=dict, max_length=8)
    """Cloud Sovereignty Framework levels per objective, `SOV-1` to `SOV-8`."""
    key_control: Literal["customer", "domain", "third-party", "unknown"] = "unknown"
    support_access: list[Place] = Field(default_factory=list, max_length=MAX_LISTED)
    """Places from which the domain is administered."""
    sub_processors: list[Text] = Field(default_factory=list, max_length=MAX_LISTED)
    carbon_g_kwh: Annotated[int, Field(ge=0, le=5000)] | None = None
    """Grid carbon intensity; unknown meets no bound."""
    status: Literal["active", "suspended"] = "active"
    did: Text = ""
    incident_contact: Text = ""
    manifest_digest: Digest | None = None
    version: Count = 1

    @model_validator(mode="after")
    def _claims_no_more_than_its_kind_can(self) -> Self:
        """A7: a TEE quote cannot attest a country, an owner, a retention or a certificate."""
        vouched = [self.evidence.jurisdictions, self.evidence.ownership, self.evidence.retention]
        certificates = [entry.evidence for entry in self.certifications]
        if HARDWARE_ATTESTED in [entry.level for entry in vouched] + certificates:
            raise ValueError("hardware cannot attest jurisdiction, ownership, retention or certification")
        if self.valid_until <= self.valid_from:
            raise ValueError("valid_until is not after valid_from")
        if not set(self.seal) <= {f"SOV-{number}" for number in range(1, 9)}:
            raise ValueError("seal holds SOV-1 to SOV-8 only")
        return self

    @cached_property
    def digest(self) -> str:
        """`value_digest()` in hex, computed once."""
        return self.value_digest().hex()

    @property
    def lowest_evidence(self) -> int:
        """The weakest class among the attributes that define where the domain stands and who rules it."""
        stated = self.evidence
        return min(entry.level for entry in (stated.jurisdictions, stated.exposed_to, stated.ownership))
