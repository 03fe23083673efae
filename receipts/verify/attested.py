"""Claim `attested`: the raw evidence of the bundle, appraised again, against the auditor's own demands.

Nothing less proves it (receipts.md 15, session.md 9): not a token, not the issuer's word. The key
that the hardware vouches for must be the one that signed the NodeStatement.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from attestation.appraise import IssuedChallenge, NodeAppraisal, appraise_node
from attestation.expected import Expectations
from attestation.gpu.node.composite import CPU_ONLY
from receipts.bundle import Bundle, Disclosures
from receipts.counted import counted
from receipts.statements.fields import NodeRecord
from receipts.statements.receipt import ExecutionReceipt, PlacementReceipt
from receipts.verify.authentic import Authentic, Case
from receipts.verify.claim import Claim, failed, inapplicable, not_checked, proved
from receipts.verify.pinned import PinnedTrust
from schemas.errors import ComityError, Refused, Undecided
from schemas.keys import VerifyKey
from schemas.primitives import parse_time


@dataclass(frozen=True, slots=True)
class Appraised:
    """The nodes of one receipt, appraised again here."""

    nodes: tuple[NodeAppraisal, ...]

    @property
    def sign_keys(self) -> list[VerifyKey]:
        """Node keys that hardware vouches for: the only ones that a NodeStatement is read under."""
        return [node.sign_key for node in self.nodes]


def attested(
    receipt: Authentic, all_receipts: Sequence[Authentic], case: Case
) -> tuple[Claim, Appraised | None]:
    """Appraise every node that the receipt names again."""
    body = receipt.body
    if not isinstance(body, PlacementReceipt | ExecutionReceipt) or not body.nodes:
        return inapplicable("attested", "names no node"), None
    if case.trust.expectations is None:
        return not_checked("attested", "no expectations were given", "verify.no_expectations"), None
    owner = body.plan.domain if isinstance(body, PlacementReceipt) and body.plan else body.issuer
    try:
        placement = _placement(receipt, all_receipts)
        nodes = tuple(_appraise(node, owner, placement, case, case.trust.expectations) for node in body.nodes)
    except Undecided as error:
        return not_checked("attested", error.text, error.code), None
    except ComityError as error:
        return failed("attested", error), None
    appraised = Appraised(nodes)
    return proved("attested", appraised, _describe(nodes)), appraised


def _appraise(
    node: NodeRecord, owner: str, placement: PlacementReceipt, case: Case, expectations: Expectations
) -> NodeAppraisal:
    """One node. Raises `Undecided` for what is missing, `Refused` for what is wrong."""
    if node.attestation is None:
        raise Undecided("verify.not_attested", f"the receipt states no attestation of node {node.id}")
    evidence = case.bundle.blobs.get(bytes.fromhex(node.attestation.evidence_digest))
    if evidence is None:
        raise Undecided("verify.evidence_missing", f"the bundle lacks the evidence of node {node.id}")
    at, challenges, collateral = _asked(node, placement, case.bundle)
    appraisal = appraise_node(
        evidence,
        expectations=expectations,
        challenges=challenges,
        enrolments=case.held.enrolments(),
        at=at,
        extra_endorsements=collateral,
    )
    _check_bound(node, owner, appraisal, case.held)
    if appraisal.evidence.devices and expectations.nvidia is None:
        raise Undecided("verify.devices_unset", "the node has GPUs; your expectations have no [nvidia] table")
    if appraisal.status == "none":
        raise Undecided(appraisal.reason or "verify.undecided", "the evidence leaves it undecided")
    if appraisal.status == "contraindicated":
        raise Refused(appraisal.reason or "verify.contraindicated", "the evidence speaks against the node")
    if node.attestation.binding_mode != appraisal.binding_mode:
        raise Refused("verify.binding_mode", "the receipt misstates how CPU and GPUs are tied together")
    return appraisal


def _check_bound(node: NodeRecord, owner: str, appraisal: NodeAppraisal, held: PinnedTrust) -> NodeAppraisal:
    """The evidence is of this very node, in this domain, and says what the receipt says of it."""
    stated, attestation = appraisal.evidence, node.attestation
    if appraisal.sign_key.thumbprint != node.id or attestation is None or attestation.bound_key != node.id:
        raise Refused("verify.node_key", "the evidence vouches for another key")
    if (stated.domain, stated.federation) != (owner, held.federation):
        raise Refused("verify.node_domain", f"the evidence is of a node of {stated.domain}, not of {owner}")
    if attestation.challenge_root != stated.challenge_root:
        raise Refused("verify.challenge_root", "the receipt names another challenge root")
    if attestation.simulated != appraisal.simulated:
        raise Refused("verify.simulated", "the receipt misstates whether the hardware is simulated")
    return appraisal


def _asked(
    node: NodeRecord, placement: PlacementReceipt, bundle: Bundle
) -> tuple[datetime, list[IssuedChallenge], list[bytes]]:
    """When the node was judged, and what it had been asked: by the consumer, on the consumer's clock.

    The disclosed issue time counts only if the signed Placement says the same (`iat`): a bundle that
    was touched up cannot make old evidence young.
    """
    signed = {each.attestation.iat for each in placement.nodes if each.id == node.id and each.attestation}
    disclosed = bundle.disclosures.get(placement.receipt_id, Disclosures())
    challenges = [
        IssuedChallenge(each.domain, bytes.fromhex(each.value), parse_time(each.issued_at).timestamp())
        for each in disclosed.challenges
        if each.domain == placement.issuer and int(parse_time(each.issued_at).timestamp()) in signed
    ]
    blobs: Mapping[bytes, bytes] = bundle.blobs
    collateral = [blobs[name] for each in disclosed.collateral if (name := bytes.fromhex(each)) in blobs]
    return parse_time(placement.times.issued), challenges, collateral


def _placement(receipt: Authentic, all_receipts: Sequence[Authentic]) -> PlacementReceipt:
    if isinstance(receipt.body, PlacementReceipt):
        return receipt.body
    wanted = {link.digest for link in receipt.body.links if link.rel == "placement"}
    for other in all_receipts:
        if other.digest.hex() in wanted and isinstance(other.body, PlacementReceipt):
            return other.body
    raise Undecided("verify.placement_missing", "without the Placement it is unknown who challenged the node")


def _describe(nodes: Sequence[NodeAppraisal]) -> str:
    """What was proved. A simulated root is never passed over in silence (DESIGN 15)."""
    parts = [
        f"{node.platform} of {node.evidence.domain}: {node.status}, {_bound(node)}"
        + (" (SIMULATED hardware)" if node.simulated else "")
        for node in nodes
    ]
    return "; ".join(parts)


def _bound(node: NodeAppraisal) -> str:
    """How the node's devices are tied to its CPU, by the name of the mode (gpu.md 10)."""
    if node.binding_mode == CPU_ONLY:
        return "no devices"
    return f"{counted(len(node.evidence.devices), 'device')} bound by {node.binding_mode}"
