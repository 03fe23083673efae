"""One way for these tests to have a node prove itself; a test changes what it is about."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from domain_agent.node.keys import NodeKeys
from domain_agent.node.proving.collect import Collect, simulated
from domain_agent.node.proving.quote import make_evidence
from domain_agent.tests.founding import FEDERATION, OURS, PEER, Founded
from schemas.proof.evidence import NodeConfiguration, NodeEvidence

CHALLENGES: Final = {OURS: b"1" * 32, PEER: b"2" * 32}


def configuration(**changes: object) -> NodeConfiguration:
    fields: dict[str, object] = {
        "engine": "in-tee",
        "engine_kind": "scripted",
        "engine_digest": "cd" * 32,
        "engine_flags": [],
        "engine_address": "http://127.0.0.1:1",
        "models": [],
        "prompt_logging": False,
    }
    return NodeConfiguration.model_validate({**fields, **changes})


def chip_of(founded: Founded) -> Collect:
    """The simulated chip of node `n1`."""
    chip: Path = founded.folder / "chips" / "n1"
    return simulated(chip)


async def evidence_of(collect: Collect, keys: NodeKeys | None = None, **changes: Any) -> NodeEvidence:
    """What node `n1` of our domain answers. changes: further arguments of `make_evidence`, or others."""
    asked: dict[str, Any] = {"key_epoch": 1, "challenges": CHALLENGES, "now": 0.0} | changes
    return await make_evidence(
        keys or NodeKeys(),
        collect,
        configuration(),
        federation=FEDERATION,
        domain=OURS,
        node_id="n1",
        **asked,
    )
