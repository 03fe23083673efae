"""A simulated node, its vendor, and what an auditor demands of it."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property, lru_cache
from typing import Any

from receipts.bundle import ChallengeDisclosure, Disclosures
from receipts.statements.fields import Attestation, Commitment, NodeRecord, Times
from receipts.statements.node import NodeStatement, sign_node_statement
from receipts.tests.bodies import capability, usage
from receipts.tests.names import CHALLENGE, CLINIC, CLOUD, ENGINE, FEDERATION, MODEL, MODEL_NAME, NOW
from schemas.canonical import sha256
from schemas.keys import SigningKey
from schemas.primitives import format_time
from schemas.proof.binding import ChallengeTree
from schemas.proof.evidence import ChallengeProof, ModelFile, NodeConfiguration, NodeEvidence


@lru_cache
def vendor() -> Any:
    """One simulated vendor for the whole run: its two RSA keys take a second."""
    return importlib.import_module("attestation.testing.chip").SimulatedVendor.create(
        "Milan", at=NOW - timedelta(days=1)
    )


@lru_cache
def chip() -> Any:
    return vendor().make_chip()


def platform() -> str:
    from attestation.appraise import platform_digest

    return platform_digest(chip().chip_id).hex()


def expected_toml() -> str:
    """What the auditor demands of nodes: the simulated root must be listed."""
    expectations = importlib.import_module("attestation.testing.expectations")
    text: str = expectations.simulated_toml(
        vendor().root_toml(), engine_digests=[ENGINE], models={MODEL_NAME: [MODEL]}
    )
    return text


@dataclass
class Node:
    """A simulated node of cloud.fr, challenged by clinic.de."""

    key: SigningKey = field(default_factory=SigningKey.generate)
    domain: str = CLOUD
    challenge: bytes = CHALLENGE

    @cached_property
    def stated(self) -> NodeEvidence:
        tree = ChallengeTree.over({CLINIC: self.challenge, CLOUD: bytes(32)})
        unquoted = NodeEvidence(
            federation=FEDERATION,
            domain=self.domain,
            node_id="node-1",
            boot_id="boot-1",
            key_epoch=1,
            sign_spki=self.key.public.spki,
            seal_key=bytes(1216),
            challenge_root=tree.root.hex(),
            challenges=[
                ChallengeProof(
                    domain=name, index=path.index, size=path.size, path=[part.hex() for part in path.path]
                )
                for name, path in tree.paths.items()
            ],
            configuration=NodeConfiguration(
                engine="in-tee",
                engine_kind="llama.cpp",
                engine_digest=ENGINE,
                engine_flags=[],
                engine_address="127.0.0.1:8080",
                models=[ModelFile(capability=MODEL_NAME, digest=MODEL)],
                prompt_logging=False,
            ),
            cpu=chip().quote(bytes(64)),
        )
        return unquoted.model_copy(update={"cpu": chip().quote(unquoted.expected_report_data())})

    @cached_property
    def evidence(self) -> bytes:
        return self.stated.write()

    def record(self, **changes: Any) -> NodeRecord:
        """The node with an appraisal of it, as a broker writes it."""
        values: dict[str, Any] = {
            "evidence_digest": sha256(self.evidence).hex(),
            "expectations_digest": "0" * 64,
            "policy_id": "standard",
            "challenge_root": self.stated.challenge_root,
            "iat": int(NOW.timestamp()) - 40,
            "status": "affirming",
            "binding_mode": "cpu-only",
            "simulated": True,
            "bound_key": self.key.thumbprint,
        }
        return NodeRecord(
            id=self.key.thumbprint, role="inference", attestation=Attestation(**(values | changes))
        )

    def statement(self, **changes: Any) -> bytes:
        values: dict[str, Any] = {
            "header": "1" * 64,
            "federation": FEDERATION,
            "domain": self.domain,
            "node_key": self.key.thumbprint,
            "segment": 0,
            "outcome": "ok",
            "code": "ok",
            "finish_reason": "stop",
            "capability": capability(),
            "usage": usage(),
            "response": Commitment(commitment="2" * 64),
            "times": Times(issued=format_time(NOW)),
        }
        return sign_node_statement(NodeStatement(**(values | changes)), self.key)

    def disclosures(self, issued_at: datetime = NOW - timedelta(seconds=40)) -> Disclosures:
        challenge = ChallengeDisclosure(
            domain=CLINIC, value=self.challenge.hex(), issued_at=format_time(issued_at)
        )
        return Disclosures(challenges=[challenge])
