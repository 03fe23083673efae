"""An agent's inside without a bus: real evidence from simulated chips, and clocks that a test moves."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from attestation.expected import Expectations
from attestation.testing.chip import SimulatedChip
from domain_agent.admit.admission import Admission
from domain_agent.admit.challenges import OwnChallenges, PeerChallenges
from domain_agent.admit.nodes import NodeBook
from domain_agent.admit.results import ResultIssuer
from domain_agent.admit.revocations import Revocations
from domain_agent.clock import Clock
from domain_agent.membership import Membership
from domain_agent.node.keys import NodeKeys
from domain_agent.node.proving.quote import make_evidence
from domain_agent.offer.capacity import Capacity
from domain_agent.offer.catalogue import Catalogue
from domain_agent.offer.holding import Holding
from domain_agent.offer.summary import Condenser
from domain_agent.tests.founding import CAPABILITY, OURS, Founded
from federation.connection import BusSettings
from schemas.canonical import write_json
from schemas.descriptors.capability import CapabilityDescriptor, CapabilityQuality, Rates
from schemas.errors import Undecided
from schemas.messages.interior import Challenges, ModelState, NodeState
from schemas.proof.evidence import ModelFile, NodeConfiguration

MODEL = "ab" * 32
SETTINGS = BusSettings("nats://127.0.0.1:1", Path("none"), None, "test", "_INBOX.test")


class Time:
    """Both clocks, moved together by the test."""

    def __init__(self) -> None:
        self.passed = 0.0
        self._began = time.time()
        self.clock = Clock(lambda: self._began + self.passed, lambda: 1000.0 + self.passed)


@dataclass
class FakeNode:
    """A node's side of admission. What it answers can be spoiled."""

    node_id: str
    chip: SimulatedChip
    keys: NodeKeys = field(default_factory=NodeKeys)
    models: Mapping[str, str] = field(default_factory=lambda: {CAPABILITY: MODEL})
    changes: dict[str, object] = field(default_factory=dict)
    """Fields of the finished evidence that are replaced: lies that the hardware did not sign."""
    silent: bool = False
    domain: str = OURS
    quotes: int = 0

    async def quote(self, founded: Founded, asked: Challenges, steady: float) -> bytes:
        if self.silent:
            raise Undecided("bus.timeout", "no answer")
        self.quotes += 1
        evidence = await make_evidence(
            self.keys,
            self.chip.quote,
            NodeConfiguration(
                engine="in-tee",
                engine_kind="scripted",
                engine_digest="cd" * 32,
                engine_flags=[],
                engine_address="http://127.0.0.1:1",
                models=[ModelFile(capability=name, digest=digest) for name, digest in self.models.items()],
                prompt_logging=False,
            ),
            federation=founded.trust.federation,
            domain=self.domain,
            node_id=self.node_id,
            key_epoch=asked.key_epoch,
            challenges={name: bytes.fromhex(value) for name, value in asked.challenges.items()},
            now=steady,
        )
        return write_json({**evidence.as_json(), **self.changes})  # type: ignore[dict-item]


class Interior:
    """Admission, books and summary of clinic.de, joined as the agent joins them."""

    def __init__(self, founded: Founded, state: Path, *, k_min: int = 1) -> None:
        self.founded, self.time = founded, Time()
        self.nodes: dict[str, FakeNode] = {}
        self.lost: list[tuple[tuple[str, ...], str, str]] = []
        self.book, self.capacity = NodeBook(), Capacity()
        self.own, self.peers = OwnChallenges(OURS), PeerChallenges()
        self.admission = Admission(
            membership=Membership(OURS, SETTINGS, founded.trust),
            expectations=Expectations.load(founded.folder / "expected.toml"),
            book=self.book,
            own=self.own,
            peers=self.peers,
            revocations=Revocations.load(state),
            ask=lambda node_id, asked: self.nodes[node_id].quote(founded, asked, self.time.clock.steady()),
            lost=lambda keys, kind, reason: self.lost.append((keys, kind, reason)),
            clock=self.time.clock,
            results=ResultIssuer(OURS, founded.verifier),
        )
        catalogue = Catalogue.of([entry("smollm2-135m-q4_1", MODEL)])
        self.holding = Holding(self.book, self.capacity, catalogue, self.time.clock)
        self.condenser = Condenser(self.holding, "DE", k_min)

    def add(self, name: str = "n1", *, chip: str | None = None, node_id: str | None = None) -> FakeNode:
        """A node arrives; nothing is proven yet."""
        loaded = SimulatedChip.load(self.founded.folder / "chips" / (chip or name))
        node = FakeNode(node_id or name, loaded)
        self.nodes[node.node_id] = node
        self.admission.arrive(node.node_id, node.keys.boot_id)
        return node

    async def ask_due(self) -> list[str]:
        """Ask whoever is due now; returns their names."""
        due = self.admission.due()
        for record in due:
            await self.admission.renew(record)
        return sorted(record.node_id for record in due)

    def admitted(self, node_id: str = "n1") -> bool:
        record = self.book.get(node_id)
        return record is not None and record.admitted(self.time.clock.wall())

    def reason(self, node_id: str = "n1") -> str | None:
        record = self.book.get(node_id)
        assert record
        return record.reason

    def report(self, node_id: str = "n1", *, slots: int = 2, decode: int = 50) -> None:
        """The node's telemetry of this second."""
        node = self.nodes[node_id]
        states = [
            ModelState(capability=name, model_digest=digest, prefill_tps=100, decode_tps=decode)
            for name, digest in node.models.items()
        ]
        state = NodeState(
            node_id=node_id,
            boot_id=node.keys.boot_id,
            health="HEALTHY",
            slots=slots,
            busy_slots=0,
            queued=0,
            memory_mb=1000,
            models=states,
        )
        self.book.note_state(state, node_id, self.time.clock.steady())
        self.capacity.set_room(node_id, slots=slots, queue=slots)


def entry(variant: str, digest: str, *, tier: int = 1) -> CapabilityDescriptor:
    return CapabilityDescriptor(
        name="chat.small",
        variant=variant,
        version="1",
        digest=digest,
        task="chat",
        quality=CapabilityQuality(tier=tier, context_limit=2048),
        rates=Rates(input=100, output=300, cached=10),
    )
