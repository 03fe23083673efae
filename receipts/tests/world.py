"""A small made-up federation for tests: two domains, their keys, charter, manifests and logs."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from receipts.log import Documents, Draft, LogIdentity, LogKeys, TransparencyLog
from receipts.note import NoteSigner
from receipts.statements.fields import (
    Attestation,
    Capability,
    Commitment,
    Layer,
    ManifestRef,
    NodeRecord,
    PolicyDecision,
    PolicyFile,
    RequestRef,
    Times,
    Usage,
    Verifier,
)
from receipts.statements.receipt import (
    Considered,
    ExecutionDraft,
    Executor,
    Inputs,
    Objective,
    PlacementDraft,
    Plan,
    Terms,
)
from schemas.keys import SigningKey
from schemas.primitives import format_time

FEDERATION: Final = "care"
CLINIC: Final = "clinic.de"
CLOUD: Final = "cloud.fr"
NOW: Final = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
ZEROS: Final = "0" * 64


def digest() -> str:
    """Some digest, different each time."""
    return secrets.token_hex(32)


@dataclass(frozen=True, slots=True)
class Domain:
    """A domain's keys, and whose log it runs."""

    name: str
    keys: LogKeys

    @classmethod
    def make(cls, name: str) -> Domain:
        note = NoteSigner.of(f"{name}/log", secrets.token_bytes(32))
        return cls(name, LogKeys(SigningKey.generate(), SigningKey.generate(), note))

    @property
    def identity(self) -> LogIdentity:
        return LogIdentity(
            FEDERATION, self.name, f"{self.name}/log", ManifestRef(version=1, digest=ZEROS), Documents()
        )

    async def open(self, folder: Path) -> TransparencyLog:
        return await TransparencyLog.open(folder / "log.db", identity=self.identity, keys=self.keys)


def policy() -> PolicyDecision:
    layer = Layer(layer="charter", digest=digest(), verdict="allow", rules=["FED-001-member"])
    return PolicyDecision(
        verifier=Verifier(id="urn:cedar:4.12"),
        policies=[PolicyFile(name="charter", sha256=digest())],
        time_created=format_time(NOW),
        verdict="allow",
        layers=[layer],
        input_commitment=digest(),
    )


def node_record(key: str, evidence: str) -> NodeRecord:
    attestation = Attestation(
        evidence_digest=evidence,
        expectations_digest=digest(),
        policy_id="standard",
        challenge_root=digest(),
        status="affirming",
        binding_mode="cpu-only",
        simulated=True,
        bound_key=key,
    )
    return NodeRecord(id=key, role="inference", attestation=attestation)


def placement(
    peer: str = CLOUD, request_id: str | None = None, nodes: list[NodeRecord] | None = None
) -> PlacementDraft:
    """A Placement with every block filled."""
    zero = "0.0"
    return PlacementDraft(
        audience=[CLINIC, CLOUD],
        peer=peer,
        request=RequestRef(id=request_id or secrets.token_hex(8), commitment=digest()),
        times=Times(received=format_time(NOW), issued=format_time(NOW)),
        plan=Plan(digest=digest(), id="p1", domain=peer, nodes=[node.id for node in nodes or []]),
        path="full",
        considered=Considered(root=digest(), count=3, selected_index=1),
        objective=Objective(
            name="J",
            version="1",
            digest=digest(),
            score="412.5",
            terms=Terms(net="3.2", queue=zero, exec="405.0", state=zero, load="4.3", policy=zero),
        ),
        capability=Capability(name="chat.small"),
        policy=policy(),
        inputs=Inputs(registry=digest()),
        executor=Executor(domain=peer, key="A" * 43),
        nodes=nodes or [],
    )


def execution(
    peer: str = CLINIC, request_id: str | None = None, nodes: list[NodeRecord] | None = None
) -> ExecutionDraft:
    """An Execution with every block that a run fills."""
    return ExecutionDraft(
        audience=[CLINIC, CLOUD],
        peer=peer,
        request=RequestRef(id=request_id or secrets.token_hex(8), commitment=digest()),
        times=Times(started=format_time(NOW), finished=format_time(NOW), issued=format_time(NOW)),
        outcome="ok",
        code="ok",
        response=Commitment(commitment=digest()),
        capability=Capability(name="chat.small/smollm2", artifact_digest=digest()),
        nodes=nodes or [],
        usage=usage(),
        policy=policy(),
    )


def usage() -> Usage:
    return Usage(input_tokens=12, output_tokens=34, cached_tokens=0, queue_ms=0, compute_ms=405)


def drafts(count: int, peer: str = CLOUD) -> list[Draft]:
    return [Draft(placement(peer)) for _ in range(count)]
