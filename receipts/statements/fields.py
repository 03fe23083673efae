"""Blocks that several statements share (receipts.md 3): camelCase on the wire, integers or decimal text."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, Literal, Self

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from schemas.canonical import Json, Wire
from schemas.primitives import Count, Digest, DomainName, Label, Seconds, Thumbprint, TimeText, Token

MAX_NODES: Final = 64  # nodes that touched one request; a staged plan has a handful
MAX_LISTED: Final = 64  # policies, rules, errors, obligations in one block
RECORD: Final = "record:"  # in a policy block's properties: SHA-256 of the facts that it was decided over
MAX_TEXT: Final = 512  # characters of a text for people

Decimal = Annotated[str, Field(pattern=r"^-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,9})?$")]
"""A number with a fraction, as text: floats are refused (receipts.md 4)."""

Name = Annotated[str, Field(min_length=1, max_length=256)]

Role = Literal["broker", "executor", "requester"]


class Camel(Wire):
    """A wire value whose fields are camelCase. Python names are for Python only."""

    model_config: ClassVar[ConfigDict] = ConfigDict(alias_generator=to_camel)

    # One spelling each: `receipt_id` beside `receiptId` would be a second, unseen field.

    @classmethod
    def from_json(cls, value: Json) -> Self:
        return cls._validated(lambda: cls.model_validate(value, strict=True, by_alias=True, by_name=False))

    @classmethod
    def _parsed(cls, data: bytes) -> Self:
        return cls.model_validate_json(data, strict=True, by_alias=True, by_name=False)


class RequestRef(Camel):
    """Which request, without its content."""

    id: Token
    commitment: Digest
    """Keyed commitment to the body; for a sealed run the Execute header's `input_commitment`."""
    scheme: Literal["hmac-sha256"] = "hmac-sha256"


class Times(Camel):
    """Asserted by the issuer alone."""

    received: TimeText | None = None
    started: TimeText | None = None
    finished: TimeText | None = None
    issued: TimeText


class ManifestRef(Camel):
    """The trust manifest in force at signing."""

    version: Count
    digest: Digest


class LogRef(Camel):
    """The log that will hold the statement."""

    origin: Label


class Link(Camel):
    """Another statement, by receipt digest."""

    rel: Literal["placement", "node", "execution", "parent", "replaces"]
    digest: Digest
    origin: Label | None = None


class Retention(Camel):
    """How long the payload must be kept."""

    class_: Annotated[Label, Field(alias="class")]
    not_before: TimeText
    """Not to be erased before this moment."""
    hold: bool | None = None


class Capability(Camel):
    """What was asked for, or run."""

    name: Label
    """Class or class/variant."""
    version: Name | None = None
    artifact_digest: Digest | None = None
    model_signing_digest: Digest | None = None


class Verifier(Camel):
    id: Name
    """URI with version of what decided."""


class PolicyFile(Camel):
    name: Name
    sha256: Digest


class Layer(Camel):
    """One layer's own verdict: every layer must allow."""

    layer: Literal["charter", "national", "tenant", "provider"]
    digest: Digest
    verdict: Literal["allow", "deny", "error"]
    rules: Annotated[list[Name], Field(max_length=MAX_LISTED)]
    """Ids of the determining policies."""


class PolicyDecision(Camel):
    """A policy decision, allowed or denied (3.5)."""

    verifier: Verifier
    policies: Annotated[list[PolicyFile], Field(max_length=MAX_LISTED)]
    time_created: TimeText
    properties: list[Name] = Field(default_factory=list, max_length=MAX_LISTED)
    verdict: Literal["allow", "deny", "error"]
    layers: Annotated[list[Layer], Field(max_length=16)]
    errors: list[Name] = Field(default_factory=list, max_length=MAX_LISTED)
    obligations: list[Name] = Field(default_factory=list, max_length=MAX_LISTED)
    input_commitment: Digest


class Attestation(Camel):
    """What an appraisal said of a node, and over which bytes (3.6)."""

    evidence_digest: Digest
    """SHA-256 of the NodeEvidence document."""
    expectations_digest: Digest
    ear_digest: Digest | None = None
    verifier_key: Thumbprint | None = None
    policy_id: Name
    challenge_root: Digest
    iat: Seconds | None = None
    exp: Seconds | None = None
    status: Literal["affirming", "warning", "contraindicated", "none"]
    binding_mode: Name
    simulated: bool
    bound_key: Thumbprint
    """The node key that the evidence vouches for."""


class NodeRecord(Camel):
    """A node that touched the data, or is planned to. Its only name outside its domain is its key's."""

    id: Thumbprint
    role: Label
    attestation: Attestation | None = None


class Commitment(Camel):
    """A keyed commitment (HMAC-SHA256); the key is never in the receipt."""

    commitment: Digest


class Usage(Camel):
    """Counters of one run. Integers only."""

    input_tokens: Count
    output_tokens: Count
    cached_tokens: Count
    queue_ms: Count
    compute_ms: Count
    energy_mj: Count | None = None
    """Millijoules, where known."""


NO_USAGE: Final = Usage(input_tokens=0, output_tokens=0, cached_tokens=0, queue_ms=0, compute_ms=0)


class Price(Camel):
    """An amount in millionths of the charter's currency (DESIGN 19)."""

    micro: Count
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")]


class SeenCheckpoint(Camel):
    """The peer's log as last seen: gossip that convicts an equivocating log."""

    origin: Label
    size: Count
    root: Digest


Domains = Annotated[list[DomainName], Field(min_length=1, max_length=MAX_LISTED)]
