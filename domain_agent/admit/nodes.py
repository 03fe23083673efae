"""What the agent knows of its nodes: what they proved, until when, and how they are.

Only evidence that we appraised ourselves admits a node; telemetry ranks admitted ones and admits
nobody. Nothing here leaves the domain but evidence and what a hold must name.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Literal

from attestation.appraise import NodeAppraisal
from schemas.errors import Refused, Undecided
from schemas.messages.interior import MAX_LOST_KEYS, ModelState, NodeState, NodeStatus

MAX_NODES: Final = 1000  # as many as the bus has logins for (federation.accounts)
MAX_DOCUMENTS: Final = 128  # evidence documents per node: two epochs of quotes at least 2 s apart
SILENT_S: Final = 5.0  # seconds without a state report (one each second) after which a node counts as DOWN

Health = Literal["HEALTHY", "DEGRADED", "DOWN", "UNKNOWN"]


@dataclass(slots=True)
class NodeRecord:
    """One node, under one boot."""

    node_id: str
    boot_id: str
    appraisal: NodeAppraisal | None = None
    """The latest that affirmed; None while there is none."""
    admitted_until: float = 0.0
    """POSIX seconds on our clock."""
    reason: str | None = "node.not_appraised"
    """Why it is not admitted, or was not at the last look."""
    result: str | None = None
    """The latest appraisal, whatever it found, as a signed EAR."""
    key_epoch: int = 0
    keys: tuple[str, ...] = ()
    """Thumbprints that this machine has proved, those of earlier boots first: revoked together."""
    state: NodeState | None = None
    state_at: float = 0.0
    """Steady seconds of the last state report."""
    documents: OrderedDict[str, tuple[int, bytes]] = field(default_factory=OrderedDict)
    """Evidence digest → (key epoch, document), oldest first."""

    def admitted(self, now: float) -> bool:
        """Whether a hold may name this node now (POSIX seconds)."""
        return self.appraisal is not None and now < self.admitted_until

    def health(self, steady: float) -> Health:
        if self.state is None:
            return "UNKNOWN"
        return "DOWN" if steady - self.state_at > SILENT_S else self.state.health

    def model(self, label: str, digest: str) -> ModelState | None:
        """How fast a resident model is; None unless the node's evidence proves it holds it."""
        if self.appraisal is None or self.appraisal.models.get(label) != digest or self.state is None:
            return None
        for model in self.state.models:
            if (model.capability, model.model_digest) == (label, digest):
                return model
        return None

    def note_key(self, thumbprint: str) -> None:
        """Remember a key that it proved; of more than one revocation names, the latest."""
        if thumbprint not in self.keys:
            self.keys = (*self.keys, thumbprint)[-MAX_LOST_KEYS:]

    def put_out(self, reason: str) -> None:
        """Not admitted from here on, and what it proved is shown to nobody any more."""
        self.appraisal, self.admitted_until, self.reason = None, 0.0, reason
        self.documents.clear()

    def keep(self, digest: str, document: bytes, epoch: int) -> None:
        """Store an evidence document; those older than the previous epoch go."""
        epochs = sorted({held for held, _ in self.documents.values()} | {epoch})[-2:]
        self.documents[digest] = (epoch, document)
        for name, (held, _) in list(self.documents.items()):
            if held not in epochs or len(self.documents) > MAX_DOCUMENTS:
                del self.documents[name]


class NodeBook:
    """All nodes of the domain. Owned by the agent, on its event loop."""

    def __init__(self) -> None:
        self._records: dict[str, NodeRecord] = {}

    def __iter__(self) -> Iterator[NodeRecord]:
        return iter(self._records.values())

    def get(self, node_id: str) -> NodeRecord | None:
        return self._records.get(node_id)

    def arrive(self, node_id: str, boot_id: str) -> tuple[NodeRecord, NodeRecord | None]:
        """The record of this boot, and that of an earlier boot which it replaces.

        Raises `Undecided` when there are too many nodes.
        """
        held = self._records.get(node_id)
        if held and held.boot_id == boot_id:
            return held, None
        if held is None and len(self._records) >= MAX_NODES:
            raise Undecided("agent.too_many_nodes", f"at most {MAX_NODES} nodes")
        self._records[node_id] = NodeRecord(node_id, boot_id, keys=held.keys if held else ())
        return self._records[node_id], held

    def note_state(self, state: NodeState, sender: str, steady: float) -> NodeRecord | None:
        """Telemetry of a known boot; None when that boot is not known (yet).

        Raises `Refused` when a node speaks for another.
        """
        if state.node_id != sender:
            raise Refused("agent.node_id", f"{sender} reported a state of {state.node_id}")
        record = self._records.get(state.node_id)
        if record is None or record.boot_id != state.boot_id:
            return None
        record.state, record.state_at = state, steady
        return record

    def document(self, digest: str) -> bytes:
        """An evidence document of the current or previous epoch. Raises `Undecided`."""
        for record in self:
            if digest in record.documents:
                return record.documents[digest][1]
        raise Undecided("evidence.unknown", "no evidence with this digest is kept")

    def result(self, node_id: str) -> str:
        """The signed result of the latest appraisal of a node. Raises `Undecided`."""
        record = self._records.get(node_id)
        if record is None or record.result is None:
            raise Undecided("agent.no_result", f"no signed result about {node_id}")
        return record.result

    def statuses(self, now: float, steady: float) -> list[NodeStatus]:
        """Every node as the operator sees it."""
        return [_status(record, now, steady) for record in sorted(self, key=lambda each: each.node_id)]


def _status(record: NodeRecord, now: float, steady: float) -> NodeStatus:
    admitted = record.admitted(now)
    appraisal = record.appraisal
    return NodeStatus(
        node_id=record.node_id,
        node_sign=appraisal.sign_key.thumbprint if appraisal else None,
        admitted=admitted,
        until=int(record.admitted_until) if admitted else None,
        reason=record.reason if record.reason or admitted else "node.expired",
        health=record.health(steady),
        simulated=appraisal.simulated if appraisal else None,
    )
