"""Real reports and manifests: the verdict, exit code, reason and facts that hardware deserves."""

from __future__ import annotations

import json
from typing import Any

import pytest

from attestation.appraise import appraise_nvidia
from attestation.commands import main
from attestation.expected import Expectations
from attestation.gpu.pki.roots import NVIDIA_ROOTS
from attestation.gpu.rim.issues import Rules, hold_root
from attestation.gpu.rim.manifest import verify_manifest
from attestation.gpu.tests import recorded
from schemas.errors import Refused
from schemas.primitives import parse_time

pytestmark = pytest.mark.skipif(not recorded.PRESENT, reason=recorded.ABSENT)


@pytest.mark.parametrize("row", recorded.rows(), ids=lambda row: row["case"])
def test_case(row: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "verify",
        "--tee",
        "nvidia",
        str(recorded.FOLDER / row["evidence"]),
        "--at",
        row["at"],
        "--json",
    ]
    for path in row["endorsements"]:
        arguments += ["--endorsements", str(recorded.FOLDER / path)]
    for waiver in row["waive"]:
        arguments += ["--waive", waiver]
    arguments += ["--nonce", row["nonce"]]
    assert main(arguments) in row["exit"]
    printed = json.loads(capsys.readouterr().out)
    assert printed["verdict"] == row["verdict"]
    assert (printed["reason"] or "").removeprefix("gpu.") == row["why"]
    codes = [check["code"] for check in printed["checks"]]
    for also in recorded.case(row["case"].split("/")[1].split("@")[0])["expected"].get("also", []):
        assert f"gpu.{also}" in codes


@pytest.mark.parametrize("row", recorded.rows(), ids=lambda row: row["case"])
def test_without_revocation_nothing_is_affirmed(row: dict[str, Any]) -> None:
    found = appraise_nvidia(
        recorded.read(row["evidence"]),
        endorsements=[recorded.read(path) for path in row["endorsements"]],
        nonce=bytes.fromhex(row["nonce"]),
        at=parse_time(row["at"]),
    )
    assert found.verdict == ("none" if row["verdict"] == "affirming" else row["verdict"])
    if row["verdict"] == "affirming":
        assert found.reason == "gpu.revocation_unavailable"


@pytest.mark.parametrize(("name", "said"), recorded.devices(), ids=lambda value: str(value)[:40])
def test_a_device_states_what_it_states(name: str, said: dict[str, Any]) -> None:
    found = appraise_nvidia(
        recorded.read(f"gpu/{name}/report.bin"),
        endorsements=[recorded.read(f"gpu/{name}/chain.pem")],
        waive_revocation=True,
        at=parse_time("2026-11-21T00:00:00Z"),
    )
    stated = found.stated()
    assert stated["leaf"] == said["leaf"]
    assert stated["ueid"] == said["ueid"]
    assert (found.check("gpu.chain.signatures").status == "pass") is said["chain_valid"]
    if said["arch"] is None:  # cut short
        return
    assert stated["brom_serial"] == said["brom_serial"]
    assert (found.check("gpu.report.signature").status == "pass") is said["signature_valid"]
    for name_said in ("driver", "vbios", "measurement_blocks", "trailing_bytes", "opaque_types", "nonce"):
        assert stated[name_said] == said[name_said]
    assert stated["fwid"] == said["fwid"]
    fwid = found.check("gpu.fwid")
    matches = {"pass": True, "fail": False, "not_evaluated": "absent"}[fwid.status]
    assert matches == said["fwid_match"]
    manifests = stated["manifests"]
    assert isinstance(manifests, dict)
    listed = {name: each["id"] for name, each in manifests.items() if isinstance(each, dict)}
    assert listed == {name.replace("switch_bios", "bios"): each for name, each in said["rim_ids"].items()}


def manifests() -> list[tuple[str, dict[str, Any]]]:
    return (
        [
            (file, said)
            for file, said in recorded.case("rim-vbios-g520")["expected"]["rim"]["manifests"].items()
        ]
        if recorded.PRESENT and "manifests" in recorded.case("rim-vbios-g520")["expected"]["rim"]
        else []
    )


@pytest.mark.parametrize(("file", "said"), manifests(), ids=lambda value: str(value)[:40])
def test_genuine_manifests_hold_in_their_time(file: str, said: dict[str, Any]) -> None:
    manifest = verify_manifest(recorded.read(f"gpu/rim-vbios-g520/{file}"))
    assert manifest.version == said["version"]
    assert manifest.tag_id == said["tag_id"]
    assert manifest.digest == said["sha256"]
    assert sorted(manifest.golden) == said["active_indices"]
    rules = Rules(NVIDIA_ROOTS)
    hold_root(manifest, rules, parse_time("2024-06-01T00:00:00Z").timestamp())
    with pytest.raises(Refused) as late:
        hold_root(manifest, rules, parse_time("2026-11-21T00:00:00Z").timestamp())
    assert late.value.code == "gpu.rim_signer_expired"


@pytest.mark.parametrize(
    "name", ["rim-driver-550.90.07-unsigned-resource_fail", "rim-driver-550.144.03-bad-signature_fail"]
)
def test_altered_manifests_refuse_by_name(name: str) -> None:
    with pytest.raises(Refused) as refused:
        verify_manifest(recorded.read(f"gpu/{name}/driver_rim.xml"))
    assert refused.value.code == f"gpu.{recorded.case(name)['expected']['reason']}"


def test_a_value_outside_the_signature_never_counts() -> None:
    """The genuine issue beside the altered one: the altered one is dropped by name, the genuine one used."""
    folder = "gpu/h100-550.90.07"
    altered = "gpu/rim-driver-550.90.07-unsigned-resource_fail/driver_rim.xml"
    names = [f"{folder}/chain.pem", altered, f"{folder}/driver_rim.xml", f"{folder}/vbios_rim.xml"]
    found = appraise_nvidia(
        recorded.read(f"{folder}/report.bin"),
        endorsements=[recorded.read(name) for name in names],
        waive_revocation=True,
        at=parse_time("2026-03-01T00:00:00Z"),
    )
    assert found.verdict == "affirming"
    assert "gpu.rim_signature_wrapping" in json.dumps(found.stated())


TOKENS = {"nras-neardirect-20260424": 8, "composite-tdx-hopper-tinfoil-20260629": 1}
INTERMEDIATE = "fd32837f954e2c45db073105166dfe6985ae0480bb113fba63b091a75affe896"
"""SHA-256 of the key of NVIDIA's service intermediate 004, as the recorded key sets bring it."""


def expectations() -> Expectations:
    return Expectations.parse(
        f"""
        [nvidia]
        driver_min = "any"
        vbios = "any"
        modes = "any"
        confidential = "any"
        devtools = "any"
        [[nvidia.root]]
        name = "NRAS-intermediate-004"
        anchor = "service"
        spki_sha256 = "{INTERMEDIATE}"
        """.encode()
    )


@pytest.mark.parametrize(
    ("name", "evaluation"),
    [(name, each) for name in TOKENS if recorded.PRESENT for each in recorded.case(name)["evaluations"]],
)
def test_a_service_token_holds_in_its_hour(name: str, evaluation: dict[str, Any]) -> None:
    """Beside the raw evidence that it speaks of, under an archived key set and a pinned intermediate."""
    said = recorded.case(name)
    found = appraise_nvidia(
        recorded.read(f"gpu/{name}/eat.json"),
        endorsements=[recorded.read(f"gpu/{name}/{file}") for file in ("jwks.json", "request.json")],
        expectations=expectations(),
        nonce=bytes.fromhex(said["nonce"]),
        at=parse_time(evaluation["time"]),
    )
    assert found.verdict == evaluation["verdict"]
    assert (found.reason or "").removeprefix("gpu.") == (evaluation["reason"] or "")
    if found.verdict == "affirming":
        assert all(check.status == "pass" for check in found.checks)
        assert found.check("gpu.nras.devices").seen.startswith(f"{TOKENS[name]} devices, {TOKENS[name]} of")


@pytest.mark.parametrize("name", TOKENS)
def test_without_a_pin_a_token_is_undecided(name: str) -> None:
    found = appraise_nvidia(
        recorded.read(f"gpu/{name}/eat.json"),
        endorsements=[recorded.read(f"gpu/{name}/jwks.json")],
        at=parse_time(recorded.case(name)["evaluations"][0]["time"]),
    )
    assert (found.verdict, found.reason) == ("none", "gpu.nras_anchor_unpinned")


def test_eight_genuine_devices_together(capsys: pytest.CaptureFixture[str]) -> None:
    """As a folder through the command line: distinct, one challenge, one mode; no manifests, so undecided."""
    folder = recorded.FOLDER / "gpu" / "nras-neardirect-20260424"
    nonce = recorded.case(folder.name)["nonce"]
    code = main(["verify", "--tee", "nvidia", str(folder), "--at", "2026-04-24T02:11:32Z", "--nonce", nonce,
                 "--waive", "revocation", "--json"])  # fmt: skip
    printed = json.loads(capsys.readouterr().out)
    assert (code, printed["verdict"], printed["reason"]) == (3, "none", "gpu.rim_unavailable")
    checks = {check["check"]: check["status"] for check in printed["checks"]}
    assert [checks[f"gpu.device{n}.report.signature"] for n in range(8)] == ["pass"] * 8
    assert [checks[f"gpu.batch.{name}"] for name in ("distinct", "nonce", "mode", "drivers")] == ["pass"] * 4
    ueids = [each["ueid"] for each in printed["evidence"]["devices"]]
    said = recorded.case(folder.name)["expected"]["devices"]
    assert sorted(ueids) == sorted(each["ueid"] for each in said.values())


def test_a_fabric_without_its_switches_is_incomplete() -> None:
    name = "nras-neardirect-20260424"
    wanted = Expectations.parse(
        b'[nvidia]\ndriver_min = "any"\nvbios = "any"\nmodes = ["ppcie"]\nconfidential = "any"\n'
        b'devtools = "any"\n[nvidia.fabric]\ngpus = 8\nswitches = "any"\n'
    )
    found = appraise_nvidia(
        recorded.read(f"gpu/{name}/request.json"),
        expectations=wanted, waive_revocation=True, at=parse_time("2026-04-24T02:11:32Z"),
    )  # fmt: skip
    assert (found.verdict, found.reason) == ("contraindicated", "gpu.topology_incomplete")
    assert found.check("gpu.batch.gpu_count").status == "pass"


def test_a_device_offered_twice_is_refused() -> None:
    request = json.loads(recorded.read("gpu/nras-neardirect-20260424/request.json"))
    request["evidence_list"][1] = request["evidence_list"][0]
    found = appraise_nvidia(
        json.dumps(request).encode(), waive_revocation=True, at=parse_time("2026-04-24T02:11:32Z")
    )
    assert (found.verdict, found.reason) == ("contraindicated", "gpu.device_duplicate")
