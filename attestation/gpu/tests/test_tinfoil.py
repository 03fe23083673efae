"""A recorded composite of another maker, whole and with each of its ties cut."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation.appraise import appraise_node_offline
from attestation.commands import main
from attestation.gpu.node.tinfoil import FORMAT, read_tinfoil
from attestation.gpu.tests import recorded
from attestation.result import AttestationResult
from schemas.errors import Unreadable
from schemas.primitives import parse_time

CASE = "composite-tdx-hopper-tinfoil-20260629"
with_evidence = pytest.mark.skipif(not recorded.PRESENT, reason=recorded.ABSENT)


def said() -> dict[str, Any]:
    return recorded.case(CASE)


def document() -> bytes:
    return recorded.read(f"gpu/{CASE}/attestation.json")


def judge(data: bytes, nonce: bytes | None = None) -> AttestationResult:
    folder = recorded.FOLDER / "gpu" / CASE / "cpu"
    endorsements = [file.read_bytes() for file in sorted(folder.iterdir()) if file.suffix != ".bin"]
    return appraise_node_offline(
        data,
        endorsements=endorsements,
        challenge=bytes.fromhex(said()["nonce"]) if nonce is None else nonce,
        waive_revocation=True,
        at=parse_time(said()["evaluations"][0]["time"]),
    )


@with_evidence
def test_the_ties_hold_and_only_the_manifests_are_missing() -> None:
    found = judge(document())
    ties = {check.name: check.status for check in found.checks if check.name.startswith("gpu.binding")}
    assert ties == {
        "gpu.binding.report_data": "pass", "gpu.binding.evidence": "pass", "gpu.binding.nonce": "pass",
        "gpu.binding.envelope": "pass", "gpu.binding": "not_evaluated",
    }  # fmt: skip
    assert found.stated()["binding_mode"] == said()["expected"]["binding"]["mode"]
    assert found.stated()["report_data"] == said()["expected"]["binding"]["tdx_report_data"]
    assert not [check for check in found.checks if check.effect == "contraindicated"]
    assert (found.verdict, found.reason) == ("none", "gpu.rim_unavailable")


@with_evidence
def test_through_the_command_line_with_its_token(capsys: pytest.CaptureFixture[str]) -> None:
    folder = recorded.FOLDER / "gpu" / CASE
    arguments = [
        "verify",
        "--tee",
        "node",
        str(folder / "attestation.json"),
        "--json",
        "--waive",
        "revocation",
    ]
    arguments += ["--at", said()["evaluations"][0]["time"], "--nonce", said()["nonce"]]
    for name in ("cpu", "eat.json", "jwks.json"):
        arguments += ["--endorsements", str(folder / name)]
    assert main(arguments) == 3
    printed = json.loads(capsys.readouterr().out)
    assert printed["reason"] == "gpu.rim_unavailable"
    assert printed["evidence"]["binding_mode"] == "evidence-hash"


@with_evidence
@pytest.mark.parametrize(
    ("old", "new", "tie"),
    [
        (b'"hpke_key":"03', b'"hpke_key":"04', "report_data"),
        (b'"nonce":"08', b'"nonce":"09', "nonce"),
        (b'"gpu_evidence_hash":"58', b'"gpu_evidence_hash":"59', "evidence"),
        (b'"gpu":{"evidences"', b'"gpu":{ "evidences"', "evidence"),
        (b'"tls_key_fp":"dd', b'"tls_key_fp":"de', "envelope"),
        (b'"signature":"MGYC', b'"signature":"MGYD', "envelope"),
        (b'"certificate":"-----BEGIN', b'"certificate":"----BEGIN', "envelope"),
    ],
)
def test_each_tie_that_is_cut_is_named(old: bytes, new: bytes, tie: str) -> None:
    changed = document().replace(old, new, 1)
    assert changed != document()
    found = judge(changed)
    assert found.verdict == "contraindicated"
    assert found.check(f"gpu.binding.{tie}").status == "fail"


@with_evidence
def test_another_challenge_is_refused() -> None:
    assert judge(document(), bytes(32)).check("gpu.binding.nonce").code == "gpu.nonce_mismatch"


@given(st.binary(max_size=120))
def test_random_documents_refuse(data: bytes) -> None:
    for document in (data, b'{"format": "' + FORMAT.encode() + b'", ' + data):
        with pytest.raises(Unreadable):
            read_tinfoil(document)
