"""Fetching for NVIDIA's devices from services that behave, and from ones that do not."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import pytest
from cryptography.x509 import ocsp

from attestation.appraise import appraise_nvidia
from attestation.collateral.bundle import INDEX
from attestation.collateral.nvidia import Accelerators, Endpoints
from attestation.collateral.pieces import Pieces
from attestation.collateral.service import Service
from attestation.collateral.tests.test_bundle import signer_toml
from attestation.commands import main
from attestation.gpu.expected import GpuPolicy
from attestation.gpu.forms import TokenFile
from attestation.gpu.node.devices import DeviceInput
from attestation.gpu.revocation.ocsp import CertId, cert_ids
from attestation.gpu.tests import test_composite as composite
from attestation.gpu.tests.judging import (
    DRIVER_MANIFEST,
    GOOD,
    SWITCH,
    VBIOS_MANIFEST,
    expect,
    manifests_of,
    toml,
)
from attestation.pki.x509 import read_certificate
from attestation.testing.nvidia import NOW, GpuForge, pem
from attestation.testing.nvidia_report import NONCE
from attestation.testing.nvidia_status import Answer, asked
from attestation.testing.nvidia_token import TokenForge
from schemas.errors import ComityError, ConfigurationError, Refused, Undecided
from schemas.keys import SigningKey

MANIFESTS = {
    "NV_GPU_DRIVER_GH100_550.90.07": DRIVER_MANIFEST,
    "NV_GPU_VBIOS_G520_0280_895_96009F0001": VBIOS_MANIFEST,
}
SWITCH_ID = "NV_SWITCH_BIOS_5612_0002_890_9610550001"
DRIVER = "/v1/rim/NV_GPU_DRIVER_GH100_550.90.07"


@dataclass
class Mirror:
    """All three services; a test puts one thing wrong."""

    bodies: Mapping[str, bytes] = field(default_factory=dict)
    """Path → what is answered instead."""
    statuses: Mapping[str, list[int]] = field(default_factory=dict)
    """Start of a path → statuses before the first good answer."""
    answer: Mapping[str, Any] = field(default_factory=dict)
    """What OCSP answers say differently."""
    devices: Sequence[GpuForge] = (GOOD,)
    now: float = NOW.timestamp()
    seen: list[str] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        self.seen.append(path)
        for start, statuses in self.statuses.items():
            if path.startswith(start) and statuses:
                return httpx.Response(statuses.pop(0))
        if path in self.bodies:
            return httpx.Response(200, content=self.bodies[path])
        if path.startswith("/v1/rim/"):
            return self._manifest(path.removeprefix("/v1/rim/"))
        if path.startswith("/ocsp/"):
            raw = request.url.raw_path.decode().removeprefix("/ocsp/")
            return self._status(base64.b64decode(unquote(raw)))
        if path == "/.well-known/jwks.json":
            return httpx.Response(200, content=TokenForge().key_set())
        return httpx.Response(404)

    def _manifest(self, name: str) -> httpx.Response:
        manifests = {**MANIFESTS, SWITCH_ID: manifests_of(SWITCH)[0]}
        if name not in manifests:
            return httpx.Response(404)
        document = base64.b64encode(manifests[name].document()).decode()
        return httpx.Response(200, content=json.dumps({"id": name, "rim": document, "request_id": "x"}))

    def _status(self, request: bytes) -> httpx.Response:
        said = ocsp.load_der_ocsp_request(request)
        question = CertId(
            said.hash_algorithm.name, said.issuer_name_hash, said.issuer_key_hash, said.serial_number
        )
        for about, issuer in [pair for each in self.devices for pair in asked(each, manifests_of(each))]:
            if question in cert_ids(read_certificate(about.der()), read_certificate(issuer.der())):
                return httpx.Response(200, content=replace(Answer(about, issuer), **self.answer).der())
        return httpx.Response(404)


def answers_in(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.ocsp"))


async def no_pause(seconds: float) -> None:
    del seconds


def policy() -> GpuPolicy:
    found = expect(toml()).nvidia
    assert found is not None
    return found


async def run(mirror: Mirror, folder: Path, work: Callable[[Accelerators], Any]) -> list[Path]:
    async with httpx.AsyncClient(transport=httpx.MockTransport(mirror)) as client:
        service = Service(client, "http://mirror", sleep=no_pause, clock=lambda: mirror.now)
        found: list[Path] = await work(
            Accelerators(Pieces(folder), service, policy(), Endpoints.mirror("http://mirror"))
        )
        return found


async def fetch(mirror: Mirror, folder: Path, device: GpuForge = GOOD) -> list[Path]:
    given = DeviceInput(device.report(), (device.chain(),))
    return await run(mirror, folder, lambda service: service.endorse([given]))


async def test_what_was_fetched_is_enough_without_a_network(tmp_path: Path) -> None:
    files = await fetch(Mirror(), tmp_path)
    assert len(files) == 2 + 3 + 3  # both manifests share their chain
    found = appraise_nvidia(
        GOOD.report(), endorsements=[GOOD.chain(), *(file.read_bytes() for file in files)],
        expectations=expect(toml()), nonce=NONCE, at=NOW,
    )  # fmt: skip
    assert found.verdict == "affirming"


async def test_answers_are_asked_for_again_only_when_they_end(tmp_path: Path) -> None:
    mirror = Mirror()
    await fetch(mirror, tmp_path)
    before = len([path for path in mirror.seen if path.startswith("/ocsp/")])
    await fetch(mirror, tmp_path)
    assert len([path for path in mirror.seen if path.startswith("/ocsp/")]) == before
    later = timedelta(hours=24)
    mirror.now += later.total_seconds()
    mirror.answer = {"this_update": NOW + later, "next_update": NOW + 2 * later}
    await fetch(mirror, tmp_path)
    assert len([path for path in mirror.seen if path.startswith("/ocsp/")]) == 2 * before
    assert len(answers_in(tmp_path)) == before


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_service_that_is_busy_is_asked_again(status: int, tmp_path: Path) -> None:
    mirror = Mirror(statuses={"/v1/rim/": [status] * 4, "/ocsp/": [status]})
    assert len(await fetch(mirror, tmp_path)) == 8


FAULTS: dict[str, tuple[Mirror, str, type[ComityError]]] = {
    "no manifest": (Mirror(statuses={"/v1/rim/": [404]}), "collateral.not_found", Undecided),
    "down for good": (Mirror(statuses={"/v1/rim/": [500] * 9}), "collateral.unavailable", Undecided),
    "responder forbids": (Mirror(statuses={"/ocsp/": [403]}), "collateral.unavailable", Undecided),
    "not json": (Mirror(bodies={DRIVER: b"<html>"}), "collateral.wrong_answer", Refused),
    "another id": (
        Mirror(bodies={DRIVER: b'{"id": "NV_OTHER", "rim": "PGEvPg=="}'}),
        "collateral.wrong_answer", Refused,
    ),
    "another firmware": (
        Mirror(bodies={DRIVER: VBIOS_MANIFEST.document()}),
        "collateral.wrong_answer", Refused,
    ),
    "forged manifest": (
        Mirror(bodies={DRIVER: replace(DRIVER_MANIFEST, key="nobody").document()}),
        "collateral.wrong_answer", Refused,
    ),
    "revoked": (Mirror(answer={"status": "revoked"}), "gpu.cert_revoked", Refused),
    "on hold": (Mirror(answer={"status": "hold"}), "gpu.cert_on_hold", Refused),
    "unknown": (Mirror(answer={"status": "unknown"}), "gpu.revocation_unknown", Refused),
    "stale": (Mirror(answer={"next_update": NOW - timedelta(minutes=9)}), "collateral.wrong_answer", Refused),
    "forged answer": (Mirror(answer={"damaged": True}), "collateral.wrong_answer", Refused),
    "undelegated": (Mirror(answer={"appointed": False}), "collateral.wrong_answer", Refused),
    "another hash": (Mirror(answer={"hash_name": "sha1"}), "collateral.wrong_answer", Refused),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
async def test_what_does_not_fit_never_enters_the_folder(name: str, tmp_path: Path) -> None:
    mirror, code, kind = FAULTS[name]
    mirror = replace(mirror, statuses={key: list(value) for key, value in mirror.statuses.items()})
    with pytest.raises(kind) as error:
        await fetch(mirror, tmp_path)
    assert error.value.code == code
    assert not answers_in(tmp_path)


async def test_nothing_is_asked_for_a_device_that_is_not_genuine(tmp_path: Path) -> None:
    mirror = Mirror()
    with pytest.raises(Refused) as error:
        await fetch(mirror, tmp_path, replace(GOOD, signer="nobody"))
    assert error.value.code == "gpu.report_signature_invalid"
    assert not mirror.seen


async def test_a_tokens_key_set_is_archived_while_it_is_there(tmp_path: Path) -> None:
    token = TokenFile(TokenForge().token())
    (file,) = await run(Mirror(), tmp_path, lambda service: service.archive_keys(token))
    assert file.read_bytes() == TokenForge().key_set()
    gone = Mirror(bodies={"/.well-known/jwks.json": b'{"keys": []}'})
    with pytest.raises(Refused, match=r"collateral\.wrong_answer"):
        await run(gone, tmp_path, lambda service: service.archive_keys(token))


def test_the_command_collects_for_a_folder_of_a_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`comity attest fetch` with a mirror, then `verify` with nothing but what it left."""
    device, bundle, expected = tmp_path / "device", tmp_path / "bundle", tmp_path / "expected.toml"
    device.mkdir()
    (device / "report.bin").write_bytes(GOOD.report())
    (device / "chain.pem").write_bytes(GOOD.chain())
    expected.write_text(toml())
    transport = httpx.MockTransport(Mirror())
    real = httpx.AsyncClient
    monkeypatch.setattr(httpx, "AsyncClient", lambda: real(transport=transport))
    monkeypatch.setattr("attestation.collateral.fetch.Service", partial(Service, clock=NOW.timestamp))
    arguments = [
        str(device),
        "--out",
        str(bundle),
        "--from",
        "http://mirror",
        "--expect",
        str(expected),
        "--json",
    ]
    assert main(["fetch", *arguments]) == 0
    assert len(json.loads(capsys.readouterr().out)["files"]) == 8
    verify = [
        "verify",
        "--tee",
        "nvidia",
        str(device),
        "--endorsements",
        str(bundle),
        "--expect",
        str(expected),
    ]
    assert main([*verify, "--at", "2026-03-01T12:00:00Z", "--nonce", NONCE.hex()]) == 0
    assert capsys.readouterr().out.startswith("affirming")


def test_the_command_collects_for_a_nodes_cpu_and_devices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it leaves is all that the node's evidence needs, for both."""
    evidence, bundle, expected = tmp_path / "node.json", tmp_path / "bundle", tmp_path / "expected.toml"
    evidence.write_bytes(composite.node().write())
    expected.write_text(composite.text(revocation='"required"'))
    ark, ask, vcek, crl = composite.chip().endorsements
    bodies = {
        "/vcek/v1/Milan/cert_chain": pem(ask, ark),
        "/vcek/v1/Milan/crl": crl,
        f"/vcek/v1/Milan/{composite.chip().chip_id.hex()}": vcek,
    }
    transport = httpx.MockTransport(Mirror(bodies, devices=list(composite.BOARD.devices().values())))
    real = httpx.AsyncClient
    monkeypatch.setattr(httpx, "AsyncClient", lambda: real(transport=transport))
    monkeypatch.setattr("attestation.collateral.fetch.Service", partial(Service, clock=NOW.timestamp))
    arguments = [str(evidence), "--out", str(bundle), "--from", "http://mirror", "--expect", str(expected)]
    assert main(["fetch", *arguments]) == 0
    verify = ["verify", "--tee", "node", str(evidence), "--expect", str(expected)]
    verify += ["--at", "2026-03-01T12:00:00Z", "--nonce", composite.CHALLENGE.hex()]
    capsys.readouterr()
    assert main([*verify, "--endorsements", str(bundle)]) == 0
    assert capsys.readouterr().out.startswith("affirming")
    _signed_as_one(tmp_path, arguments, verify, capsys)


def _signed_as_one(
    tmp_path: Path, arguments: list[str], verify: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The same, CPU's and devices' pieces together, under a domain's key."""
    key, signed, expected = SigningKey.generate(), tmp_path / "signed", tmp_path / "expected.toml"
    key.save(tmp_path / "key.pem")
    with pytest.raises(ConfigurationError, match="--sign"):
        main(["fetch", *arguments, "--bundle", str(signed)])
    assert not signed.exists()
    sealing = ["--bundle", str(signed), "--sign", str(tmp_path / "key.pem"), "--domain", "cloud.fr"]
    assert main(["fetch", *arguments, *sealing]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(list(signed.iterdir()))
    expected.write_text(expected.read_text() + signer_toml(key))
    assert main([*verify, "--bundle", str(signed)]) == 0
    assert capsys.readouterr().out.startswith("affirming")
    next(file for file in signed.iterdir() if file.name != INDEX).unlink()
    with pytest.raises(Refused, match=r"collateral\.piece_missing"):
        main([*verify, "--bundle", str(signed)])
