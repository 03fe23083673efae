from __future__ import annotations

import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import Refused, Unreadable
from schemas.keys import SigningKey
from schemas.proof import binding
from schemas.proof.evidence import (
    MAX_EVIDENCE_BYTES,
    PACKED_FROM,
    ChallengeProof,
    CpuEvidence,
    DeviceEvidence,
    ModelFile,
    NodeConfiguration,
    NodeEvidence,
    evidence_digest,
    pack,
    unpack,
)

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


@given(
    st.binary(max_size=200)
    | st.integers(0, 3 * PACKED_FROM).map(lambda size: b"{" + b"evidence " * (size // 9))
)
def test_what_is_packed_comes_out_as_it_went_in(document: bytes) -> None:
    if document[:1] != b"\x78":
        assert unpack(pack(document)) == document


def test_large_evidence_travels_packed_and_small_as_it_is() -> None:
    small, large = b"{" * (PACKED_FROM - 1), b"{" * PACKED_FROM
    assert pack(small) == small
    assert len(pack(large)) < PACKED_FROM / 100


@given(st.binary(max_size=300).map(lambda data: b"\x78" + data))
def test_what_cannot_be_inflated_is_unreadable(data: bytes) -> None:
    with pytest.raises(Unreadable, match=r"evidence\.packed"):
        unpack(data)


@pytest.mark.parametrize("change", ["swells", "more behind it", "cut short"])
def test_what_is_not_one_document_of_a_bearable_size_is_unreadable(change: str) -> None:
    packed = zlib.compress(b"{" + bytes(MAX_EVIDENCE_BYTES - 1))
    assert len(unpack(packed)) == MAX_EVIDENCE_BYTES
    spoilt = {
        "swells": zlib.compress(bytes(MAX_EVIDENCE_BYTES + 1)),
        "more behind it": packed + b"{}",
        "cut short": packed[:-1],
    }[change]
    with pytest.raises(Unreadable, match=r"evidence\.packed"):
        unpack(spoilt)
