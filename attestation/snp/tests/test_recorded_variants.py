"""Real reports with what their relying parties expected, and each with one thing changed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from attestation.appraise import appraise_snp
from attestation.expected import Expectations
from attestation.result import AttestationResult
from attestation.snp.forms import unwrap
from attestation.snp.report import read_report
from attestation.snp.show import state
from attestation.testing.expectations import SNP_KEYS
from attestation.tests import recorded
from schemas.primitives import parse_time

pytestmark = pytest.mark.skipif(not recorded.PRESENT, reason=recorded.ABSENT)

SHOWN = (
    "measurement", "report_data", "host_data", "id_key_digest", "author_key_digest", "report_id", "chip_id",
    "guest_svn", "family_id", "image_id", "vmpl", "firmware", "signing_key",
)  # fmt: skip


def expectations(case: dict[str, Any], change: dict[str, Any]) -> Expectations:
    """A complete expected.toml: what the case states, and waivers for everything else."""
    wanted = {**case["expectations"], **change}
    keys = dict.fromkeys(SNP_KEYS, '"any"')
    keys["csp_ids"] = '"any"'
    keys["alias_check"] = '"required"' if wanted.get("require_alias_check") else '"advisory"'
    keys["vmpl"] = f"[{wanted['vmpl']}]"
    keys["debug"] = '"any"' if wanted.get("debug") == "any" else '"refuse"'
    for name in ("measurement", "report_data"):
        keys[name] = (
            f'"{_flipped(case["expectations"][name]) if "flipped" in wanted[name] else wanted[name]}"'
        )
    return Expectations.parse(("[snp]\n" + "\n".join(f"{k} = {v}" for k, v in keys.items())).encode())


def _flipped(value: str) -> str:
    data = bytearray.fromhex(value)
    data[0] ^= 1
    return data.hex()


def judge(case: dict[str, Any], change: dict[str, Any]) -> AttestationResult:
    folder = f"snp/{case['name']}/"
    leaf = case["files"].get("leaf")
    offered = [recorded.read(f"snp/{path}") for path in case["endorsements"]]
    if case["crl"]:
        offered.append(recorded.read(f"snp/{case['crl']}"))
    if leaf and change.get("leaf") != "removed":
        offered.append(recorded.read(folder + leaf))
    return appraise_snp(
        recorded.read(folder + case["files"]["report"]),
        endorsements=offered,
        expectations=expectations(case, change),
        waive_revocation=case["crl"] is None,
        at=parse_time(change.get("evaluation_time", case["evaluation_time"])),
    )


def variants() -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """(case, change, what must then be found); the empty change is the case itself."""
    for name in recorded.snp_case_names():
        case = recorded.case(name)
        yield name, {}, case["expected"]
        for variant in case["variants"]:
            yield name, variant["change"], variant


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [pytest.param(*each, id=f"{each[0]}-{next(iter(each[1]), 'itself')}") for each in variants()],
)
def test_variant(name: str, change: dict[str, Any], expected: dict[str, Any]) -> None:
    found = judge(recorded.case(name), change)
    assert found.verdict in expected.get("verdict_in", [expected.get("verdict")])
    if expected.get("reason"):
        assert found.reason in [expected["reason"], *(expected.get("reasons_all") or [])]


@pytest.mark.parametrize("name", recorded.snp_case_names())
def test_what_is_shown_is_what_the_case_says(name: str) -> None:
    report = read_report(recorded.read(f"snp/{name}/report.bin"))
    expected = recorded.case(name)["expected"]
    if expected["report_version"] < 2:
        return
    shown: Any = state(report)
    for field in SHOWN:
        assert shown[field] == expected[field], field
    assert shown["identity"] == expected["signed_region_sha256"]
    if expected["report_version"] >= 3:
        assert shown["tcb"] == expected["tcb"]
        assert shown["product"] == expected["product"]


@pytest.mark.parametrize(
    "name", ["oak-genoa-v5-reissued-vcek-6d1ceffa", "tav-milan-v3-reissued-vcek-e75e8d4e"]
)
def test_a_reissued_certificate_serves_as_well(name: str) -> None:
    case = recorded.case(name)
    reissued = {**case, "files": {**case["files"], "leaf": "vcek_reissued.der"}}
    assert judge(reissued, {}).verdict == "affirming"


@pytest.mark.parametrize(
    "name", ["tav-turin-v5-85da705e", "oak-genoa-v5-reissued-vcek-6d1ceffa", "oak-milan-v3-40a2778d"]
)
def test_all_endorsements_of_all_products_at_once(name: str) -> None:
    """A broker's whole collateral folder: other products' certificates and CRLs do not disturb."""
    files = [*(recorded.FOLDER / "snp" / "endorsements").rglob("*.der")]
    files += (recorded.FOLDER / "snp" / "endorsements").rglob("*.pem")
    found = appraise_snp(
        recorded.read(f"snp/{name}/report.bin"),
        endorsements=[*(file.read_bytes() for file in files), recorded.read(f"snp/{name}/vcek.der")],
        at=parse_time(recorded.case(name)["evaluation_time"]),
    )
    assert (found.verdict, found.reason) == ("affirming", None)


def test_a_genuine_response_frame() -> None:
    data = recorded.read("snp/lit-v2-response-frame-no-certificate-dd677385_fail/msg_report_rsp.bin")
    assert unwrap(data).form == "response-frame"


def test_a_stale_crl_of_the_right_root_leaves_it_undecided() -> None:
    case = recorded.case("tav-genoa-v3-4ae0e73a")
    assert judge({**case, "crl": "endorsements/crl/Genoa-2024.crl.der"}, {}).reason == "snp.crl.stale"
