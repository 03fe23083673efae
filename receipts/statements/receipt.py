"""The three receipts: Placement, Execution, Acknowledgement (receipts.md 3.1 to 3.4).

A `…Draft` holds what the issuer knows; the log adds what only it can give (number, predecessor,
manifest, log) and signs. What is read back is the whole, draft and issuance together.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from receipts.leaf import Kind
from receipts.statements.fields import (
    MAX_LISTED,
    MAX_NODES,
    Camel,
    Capability,
    Commitment,
    Decimal,
    Domains,
    Link,
    LogRef,
    ManifestRef,
    Name,
    NodeRecord,
    PolicyDecision,
    Price,
    RequestRef,
    Retention,
    Role,
    SeenCheckpoint,
    Times,
    Usage,
)
from schemas.primitives import Count, Digest, DomainName, Label, Thumbprint, Token

PREDICATES: Final = "https://comity.invalid/predicate"  # a name, not an address: .invalid never resolves
PLACEMENT: Final = f"{PREDICATES}/placement-receipt/v1"
EXECUTION: Final = f"{PREDICATES}/execution-receipt/v1"
ACKNOWLEDGEMENT: Final = f"{PREDICATES}/acknowledgement/v1"

FIRST: Final = "0" * 64
"""`prev` of sequence number 0."""


class ReceiptDraft(Camel):
    """What the three receipts have in common, as far as the issuer knows it (3.1)."""

    audience: Domains
    """Who may rely on it; shown to or by another domain it is refused."""
    peer: DomainName
    """The counterparty this sequence runs with."""
    request: RequestRef
    times: Times
    trace: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")] | None = None
    links: list[Link] = Field(default_factory=list, max_length=16)
    crit: list[Name] = Field(default_factory=list, max_length=16)
    sd: Annotated[list[Digest], Field(max_length=1024)] | None = None
    retention: Retention | None = None


class Issuance(Camel):
    """What the log adds in the transaction that makes the receipt durable."""

    receipt_id: Token
    issuer: DomainName
    role: Role
    federation: Label
    seq: Count
    prev: Digest
    manifest: ManifestRef
    log: LogRef


class Plan(Camel):
    """The selected plan."""

    digest: Digest
    """JCS SHA-256 of the plan."""
    id: Token
    domain: DomainName
    nodes: Annotated[list[Thumbprint], Field(max_length=MAX_NODES)]


class Considered(Camel):
    """Every candidate looked at: Merkle root over salted digests, each with its reason; losers hidden."""

    root: Digest
    count: Count
    selected_index: Count | None = None
    """Absent when none was taken."""


class Terms(Camel):
    """Predicted terms of J: milliseconds or ms-equivalents (routing.md 3)."""

    net: Decimal
    queue: Decimal
    exec: Decimal
    state: Decimal
    load: Decimal
    policy: Decimal
    money: Decimal | None = None


class Objective(Camel):
    """The scoring rule and what it gave the selected plan."""

    name: Name
    version: Name
    digest: Digest
    score: Decimal
    terms: Terms


class Inputs(Camel):
    """What a replay of the choice needs."""

    registry: Digest
    topology: Digest | None = None
    costs: Digest | None = None


class Budget(Camel):
    """As requested, in integer units."""

    max_price: Price | None = None
    max_output_tokens: Count | None = None


class Executor(Camel):
    """Who is expected to sign the Execution."""

    domain: DomainName
    key: Thumbprint


class PlacementDraft(ReceiptDraft):
    """The consumer's broker: where it goes, and why there (3.2); or, when nothing may serve it, why not.

    A refusal is a receipt too (3.5): it has the candidates and the denying rules, and no plan.
    """

    plan: Plan | None = None
    path: Literal["local", "lease", "merged", "full"] | None = None
    agreement: Digest | None = None
    transcript: Digest | None = None
    considered: Considered
    objective: Objective | None = None
    capability: Capability
    policy: PolicyDecision
    inputs: Inputs
    deadline_ms: Count | None = None
    budget: Budget | None = None
    executor: Executor | None = None
    nodes: list[NodeRecord] = Field(default_factory=list, max_length=MAX_NODES)
    """The planned nodes with the broker's own appraisal of each (session.md 8)."""

    @model_validator(mode="after")
    def _placed_or_refused(self) -> Self:
        """All of a choice or nothing of it, and only an allowed request is placed."""
        chosen = (self.plan, self.path, self.objective, self.executor, self.considered.selected_index)
        placed = self.policy.verdict == "allow"
        if any((part is not None) != placed for part in chosen) or (self.nodes and not placed):
            raise ValueError("a placement has plan, path, objective and executor; a refusal has none of them")
        return self

    @property
    def refused(self) -> bool:
        """True when nothing was allowed to serve the request."""
        return self.plan is None


class PlacementReceipt(PlacementDraft, Issuance):
    """The consumer's broker, signed: where a request went and why there, or why nowhere."""

    role: Literal["broker"]


class Cache(Camel):
    """How much work earlier requests saved, and within which scope."""

    hit: Literal["none", "prefix", "exact", "semantic"]
    hit_tokens: Count
    miss_tokens: Count
    scope: Label
    key_commitment: Digest | None = None
    policy: Label | None = None


class Deviation(Camel):
    """Why the plan was not followed."""

    code: Label
    reason_commitment: Digest


class Sandbox(Camel):
    """What the run was confined in."""

    image_digest: Digest | None = None
    configuration_digest: Digest | None = None


Outcome: TypeAlias = Literal["ok", "refused", "failed", "cancelled", "partial", "expired", "terminated"]


class ExecutionDraft(ReceiptDraft):
    """The executing domain: what ran, over the node's own statement (3.3)."""

    outcome: Outcome
    code: Label
    response: Commitment | None = None
    capability: Capability
    nodes: Annotated[list[NodeRecord], Field(max_length=MAX_NODES)]
    cache: Cache | None = None
    usage: Usage
    price: Price | None = None
    policy: PolicyDecision
    deviation: Deviation | None = None
    sandbox: Sandbox | None = None


class ExecutionReceipt(ExecutionDraft, Issuance):
    """The executing domain, signed: what ran, on which attested nodes, at what price."""

    role: Literal["executor"]


class Dispute(Camel):
    code: Label
    reason_commitment: Digest | None = None


class AcknowledgementDraft(ReceiptDraft):
    """The requester or its broker: what arrived (3.4)."""

    response: Commitment | None = None
    status: Literal["agreed", "disputed", "missing-placement", "missing-execution", "timeout"]
    dispute: Dispute | None = None
    usage_agreed: Usage | None = None
    seen: list[SeenCheckpoint] = Field(default_factory=list, max_length=MAX_LISTED)


class AcknowledgementReceipt(AcknowledgementDraft, Issuance):
    """The requester or its broker, signed: what arrived, and whether it agrees."""

    role: Literal["requester", "broker"]


Drafted: TypeAlias = PlacementDraft | ExecutionDraft | AcknowledgementDraft
Receipt: TypeAlias = PlacementReceipt | ExecutionReceipt | AcknowledgementReceipt

MODELS: Final[dict[str, type[PlacementReceipt] | type[ExecutionReceipt] | type[AcknowledgementReceipt]]] = {
    PLACEMENT: PlacementReceipt,
    EXECUTION: ExecutionReceipt,
    ACKNOWLEDGEMENT: AcknowledgementReceipt,
}
KINDS: Final = {
    PLACEMENT: Kind.PLACEMENT,
    EXECUTION: Kind.EXECUTION,
    ACKNOWLEDGEMENT: Kind.ACKNOWLEDGEMENT,
}


def predicate_type(draft: Drafted) -> str:
    """The predicate type that this draft becomes."""
    match draft:
        case PlacementDraft():
            return PLACEMENT
        case ExecutionDraft():
            return EXECUTION
        case AcknowledgementDraft():
            return ACKNOWLEDGEMENT
