"""Service tokens under archived key sets: what holds, and every way in which one must not."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation.appraise import appraise_nvidia
from attestation.gpu.forms import Devices
from attestation.gpu.node.devices import DeviceInput
from attestation.gpu.nras.check import check_token
from attestation.gpu.pki.roots import NVIDIA_ROOTS
from attestation.gpu.tests.judging import GOOD, codes, collateral, expect, judge, toml
from attestation.result import AttestationResult
from attestation.testing.nvidia import NOW, GpuForge
from attestation.testing.nvidia_node import BoardForge, board_manifests
from attestation.testing.nvidia_report import NONCE
from attestation.testing.nvidia_token import KEY_ID, TokenForge, jwt, part
from schemas.canonical import Json

TOKEN = TokenForge()
LATE = NOW + timedelta(hours=2)


def in_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def request(devices: Sequence[GpuForge]) -> bytes:
    """The devices as they were sent to the service."""
    listed = [
        {"evidence": in_base64(each.report()), "certificate": in_base64(each.chain())} for each in devices
    ]
    return json.dumps({"nonce": NONCE.hex(), "evidence_list": listed}).encode()


def judge_token(
    token: TokenForge = TOKEN,
    *,
    data: bytes | None = None,
    devices: Sequence[GpuForge] | None = (GOOD,),
    keys: bytes | None = b"",
    nonce: bytes | None = NONCE,
    at: datetime = NOW,
) -> AttestationResult:
    """The token by itself, beside the raw evidence that it should speak of."""
    archived = [token.key_set() if keys == b"" else keys] if keys is not None else []
    evidence = [request(devices)] if devices is not None else []
    return appraise_nvidia(
        token.token() if data is None else data,
        endorsements=[*archived, *evidence],
        expectations=expect(toml(revocation='"any"')),
        nonce=nonce,
        at=at,
    )


def but(**changes: Any) -> TokenForge:
    return replace(TOKEN, **changes)


def test_a_good_token_holds() -> None:
    found = judge_token()
    assert (found.verdict, codes(found)) == ("affirming", [])
    several = [GpuForge(number=n) for n in range(8)]
    assert judge_token(but(devices=several), devices=several).verdict == "affirming"


def standing(**changes: Json) -> dict[str, Json]:
    """A chain's standing as version 3 of the claims states it."""
    good: dict[str, Json] = {
        "x-nvidia-cert-status": "valid", "x-nvidia-cert-ocsp-status": "good",
        "x-nvidia-cert-expiration-date": "2027-06-01T00:00:00Z", "x-nvidia-cert-revocation-reason": None,
        "x-nvidia-cert-ocsp-nonce-matches": True, "x-nvidia-cert-ocsp-response-valid": True,
    }  # fmt: skip
    return {"x-nvidia-gpu-driver-rim-cert-chain": {**good, **changes}}


def test_a_token_of_version_3_holds() -> None:
    claims = {**standing(), "x-nvidia-gpu-attestation-report-cert-chain-fwid-match": True}
    assert judge_token(but(overall={"x-nvidia-ver": "3.0"}, claims=claims)).verdict == "affirming"


def test_gpus_and_switches_have_a_token_each() -> None:
    """NVIDIA's service is asked about either; a token is about every device of its kind, and no other's."""
    board = BoardForge()
    devices = list(board.devices().values())
    gpus, switches = but(devices=devices[:8]), but(devices=devices[8:])
    for token in (gpus, switches, but(devices=devices)):
        assert judge_token(token, devices=devices).verdict == "affirming"
    assert "nras_device_mismatch" in codes(judge_token(but(devices=devices[:7]), devices=devices))
    listed = Devices(tuple(DeviceInput(each.report(), (each.chain(),)) for each in devices), together=True)

    def required(*tokens: TokenForge) -> AttestationResult:
        return appraise_nvidia(
            listed,
            endorsements=[*board_manifests(), *(each.token() for each in tokens), TOKEN.key_set()],
            expectations=expect(toml(revocation='"any"', token='"required"')),
            nonce=NONCE,
            at=NOW,
        )

    assert required(gpus, switches).verdict == "affirming"
    found = required(gpus)
    assert (found.verdict, found.reason) == ("none", "gpu.nras_unavailable")
    assert "switch" in found.check("gpu.nras.kinds").seen


WRONG = base64.b64encode(b"0").decode()
Fault = Callable[[], AttestationResult]
FAULTS: dict[str, list[Fault]] = {
    "nras_algorithm_refused": [
        lambda: judge_token(but(header={"alg": "none"}, signer=None)),
        lambda: judge_token(but(header={"alg": "HS256"})),
        lambda: judge_token(but(header={"alg": "ES256"})),
        lambda: judge_token(but(header={"alg": "HS384"})),
        lambda: judge_token(but(header={"crit": ["x"]})),
        lambda: judge_token(but(header={"alg": "None"}, signer=None)),
    ],
    "nras_malformed": [
        lambda: judge_token(data=b"[]"),
        lambda: judge_token(data=b'[["JWT", "a.b.c"], {"GPU-0": "a.b.c"}]'),
        lambda: judge_token(data=b'[["JWT", "a"], {}]'),
        lambda: judge_token(but(signer=None)),
        lambda: judge_token(but(overall={"iss": "NVAT-LOCAL-VERIFIER"})),
        lambda: judge_token(but(claims={"iss": "x"})),
        lambda: judge_token(but(overall={"sub": "x"})),
        lambda: judge_token(but(overall={"x-nvidia-ver": "9.0"})),
        lambda: judge_token(but(overall={"exp": "later"})),
        lambda: judge_token(but(claims={"nbf": None})),
    ],
    "nras_keys_unavailable": [lambda: judge_token(keys=None)],
    "nras_key_unknown": [
        lambda: judge_token(but(header={"kid": "other"})),
        lambda: judge_token(but(keys=2)),
        lambda: judge_token(keys=b'{"keys": []}'),
    ],
    "nras_key_mismatch": [
        lambda: judge_token(but(jwk={"x": part(bytes(48))})),
        lambda: judge_token(but(jwk={"crv": "P-256"})),
        lambda: judge_token(but(jwk={"x5c": []})),
        lambda: judge_token(but(jwk={"x5c": [WRONG, WRONG]})),
        lambda: judge_token(but(leaf={"signer": "nobody"})),
        lambda: judge_token(but(leaf={"subject": "Somebody"})),
        lambda: judge_token(but(leaf={"issuer": "Somebody"})),
        lambda: judge_token(but(leaf={"not_after": NOW - timedelta(hours=1)})),
        lambda: judge_token(but(leaf={"not_before": NOW})),
        lambda: judge_token(but(overall={"iat": "soon"})),
    ],
    "nras_signature_invalid": [
        lambda: judge_token(but(signer="nobody")),
        lambda: judge_token(but(device_signer="nobody")),
    ],
    "nras_token_expired": [lambda: judge_token(at=LATE)],
    "nras_token_not_yet_valid": [lambda: judge_token(at=NOW - timedelta(minutes=3))],
    "nras_digest_mismatch": [
        lambda: judge_token(but(submods={"GPU-0": ["DIGEST", ["SHA-256", "00" * 32]]})),
        lambda: judge_token(but(submods={"GPU-1": ["DIGEST", ["SHA-256", "00" * 32]]})),
        lambda: judge_token(but(digest_name="SHA256")),
        lambda: judge_token(but(overall={"submods": {}})),
    ],
    "nras_nonce_mismatch": [
        lambda: judge_token(nonce=bytes(32)),
        lambda: judge_token(but(overall={"eat_nonce": "00" * 32})),
        lambda: judge_token(but(claims={"eat_nonce": "00" * 32})),
        lambda: judge_token(devices=[replace(GOOD, nonce=bytes(32))], nonce=None),
    ],
    "nras_device_mismatch": [
        lambda: judge_token(but(claims={"ueid": "1"})),
        lambda: judge_token(but(claims={"x-nvidia-gpu-driver-version": "1"})),
        lambda: judge_token(but(claims={"x-nvidia-gpu-vbios-version": "1"})),
        lambda: judge_token(devices=[GpuForge(number=1)]),
        lambda: judge_token(devices=[GOOD, GpuForge(number=1)]),
        lambda: judge_token(but(devices=[GOOD, GOOD])),
    ],
    "nras_result_false": [
        lambda: judge_token(but(overall={"x-nvidia-overall-att-result": False})),
        lambda: judge_token(but(overall={"x-nvidia-overall-att-result": "true"})),
        lambda: judge_token(but(claims={"measres": "fail"})),
        lambda: judge_token(but(claims={"secboot": False})),
        lambda: judge_token(but(claims={"dbgstat": "enabled"})),
        lambda: judge_token(but(claims={"measres": None})),
        lambda: judge_token(but(claims={"x-nvidia-gpu-arch-check": False})),
        lambda: judge_token(but(claims=standing(**{"x-nvidia-cert-status": "expired"}))),
        lambda: judge_token(but(claims=standing(**{"x-nvidia-cert-ocsp-status": "unknown"}))),
        lambda: judge_token(but(claims=standing(**{"x-nvidia-cert-ocsp-nonce-matches": False}))),
        lambda: judge_token(but(claims=standing(**{"x-nvidia-cert-ocsp-response-valid": False}))),
    ],
    "nras_contradicts_local": [lambda: judge_token(devices=[replace(GOOD, signer="nobody")])],
}


@pytest.mark.parametrize(
    ("code", "fault"), [(code, each) for code, faults in FAULTS.items() for each in faults]
)
def test_fault(code: str, fault: Fault) -> None:
    found = fault()
    assert code in codes(found)
    assert found.verdict == ("none" if code == "nras_keys_unavailable" else "contraindicated")


def test_a_token_without_a_pin_above_its_key_is_undecided() -> None:
    found = appraise_nvidia(TOKEN.token(), endorsements=[TOKEN.key_set()], nonce=NONCE, at=NOW)
    assert (found.verdict, found.reason) == ("none", "gpu.nras_anchor_unpinned")


def test_as_a_hint_a_token_that_cannot_be_used_changes_nothing() -> None:
    """Late, without its keys, or forged altogether: it is named, and our own verdict stands."""
    good = collateral(GOOD)
    for documents in ([TOKEN.token()], [TOKEN.token(), but(jwk={"x5c": []}).key_set()]):
        found = judge(endorsements=[*good, *documents])
        assert found.verdict == "affirming"
        assert "not used as a hint" in found.check("gpu.nras.form").seen


def test_a_hint_that_holds_may_contradict_us() -> None:
    bad = but(claims={"measres": "fail"})
    found = judge(endorsements=[*collateral(GOOD), bad.token(), bad.key_set()])
    assert codes(found) == ["nras_result_false", "nras_contradicts_local"]
    held = judge(endorsements=[*collateral(GOOD), TOKEN.token(), TOKEN.key_set()])
    assert held.verdict == "affirming"
    assert held.check("gpu.nras.agreement").status == "pass"


def test_a_required_token_must_hold() -> None:
    good = collateral(GOOD)
    assert (
        judge(endorsements=[*good, TOKEN.token(), TOKEN.key_set()], token='"required"').verdict == "affirming"
    )
    assert (
        judge(endorsements=[*good, TOKEN.token()], token='"required"').reason == "gpu.nras_keys_unavailable"
    )


def test_the_wrapper_of_the_sdk_is_told_apart() -> None:
    """Its key is public: what it signs proves nothing, and what stands inside is to be handed in."""
    inside = json.loads(TOKEN.token())
    wrapped = [["JWT", jwt({"alg": "HS256"}, {}, None)], {"REMOTE_GPU_CLAIMS": inside}]
    found = judge_token(data=json.dumps(wrapped).encode())
    assert codes(found) == ["nras_algorithm_refused"]
    assert "the token inside" in found.check("gpu.nras.form").seen


def test_an_unsigned_token_of_a_local_verifier_is_no_service_token() -> None:
    claims: dict[str, Json] = {"iss": "NVAT-LOCAL-VERIFIER", "x-nvidia-overall-att-result": True}
    compact = jwt({"alg": "none", "kid": KEY_ID}, claims, None)
    found = judge_token(data=json.dumps([["JWT", compact], {"GPU-0": compact}]).encode())
    assert codes(found) == ["nras_algorithm_refused"]


@given(st.data())
def test_a_damaged_token_is_never_affirmed(data: st.DataObject) -> None:
    """Nor does it raise: whatever is wrong with it is a check."""
    damaged = bytearray(TOKEN.token())
    at = data.draw(st.integers(0, len(damaged) - 1))
    damaged[at] ^= 1 << data.draw(st.integers(0, 7))
    keys = bytearray(TOKEN.key_set())
    found = check_token(bytes(damaged), [bytes(keys)], None, NVIDIA_ROOTS, NOW.timestamp(), nonce=NONCE)
    assert any(check.status == "fail" for check in found.checks)


@given(st.binary(max_size=200))
def test_random_bytes_are_no_token(data: bytes) -> None:
    found = check_token(data, [data], None, NVIDIA_ROOTS, NOW.timestamp(), nonce=None)
    assert found.token is None
