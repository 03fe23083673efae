"""The charter: what the members of a federation agreed, signed by a threshold of them.

It is pinned by fingerprint out of band. Sovereign attributes and expectations come from here and
from the image publishers it names; a provider's word about itself serves public data only
(DESIGN 17, session.md 3).
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, model_validator

from schemas import envelope
from schemas.canonical import Wire
from schemas.descriptors.profile import DomainProfile
from schemas.errors import Refused
from schemas.keys import Jwk, SigningKey, VerifyKey
from schemas.papers.manifest import Roots
from schemas.primitives import Count, Digest, DomainName, Label, Seconds

MAX_MEMBERS = 1024  # beyond it regional brokers aggregate (nats.md 3.1)

Vendor: TypeAlias = Literal["amd-sev-snp", "intel-tdx", "nvidia"]
"""Who makes hardware that proves itself: SEV-SNP machines; TDX and SGX machines; GPUs and switches."""


class Endorsement(Wire):
    """Attributes of a member that the charter vouches for, with who says so."""

    issuer: Label
    profile: DomainProfile


class Member(Wire):
    """One domain in the federation."""

    domain: DomainName
    roots: Roots
    manifest_digest: Digest
    """DSSE digest (SHA-256 of the PAE) of the member's current manifest."""
    endorsed: Endorsement


class ImagePublisher(Wire):
    """Who may publish reference values, and for which names."""

    name: Label
    jwk: Jwk


class SimulatedRoot(Wire):
    """A made-up vendor root. Listing it by name is the only way it is ever accepted."""

    name: Label
    product: Label
    sha256: Digest
    """SHA-256 of the root certificate in DER; of a GPU maker's root (`nvidia-…`), of its key (SPKI)."""


class Charter(Wire):
    """The federation's founding document."""

    v: Literal[1] = 1
    federation: Label
    version: Count
    issued: Seconds
    expires: Seconds
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
    """Currency of every price; amounts are integers of its millionth part (micro-units)."""
    threshold: Annotated[int, Field(ge=1, le=MAX_MEMBERS)]
    """How many members' root keys must sign the charter."""
    members: Annotated[list[Member], Field(min_length=1, max_length=MAX_MEMBERS)]
    publishers: Annotated[list[ImagePublisher], Field(max_length=64)]
    vendor_roots: Annotated[list[Vendor], Field(max_length=8)]
    """Hardware vendors whose pinned roots (in attestation/) members accept; no others' count."""
    simulated_roots: Annotated[list[SimulatedRoot], Field(max_length=8)]
    policy_digest: Digest
    """Digest of the charter's policy set (schemas.policy)."""

    @model_validator(mode="after")
    def _names_are_unique(self) -> Charter:
        if len({member.domain for member in self.members}) != len(self.members):
            raise ValueError("a domain is a member twice")
        if self.threshold > len(self.members):
            raise ValueError("the threshold exceeds the number of members")
        roots = [(key.x, key.y) for member in self.members for key in member.roots.keys]
        if len(set(roots)) != len(roots):
            raise ValueError("a root key stands twice: one signature would count for two")
        return self


class ReferenceValue(Wire):
    """One image that a publisher stands behind: what hardware measures when it runs."""

    measurement: Annotated[str, Field(pattern=r"^[0-9a-f]{96}$")]
    """SHA-384 launch measurement, lower-case hex."""
    image_digest: Digest
    engine_digests: Annotated[list[Digest], Field(max_length=64)]
    model_digests: Annotated[list[Digest], Field(max_length=1024)]
    provenance: str = Field(max_length=1024)
    valid_from: Seconds
    valid_until: Seconds
    revoked: bool = False


class ReferenceValues(Wire):
    """A publisher's signed, versioned list."""

    v: Literal[1] = 1
    publisher: Label
    version: Count
    values: Annotated[list[ReferenceValue], Field(max_length=1024)]


def sign_charter(charter: Charter, *keys: SigningKey) -> bytes:
    """The charter's envelope, signed by members' root keys."""
    return envelope.sign(envelope.CHARTER, charter.write(), *keys)


def verify_charter(data: bytes, *, pin: bytes) -> Charter:
    """The charter, if its digest is the one that was pinned and a threshold of members signed it.

    `pin`: the 32-byte DSSE digest, agreed out of band. Each signature must be a different member's:
    a member with several root keys still counts once. Raises `Unreadable` or `Refused`.
    """
    parsed = envelope.read(data)
    if parsed.payload_type != envelope.CHARTER:
        raise Refused("charter.payload_type", "not a charter")
    if parsed.digest != pin:
        raise Refused("charter.pin", "this is not the charter that was pinned")
    charter = Charter.read(parsed.payload)
    signed = sum(1 for member in charter.members if _signed_by(parsed, member))
    if signed < charter.threshold:
        raise Refused("charter.threshold", f"{signed} of {charter.threshold} required members signed")
    return charter


def _signed_by(parsed: envelope.Envelope, member: Member) -> bool:
    try:
        envelope.verify_parsed(parsed, [VerifyKey.from_jwk(jwk) for jwk in member.roots.keys])
    except Refused:
        return False
    return True


def verify_reference_values(data: bytes, charter: Charter) -> ReferenceValues:
    """A publisher's list, if the charter names the publisher and its key signed. Raises `Refused`."""
    keys = {publisher.name: VerifyKey.from_jwk(publisher.jwk) for publisher in charter.publishers}
    verified = envelope.verify(data, envelope.REFERENCE_VALUES, keys.values())
    values = ReferenceValues.read(verified.payload)
    if values.publisher not in keys or keys[values.publisher].thumbprint != verified.signer:
        raise Refused("charter.publisher", "signed by another publisher than it names")
    return values
