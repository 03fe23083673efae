"""Contract Net between a consumer's and a provider's broker: call, offer with a hold, release.

Path B: the acceptance rides on Execute (schemas/messages/execute.py), which names the offer by digest.
Nothing here is derived from a prompt's content but keyed commitments and length buckets.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from schemas.descriptors.capability import Rates
from schemas.descriptors.request import PolicyTags
from schemas.messages.message import Message
from schemas.primitives import Count, Digest, Label, Seconds, Thumbprint, Token

Micro = Annotated[int, Field(ge=0, le=2**53 - 1)]
"""Millionths of the charter's currency."""
Milliseconds = Annotated[int, Field(ge=0, le=86_400_000)]
RuleIds = Annotated[list[Label], Field(max_length=64)]


class CallForOffers(Message):
    """Consumer → provider: could you run this, on which node, at what price? Reserves nothing by itself."""

    capability: Label
    """Class or class/variant."""
    model_digest: Digest | None = None
    """Set when only this very model will do, as in a continuation."""
    tags: PolicyTags
    """The effective tags: the provider's own policy decides over the same facts."""
    tags_digest: Digest
    tenant_policy_digest: Digest
    request_commitment: Digest
    """Keyed commitment to the request body; the key never leaves the consumer but to the node."""
    input_length: Count
    """Upper bound of the body's length bucket, bytes."""
    input_tokens: Count
    """Estimate from the length bucket, not from the text."""
    max_output_tokens: Count
    max_price: Micro | None = None
    hold_ms: Milliseconds
    """How long the consumer would like the hold to last."""
    exclude_nodes: list[Thumbprint] = Field(default_factory=list, max_length=64)
    """Signing keys of nodes that this request must not use again."""


class Offer(Message):
    """Provider → consumer: this node, this price, held for you until `hold_ms` have passed."""

    call: Digest
    capability: Label
    model_digest: Digest
    model_signing: Digest | None = None
    """SHA-256 of the model's signature, which the provider verified under a key of its choice."""
    rates: Rates
    predicted_price: Micro
    """For this request's estimate; the consumer computes its own and compares."""
    retention_s: Count
    node_sign: Thumbprint
    node_seal: Digest
    """SHA-256 of the node's seal key."""
    evidence: Digest
    profile_digest: Digest
    policy_digest: Digest
    """The provider's policy set, and `allow` is its verdict: otherwise it would have refused."""
    hold_id: Token
    hold_ms: Milliseconds
    queue_ms: Milliseconds
    headroom: Annotated[int, Field(ge=0, le=10)]


class Refuse(Message):
    """Provider → consumer: no, and by which rule. A refusal is signed data, not an exception."""

    call: Digest
    code: Literal["POLICY", "NO_CAPACITY", "UNKNOWN_CAPABILITY", "DRAINING", "BUDGET", "RATE"]
    rules: RuleIds
    headroom: Annotated[int, Field(ge=0, le=10)]
    retry_after_ms: Milliseconds


class Release(Message):
    """Consumer → provider: this hold is free again. Sent to every loser."""

    hold_id: Token
    reason: Label


class Cancel(Message):
    """Consumer → provider: stop this run."""

    request_id: Token
    attempt: Count
    reason: Label


class Status(Message):
    """Either → either: what became of this negotiation? Asked after a crash, never a second Execute."""


class StatusReply(Message):
    """The later terminal state wins where the two sides differ (C3.8)."""

    state: Literal[
        "UNKNOWN", "HELD", "RELEASED", "COMMITTED", "ACTIVE", "COMPLETED", "FAILED", "CANCELLED",
        "TERMINATED", "CLOSED",
    ]  # fmt: skip
    """`CLOSED` answers a `ReceiptAck`: its Execution is acknowledged, and the Acknowledgement kept."""
    execution: Digest | None = None
    """Receipt digest of the Execution, when there is one."""


class Revoke(Message):
    """Provider → everyone: trust nothing under these node keys any more."""

    trust_epoch: Count
    nodes: Annotated[list[Thumbprint], Field(max_length=1024)]
    reason_class: Literal["compromise", "stale"]
    """`compromise` terminates open streams, `stale` lets them finish (session.md 5)."""
    reason: Label
    effective: Seconds


class FetchEvidence(Message):
    """Consumer → provider: the evidence document with this digest, please."""

    evidence: Digest


class FetchReceipt(Message):
    """Consumer → provider: the Execution of this attempt with its inclusion proof."""

    request_id: Token
    commitment: Digest
    """Of the attempt's body: a request that went on elsewhere may have run here more than once."""


class ReceiptAck(Message):
    """Consumer → provider: what we acknowledge of your Execution, as it stands in our log."""

    acknowledgement: str
    """The Acknowledgement's envelope as JSON text."""
    promise: str
    """Our log's promise for it, likewise: what we gave away, our log cannot leave out."""


class FetchSnapshot(Message):
    """Peer → peer: your current advert."""
