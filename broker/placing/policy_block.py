"""A policy decision and an appraisal, in the words of receipts (receipts.md 3.5 and 3.6)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

from attestation.appraise import NodeAppraisal
from receipts.statements import decided
from receipts.statements.decided import VERIFIER
from receipts.statements.fields import (
    MAX_LISTED,
    Attestation,
    NodeRecord,
    PolicyDecision,
    PolicyFile,
    Verifier,
)
from schemas.policy.cedar import ENGINE, engine_version, schema_digest
from schemas.policy.layers import Decision, Layers
from schemas.primitives import format_time

MAX_REMEMBERED: Final = 1024  # nodes with their appraisals; some hours of a large federation


def policy_block(decision: Decision, *, input_commitment: str) -> PolicyDecision:
    """The decision as a receipt states it, now (receipts.statements.decided)."""
    return decided.policy_block(decision, input_commitment=input_commitment, at=datetime.now(UTC))


@dataclass(frozen=True, slots=True)
class Refusal:
    """What was asked of, and which rules left nobody."""

    layers: Layers
    rules: tuple[str, ...]
    """A minimal set that together excludes every candidate."""


def refusal_block(refusal: Refusal, *, input_commitment: str) -> PolicyDecision:
    """The decision behind a refusal: the sets that were asked, and the binding rules as its reasons."""
    return PolicyDecision(
        verifier=Verifier(id=f"{VERIFIER}/{ENGINE}@{engine_version()}"),
        policies=[
            PolicyFile(name=name, sha256=digest) for name, digest in sorted(refusal.layers.digests.items())
        ],
        time_created=format_time(datetime.now(UTC)),
        properties=[f"schema:{schema_digest()}", *(f"rule:{rule}" for rule in refusal.rules)][:MAX_LISTED],
        verdict="deny",
        layers=[],
        input_commitment=input_commitment,
    )


def node_record(appraisal: NodeAppraisal, role: str) -> NodeRecord:
    """A node with our own appraisal of it."""
    return _node_record(
        appraisal.sign_key.thumbprint,
        role,
        evidence_digest=appraisal.evidence_digest.hex(),
        expectations_digest=appraisal.expectations_digest.hex(),
        challenge_root=appraisal.evidence.challenge_root,
        iat=int(appraisal.challenged_at) if appraisal.challenged_at else None,
        exp=int(appraisal.expires_at),
        status=appraisal.status,
        binding_mode=appraisal.binding_mode,
        simulated=appraisal.simulated,
    )


@lru_cache(MAX_REMEMBERED)
def _node_record(key: str, role: str, **stated: Any) -> NodeRecord:
    """Made and validated once for each appraisal, not for each request."""
    attestation = Attestation(policy_id=f"{VERIFIER}/appraisal", bound_key=key, **stated)
    return NodeRecord(id=key, role=role, attestation=attestation)
