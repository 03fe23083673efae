"""Receipts before they are signed, with every block filled, for tests to change."""

from __future__ import annotations

import secrets
from typing import Any

from receipts.log import Draft
from receipts.statements.fields import (
    Capability,
    Commitment,
    Layer,
    NodeRecord,
    PolicyDecision,
    PolicyFile,
    RequestRef,
    Times,
    Usage,
    Verifier,
)
from receipts.statements.receipt import (
    AcknowledgementDraft,
    Considered,
    ExecutionDraft,
    Executor,
    Inputs,
    Objective,
    PlacementDraft,
    Plan,
    Terms,
)
from receipts.tests.names import CLINIC, CLOUD, MODEL, MODEL_NAME, NOW, TAGS
from schemas.primitives import format_time


def digest() -> str:
    """Some digest, different each time."""
    return secrets.token_hex(32)


def capability() -> Capability:
    return Capability(name=MODEL_NAME, artifact_digest=MODEL)


def policy(**changes: Any) -> PolicyDecision:
    values: dict[str, Any] = {
        "verifier": Verifier(id="urn:cedar:4.12"),
        "policies": [PolicyFile(name="charter", sha256=digest())],
        "time_created": format_time(NOW),
        "verdict": "allow",
        "layers": [Layer(layer="charter", digest=digest(), verdict="allow", rules=["FED-001-member"])],
        "input_commitment": TAGS,
    }
    return PolicyDecision(**(values | changes))


def placement(peer: str = CLOUD, **changes: Any) -> PlacementDraft:
    """A Placement with every block filled."""
    zero = "0.0"
    nodes: list[NodeRecord] = changes.get("nodes", [])
    values: dict[str, Any] = {
        "audience": [CLINIC, CLOUD],
        "peer": peer,
        "request": RequestRef(id=secrets.token_hex(8), commitment=digest()),
        "times": Times(received=format_time(NOW), issued=format_time(NOW)),
        "plan": Plan(digest=digest(), id="p1", domain=peer, nodes=[node.id for node in nodes]),
        "path": "full",
        "considered": Considered(root=digest(), count=3, selected_index=1),
        "objective": Objective(
            name="J",
            version="1",
            digest=digest(),
            score="412.5",
            terms=Terms(net="3.2", queue=zero, exec="405.0", state=zero, load="4.3", policy=zero),
        ),
        "capability": Capability(name="chat.small"),
        "policy": policy(),
        "inputs": Inputs(registry=digest()),
        "executor": Executor(domain=peer, key="A" * 43),
    }
    return PlacementDraft(**(values | changes))


def execution(peer: str = CLINIC, **changes: Any) -> ExecutionDraft:
    """An Execution with every block that a run fills."""
    values: dict[str, Any] = {
        "audience": [CLINIC, CLOUD],
        "peer": peer,
        "request": RequestRef(id=secrets.token_hex(8), commitment=digest()),
        "times": Times(started=format_time(NOW), finished=format_time(NOW), issued=format_time(NOW)),
        "outcome": "ok",
        "code": "ok",
        "response": Commitment(commitment="2" * 64),
        "capability": capability(),
        "nodes": [],
        "usage": usage(),
        "policy": policy(),
    }
    return ExecutionDraft(**(values | changes))


def acknowledgement(peer: str = CLOUD, **changes: Any) -> AcknowledgementDraft:
    values: dict[str, Any] = {
        "audience": [CLINIC, CLOUD],
        "peer": peer,
        "request": RequestRef(id=secrets.token_hex(8), commitment=digest()),
        "times": Times(issued=format_time(NOW)),
        "response": Commitment(commitment="2" * 64),
        "status": "agreed",
        "usage_agreed": usage(),
    }
    return AcknowledgementDraft(**(values | changes))


def usage(**changes: int) -> Usage:
    values = {"input_tokens": 12, "output_tokens": 34, "cached_tokens": 0, "queue_ms": 0, "compute_ms": 405}
    return Usage(**(values | changes))


def drafts(count: int, peer: str = CLOUD) -> list[Draft]:
    return [Draft(placement(peer)) for _ in range(count)]
