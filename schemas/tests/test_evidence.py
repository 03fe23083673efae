from __future__ import annotations

from typing import Any

import pytest

from schemas import binding
from schemas.errors import Refused, Unreadable
from schemas.evidence import (
    ChallengeProof,
    CpuEvidence,
    DeviceEvidence,
    ModelFile,
    NodeConfiguration,
    NodeEvidence,
    evidence_digest,
)
from schemas.keys import SigningKey

NODE = SigningKey.generate()
TREE = binding.ChallengeTree.over({"a.example": b"\1" * 32, "b.example": b"\2" * 32})
CONFIGURATION = NodeConfiguration(
    engine="in-tee",
    engine_kind="llama.cpp",
    engine_digest="11" * 32,
    engine_flags=["--parallel", "2"],
    engine_address="127.0.0.1",
    models=[ModelFile(capability="chat.small/test", digest="22" * 32)],
    prompt_logging=False,
)
DEVICE = DeviceEvidence(kind="gpu", report=b"gpu", endorsements=[b"chain"])


def proof(domain: str) -> ChallengeProof:
    path = TREE.paths[domain]
    parts = [part.hex() for part in path.path]
    return ChallengeProof(domain=domain, index=path.index, size=path.size, path=parts)


def evidence(**changes: Any) -> NodeEvidence:
    values: dict[str, Any] = {
        "federation": "test",
        "domain": "a.example",
        "node_id": "n1",
        "boot_id": "b1",
        "key_epoch": 0,
        "sign_spki": NODE.public.spki,
        "seal_key": bytes(1216),
        "challenge_root": TREE.root.hex(),
        "challenges": [proof("a.example"), proof("b.example")],
        "configuration": CONFIGURATION,
        "cpu": CpuEvidence(tee="snp", report=b"report", endorsements=[b"vcek"]),
    }
    return NodeEvidence.model_validate(values | changes)


def test_evidence_survives_the_wire() -> None:
    held = evidence(devices=[DEVICE], device_challenge_root="33" * 32, event_log=b"log")
    assert NodeEvidence.read(held.write()) == held
    assert held.sign_key.thumbprint == NODE.thumbprint
    assert evidence_digest(held.write()) != evidence_digest(held.write() + b" ")


@pytest.mark.parametrize(
    "changes",
    [
        {"federation": "other"},
        {"domain": "b.example"},
        {"node_id": "n2"},
        {"boot_id": "b2"},
        {"key_epoch": 1},
        {"sign_spki": SigningKey.generate().public.spki},
        {"seal_key": b"\1" * 1216},
        {"challenge_root": "44" * 32},
        {"configuration": CONFIGURATION.model_copy(update={"prompt_logging": True})},
        {"configuration": CONFIGURATION.model_copy(update={"engine": "outside-tee"})},
        {"configuration": CONFIGURATION.model_copy(update={"models": []})},
        {"devices": [DEVICE]},
    ],
)
def test_everything_a_node_states_is_in_its_report(changes: dict[str, Any]) -> None:
    assert evidence(**changes).expected_report_data() != evidence().expected_report_data()


def test_the_device_bundle_is_covered_in_order() -> None:
    other = DEVICE.model_copy(update={"report": b"other"})
    digests = {
        evidence(devices=listed).device_evidence_digest
        for listed in ([DEVICE, other], [other, DEVICE], [other])
    }
    assert len(digests) == 3
    assert evidence().device_evidence_digest == binding.NO_DEVICES


def test_a_challenge_is_found_by_domain() -> None:
    held = evidence()
    path = held.challenge_path("b.example")
    root = bytes.fromhex(held.challenge_root)
    assert binding.verify_challenge("b.example", b"\2" * 32, path, root) == root
    with pytest.raises(Refused, match=r"binding\.not_challenged"):
        held.challenge_path("c.example")


@pytest.mark.parametrize(
    "change",
    [{"v": 2}, {"domain": "A.example"}, {"challenges": []}, {"verdict": "affirming"}, {"sign_spki": "AA"}],
)
def test_other_shapes_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(Unreadable, match=r"schema\.NodeEvidence"):
        NodeEvidence.from_json(evidence().as_json() | change)


def test_a_signing_key_that_is_none_is_refused() -> None:
    with pytest.raises(Unreadable, match=r"keys\.spki"):
        _ = evidence(sign_spki=b"none").sign_key
