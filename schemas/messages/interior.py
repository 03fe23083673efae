"""What broker, agent and node of one domain say to each other.

These stay inside the domain's own account and are not signed: whoever could forge them could stop
the domain from serving, but admits no node (evidence decides), reads no prompt (the seal decides)
and starts no run (the Execute header decides).

Subjects: `agent.<op>` is served by the agent, `broker.<op>` by the broker, `node.<id>.in.<op>` by a
node; `node.<id>.out.<op>` comes from a node and is served by the agent.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from schemas.canonical import Wire
from schemas.descriptors.capability import Rates
from schemas.primitives import Bytes64, Count, Digest, DomainName, Label, Seconds, Thumbprint, Token

Ms = Annotated[int, Field(ge=0, le=86_400_000)]
MAX_EAR_CHARACTERS: Final = 64 * 1024  # real ones are under 4 KiB
MAX_LOST_KEYS: Final = 1024  # of one machine's boots
Rate = Annotated[int, Field(ge=0, le=10_000_000)]
"""Tokens per second."""


class Challenges(Wire):
    """agent → node (`in.quote`): quote over these. The answer is a NodeEvidence document."""

    key_epoch: Count
    challenges: dict[DomainName, Digest]
    """Current challenge of the agent's own domain and of each peer, 32 bytes in hex."""
    collateral: Digest | None = None
    """The domain's bundle of collateral, by its index; the node asks for what it lacks (`out.collateral`)."""


class Hello(Wire):
    """node → agent (`out.hello`): I am here; come and challenge me."""

    node_id: Token
    boot_id: Token


class Welcome(Wire):
    """The answer to Hello. Admission itself follows from evidence, never from this."""

    federation: Label
    domain: DomainName


class ModelState(Wire):
    """One resident model and how fast it has been lately."""

    capability: Label
    model_digest: Digest
    prefill_tps: Rate
    decode_tps: Rate


class NodeState(Wire):
    """node → agent (`out.state`), each second: telemetry read from the engine. Never leaves the domain."""

    node_id: Token
    boot_id: Token
    health: Literal["HEALTHY", "DEGRADED", "DOWN"]
    slots: Count
    busy_slots: Count
    queued: Count
    memory_mb: Count
    models: Annotated[list[ModelState], Field(max_length=64)]


class HoldRequest(Wire):
    """broker → agent (`agent.hold`): keep a slot for this negotiation."""

    nid: Token
    capability: Label
    model_digest: Digest | None = None
    hold_ms: Ms
    consumer: DomainName
    data_class: Label
    exclude_nodes: Annotated[list[Thumbprint], Field(max_length=64)]


class Hold(Wire):
    """A slot kept on a node that is admitted right now."""

    hold_id: Token
    node_id: Token
    node_sign: Thumbprint
    seal_key: Bytes64
    evidence: Digest
    capability: Label
    model_digest: Digest
    model_signing: Digest | None = None
    """SHA-256 of the model's signature, where our domain verified one."""
    rates: Rates
    """What this model costs here, also where the advert does not show it."""
    hold_ms: Ms
    queue_ms: Ms
    headroom: Annotated[int, Field(ge=0, le=10)]


class NoHold(Wire):
    """Why there is none."""

    code: Literal["NO_CAPACITY", "UNKNOWN_CAPABILITY", "DRAINING"]
    headroom: Annotated[int, Field(ge=0, le=10)]
    retry_after_ms: Ms


class HoldReply(Wire):
    hold: Hold | None = None
    refused: NoHold | None = None


class HoldUpdate(Wire):
    """broker → agent (`agent.commit`, `agent.release`, `agent.done`): what became of a hold."""

    hold_id: Token
    nid: Token


class HoldUpdated(Wire):
    """`known` is false when the hold had expired or never was: the run ends, nothing of it is passed on."""

    known: bool


class OwnAdvert(Wire):
    """agent → broker (`broker.advert`): what this domain just told its peers, and the challenge in it."""

    advert: str
    """The signed advert as JSON text."""
    challenge: Digest
    issued_at: Seconds
    trust_epoch: Count


class NodeRevoked(Wire):
    """agent → broker (`broker.revoked`): drop this node everywhere, now."""

    trust_epoch: Count
    nodes: Annotated[list[Thumbprint], Field(max_length=MAX_LOST_KEYS)]
    """Its keys, those of earlier boots too."""
    reason_class: Literal["compromise", "stale"]
    reason: Label


class EvidenceRequest(Wire):
    """broker → agent (`agent.evidence`), node → agent (`out.collateral`): the bytes of this document."""

    evidence: Digest


class ResultRequest(Wire):
    """operator → agent (`agent.result`): what was found about this node, signed."""

    node_id: Token


class SignedResult(Wire):
    """The latest appraisal of a node, whatever it found."""

    node_id: Token
    ear: Annotated[str, Field(max_length=MAX_EAR_CHARACTERS)]
    """EAR in a JWT (RFC 9711), by the domain's attestation verifier."""


class RevokeNode(Wire):
    """operator → agent (`agent.revoke`): this node is out."""

    node_id: Token
    reason_class: Literal["compromise", "stale"]
    reason: Label


class NodeStatus(Wire):
    """One node as the operator sees it (`agent.status`)."""

    node_id: Token
    node_sign: Thumbprint | None = None
    admitted: bool
    until: Seconds | None = None
    reason: str | None = None
    """Reason code of the last appraisal that did not affirm."""
    health: Literal["HEALTHY", "DEGRADED", "DOWN", "UNKNOWN"]
    simulated: bool | None = None


class AgentStatus(Wire):
    trust_epoch: Count
    nodes: Annotated[list[NodeStatus], Field(max_length=4096)]
