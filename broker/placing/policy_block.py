"""A policy decision and an appraisal, in the words of receipts (receipts.md 3.5 and 3.6)."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

from attestation.appraise import NodeAppraisal
from receipts.statements import decided
from receipts.statements.decided import VERIFIER
from receipts.statements.fields import Attestation, NodeRecord, PolicyDecision
from schemas.policy.layers import Decision

MAX_REMEMBERED: Final = 1024  # nodes with their appraisals; some hours of a large federation


def policy_block(decision: Decision, *, input_commitment: str) -> PolicyDecision:
    """The decision as a receipt states it, now (receipts.statements.decided)."""
    return decided.policy_block(decision, input_commitment=input_commitment, at=datetime.now(UTC))


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
