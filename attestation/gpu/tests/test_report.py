"""Reading reports and chains: no bytes do anything but be read or refused, and no prefix is a report."""

from __future__ import annotations

import base64
import hashlib
import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attestation.commands import main
from attestation.gpu.documents import gather
from attestation.gpu.forms import Devices, ManifestFile, is_form, unwrap
from attestation.gpu.node.devices import DeviceInput
from attestation.gpu.pki.chain import read_chain
from attestation.gpu.revocation.ocsp import read_response
from attestation.gpu.spdm.opaque import read_opaque
from attestation.gpu.spdm.report import REQUEST_HEADER, read_report
from attestation.gpu.tests.judging import (
    DRIVER_MANIFEST,
    GB100,
    GB202,
    GOOD,
    SWITCH,
    collateral,
    judge,
)
from attestation.testing.nvidia import GpuForge
from attestation.testing.nvidia_report import NONCE
from attestation.testing.nvidia_status import answers
from attestation.testing.nvidia_token import TokenForge
from schemas.errors import Refused, Unreadable


@pytest.mark.parametrize("device", [GOOD, SWITCH, GB100, GB202], ids=lambda device: device.chip)
def test_no_prefix_of_a_report_is_one(device: GpuForge) -> None:
    data = device.report()
    assert read_report(data).tail == b""
    for length in range(len(data)):
        with pytest.raises((Refused, Unreadable)) as refused:
            read_report(data[:length])
        assert refused.value.code == "gpu.report_malformed"


def test_fields_read_as_they_are_meant() -> None:
    gpu, switch = read_report(GOOD.report()).opaque, read_report(SWITCH.report()).opaque
    assert (gpu.is_switch, gpu.vbios, gpu.text(3), gpu.flag(21), gpu.feature) == (
        False, "96.00.9f.00.01", "550.90.07", False, None,
    )  # fmt: skip
    assert (switch.is_switch, switch.vbios, switch.own_pdi) == (True, "96.10.55.00.01", SWITCH.pdi)
    assert read_report(GB202.report()).opaque.feature == "single"
    padded = replace(GOOD, fields={3: b" 550.90.07 \0", 36: b"\7\0"}).report()
    assert (read_report(padded).opaque.text(3), read_report(padded).opaque.feature) == (
        "550.90.07", "unknown-7",
    )  # fmt: skip


@given(st.binary(max_size=200))
def test_random_opaque_data_is_read_or_refused(data: bytes) -> None:
    try:
        found = read_opaque(data)
    except Refused as error:
        assert error.code in ("gpu.report_malformed", "gpu.report_duplicate_field")  # noqa: PT017
    else:
        assert sum(4 + len(value) for value in found.fields.values()) == len(data)
        assert (found.vbios, found.feature, found.gpu_table, found.switch_pdis) is not None


@given(st.binary(max_size=300))
def test_random_bytes_are_no_report(data: bytes) -> None:
    with pytest.raises((Refused, Unreadable)):
        read_report(REQUEST_HEADER + data)


@settings(max_examples=60)
@given(st.sampled_from([GOOD, SWITCH, GB202]), st.data())
def test_a_damaged_report_is_never_affirmed(device: GpuForge, data: st.DataObject) -> None:
    good = device.report()
    damaged = bytearray(good)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(damaged)))
        damaged[at : at + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=9))
    if bytes(damaged) == good:
        return
    try:
        found = judge(device, report=bytes(damaged))
    except Unreadable:
        return
    assert found.verdict == "contraindicated"


@given(st.lists(st.binary(max_size=60), max_size=6))
def test_random_certificates_are_no_chain(certificates: list[bytes]) -> None:
    with pytest.raises(Refused):
        read_chain(tuple(certificates))


@given(st.lists(st.binary(max_size=120), max_size=4))
def test_random_documents_are_sorted_or_named(documents: list[bytes]) -> None:
    gather(tuple(documents))


@settings(max_examples=60)
@given(st.data())
def test_damaged_collateral_never_raises(data: st.DataObject) -> None:
    """Whatever happens to chain, manifests and answers ends in a result."""
    documents = collateral(GOOD)
    number = data.draw(st.integers(0, len(documents) - 1))
    damaged = bytearray(documents[number])
    at = data.draw(st.integers(0, len(damaged) - 1))
    damaged[at : at + data.draw(st.integers(0, 5))] = data.draw(st.binary(max_size=5))
    found = judge(endorsements=[*documents[:number], bytes(damaged), *documents[number + 1 :]])
    assert found.verdict in ("affirming", "contraindicated", "none")


@settings(max_examples=60)
@given(st.data())
def test_damaged_answers_are_read_or_refused(data: st.DataObject) -> None:
    damaged = bytearray(answers(GOOD)[0])
    at = data.draw(st.integers(0, len(damaged) - 1))
    damaged[at] = data.draw(st.integers(0, 255))
    try:
        read_response(bytes(damaged))
    except Refused as error:
        assert error.code == "gpu.ocsp_malformed"  # noqa: PT017


def test_the_forms_of_the_vendors_tools_are_the_devices_they_list() -> None:
    """A report in hex; devices as nvattest collects them, bare or in its answer; as its service is asked."""
    device = {
        "arch": "HOPPER", "nonce": NONCE.hex(), "driver_version": "1", "vbios_version": "2", "version": "1.0",
        "evidence": base64.b64encode(GOOD.report()).decode(),
        "certificate": base64.b64encode(GOOD.chain()).decode(),
    }  # fmt: skip
    one, several = DeviceInput(GOOD.report()), DeviceInput(GOOD.report(), (GOOD.chain(),))
    lines = base64.encodebytes(GOOD.report()).decode()
    for text in (GOOD.report().hex(), GOOD.report().hex().upper() + "\n", lines, lines.replace("\n", "")):
        assert is_form(text.encode())
        assert unwrap(text.encode()) == Devices((one,), together=False)
    for collected in (
        [device], {"evidences": [device], "result_code": 0}, {"evidence_list": [device]}, device, wrapped(),
    ):  # fmt: skip
        data = json.dumps(collected).encode()
        assert is_form(data)
        assert unwrap(data) == Devices((several,), together=True)
        found = judge(report=data, endorsements=collateral(GOOD)[1:])
        assert found.verdict == "affirming"
        assert gather((data,)).devices == ((GOOD.report(), GOOD.chain()),)


def wrapped(media_type: str = "application/vnd.nvidia.spdm-measurement-transcript") -> dict[str, object]:
    """A collection of wrapped messages, as later tools of NVIDIA's write what they collected."""
    texts = [base64.urlsafe_b64encode(each).decode().rstrip("=") for each in (GOOD.report(), GOOD.chain())]
    nonce = ["application/octet-stream", base64.urlsafe_b64encode(NONCE).decode().rstrip("=")]
    item = {
        "__cmwc_t": "tag:nvidia.com,2026:evidence-item/v1",
        "evidence": [media_type, texts[0]],
        "certificate": ["application/vnd.nvidia.pem-cert-chain", texts[1]],
        "nonce": nonce,
    }
    kind = "tag:nvidia.com,2026:verifier-input/profiles/base/pre-1.0.0"
    return {"__cmwc_t": kind, "nonce": nonce, "gpu_0": item}


def test_what_the_manifest_service_answers_is_a_manifest() -> None:
    document = DRIVER_MANIFEST.document()
    answer = {"id": "NV_GPU_DRIVER_GH100_550.90.07", "rim": base64.b64encode(document).decode()}
    data = json.dumps({**answer, "sha256": hashlib.sha256(document).hexdigest()}).encode()
    assert is_form(data)
    assert unwrap(data) == ManifestFile(document)
    with pytest.raises(Unreadable, match="another"):
        unwrap(json.dumps({**answer, "sha256": "00" * 32}).encode())


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (GOOD.report(), '"driver": "550.90.07"'),
        (GOOD.report().hex().encode(), '"driver": "550.90.07"'),
        (json.dumps([{"evidence": base64.b64encode(GOOD.report()).decode(), "certificate": ""}]).encode(),
         '"devices": ['),
        (DRIVER_MANIFEST.document(), '"version": "550.90.07"'),
        (TokenForge().token(), '"x-nvidia-overall-att-result": true'),
        (base64.b64encode(GOOD.report()), '"driver": "550.90.07"'),
        (json.dumps(wrapped()).encode(), '"devices": ['),
        (json.dumps({"id": "", "rim": base64.b64encode(DRIVER_MANIFEST.document()).decode()}).encode(),
         '"version": "550.90.07"'),
    ],
    ids=["report", "in hex", "collected", "manifest", "token", "in base64", "wrapped", "answer"],
)  # fmt: skip
def test_every_form_is_shown(
    data: bytes, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "evidence").write_bytes(data)
    assert main(["show", str(tmp_path / "evidence"), "--json"]) == 0
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b'{"__cmwc_t": "tag:nvidia.com,2026:x", "gpu_0": {}}', "base64"),
        (b'{"__cmwc_t": "tag:nvidia.com,2026:x", "nonce": ["", ""]}', "not 1 to 64 devices"),
        (json.dumps(wrapped("application/cwt")).encode(), "application/cwt"),
        (b'{"evidence": "?", "certificate": "", "nonce": ""}', "base64"),
        (b'[{"evidence": "?", "certificate": ""}]', "base64"),
        (b'[{"arch": "HOPPER"}]', "no list of devices"),
        (b'{"evidences": []}', "not 1 to 64 devices"),
        (b"11e001ffzz", "does not go on"),
        (b"EeAB/!!", "does not go on"),
    ],
)
def test_what_is_almost_such_a_form_says_what_is_wrong(data: bytes, why: str) -> None:
    with pytest.raises(Unreadable, match=why):
        unwrap(data)


@given(st.binary(max_size=200))
def test_random_evidence_is_told_apart_or_refused(data: bytes) -> None:
    with suppress(Unreadable):
        unwrap(data)
