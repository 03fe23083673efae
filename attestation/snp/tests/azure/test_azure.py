"""Azure's chain of custody: report data, runtime data, vTPM key, quote, PCRs. Each link broken once."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest

from attestation.result import AttestationResult
from attestation.snp.azure import read_hcl
from attestation.snp.forms import unwrap
from attestation.snp.tests.azure import azure_forge as azure
from attestation.snp.tests.judging import demanding, judge
from attestation.testing.forge import Forge, rsa_key
from attestation.tests import recorded
from schemas.canonical import sha256
from schemas.errors import Unreadable
from schemas.primitives import parse_time

FORGE = Forge.of("Milan")
OTHERS = [FORGE.ark(), FORGE.intermediate(), FORGE.crl()]


def ask(data: bytes, *, nonce: bytes | None = azure.NONCE, tables: str = "") -> AttestationResult:
    return judge(
        FORGE, report=data, endorsements=OTHERS, nonce=nonce, expectations=demanding(FORGE, tables=tables)
    )


def test_a_good_bundle() -> None:
    found = ask(azure.azure_bundle(FORGE))
    assert (found.verdict, found.reason) == ("affirming", None)
    for name in ("runtime_data", "key", "quote", "nonce", "pcrs"):
        assert found.check(f"snp.azure.{name}").status == "pass"


def test_a_bundle_of_bare_report_and_runtime_data() -> None:
    runtime = azure.runtime_json()
    report = azure.report_over(FORGE, runtime)
    found = ask(azure.azure_bundle(FORGE, hcl_report=None, report=report, runtime_data=runtime, pcrs=None))
    assert found.verdict == "affirming"
    assert found.check("snp.azure.pcrs").status == "not_evaluated"


def test_a_bare_blob_has_no_freshness_and_says_so() -> None:
    blob = azure.hcl_blob(FORGE)[0]
    found = judge(FORGE, report=blob, endorsements=FORGE.endorsements())
    assert found.verdict == "affirming"
    assert "fresh" in found.check("snp.azure.quote").seen
    demanded = judge(FORGE, report=blob, endorsements=FORGE.endorsements(), nonce=azure.NONCE)
    assert (demanded.verdict, demanded.reason) == ("none", "snp.azure.quote_missing")


def _twice() -> bytes:
    """Two readers, two keys: the second `keys` would win in a careless parser."""
    data = json.loads(azure.runtime_json())
    other = json.dumps([azure.jwk(rsa_key("thief", 2048))])
    return f'{{"keys":{json.dumps(data["keys"])},"keys":{other}}}'.encode()


def over(runtime: bytes) -> dict[str, Any]:
    return {"hcl_report": azure.hcl_blob(FORGE, runtime)[0]}


BROKEN: list[tuple[str, str, dict[str, Any]]] = [
    ("runtime_hash_mismatch", "other-runtime-data", {
        "hcl_report": None, "report": azure.report_over(FORGE, azure.runtime_json()),
        "runtime_data": azure.runtime_json() + b" "}),
    ("runtime_hash_mismatch", "second-half-set", {
        "hcl_report": None, "runtime_data": azure.runtime_json(), "report": FORGE.report(
            report_data=sha256(azure.runtime_json()) + b"\1" * 32)}),
    ("runtime_hash_mismatch", "hash-type-2", {"hcl_report": azure.hcl_blob(FORGE, hash_type=2)[0]}),
    ("key_missing", "no-key", over(azure.runtime_json([]))),
    ("key_missing", "two-keys", over(azure.runtime_json([azure.jwk(azure.vtpm_key())] * 2))),
    ("key_missing", "other-name", over(azure.runtime_json([azure.jwk(azure.vtpm_key(), "HCLEkPub")]))),
    ("key_missing", "repeated-member", over(_twice())),
    ("key_missing", "not-json", over(b"keys")),
    ("key_missing", "a-list", over(b"[]")),
    ("key_missing", "small-key", over(azure.runtime_json([azure.jwk(rsa_key("tiny", 1024))]))),
    ("key_missing", "elliptic", over(azure.runtime_json([{"kid": "HCLAkPub", "kty": "EC"}]))),
    ("key_missing", "bad-modulus", over(azure.runtime_json([{**azure.jwk(azure.vtpm_key()), "n": "?"}]))),
    ("quote_signature_invalid", "another-key", {
        "quote_signature": azure.sign_quote(azure.make_quote(), rsa_key("thief", 2048))}),
    ("quote_signature_invalid", "another-quote", {"quote_signature": azure.sign_quote(b"")}),
    ("quote_type", "certify", {"quote": azure.make_quote(kind=0x8017)}),
    ("quote_type", "not-generated-by-a-tpm", {"quote": azure.make_quote(magic=b"\xff\x54\x43\x48")}),
    ("quote_type", "trailing", {"quote": azure.make_quote(trailing=b"\0")}),
    ("quote_type", "cut", {"quote": azure.make_quote()[:-1]}),
    ("nonce_mismatch", "other-nonce", {"quote": azure.make_quote(extra_data=b"another")}),
    ("pcr_digest_mismatch", "other-digest", {"quote": azure.make_quote(digest=bytes(32))}),
    ("pcr_digest_mismatch", "other-values", {"pcrs": ["00" * 32] * 24}),
    ("pcr_selection", "sha1-bank", {"quote": azure.make_quote(bank=4)}),
    ("pcr_selection", "two-banks", {"quote": azure.make_quote(banks=2)}),
    ("pcr_selection", "pcr-24", {"quote": azure.make_quote(selected=(0, 24))}),
]  # fmt: skip


@pytest.mark.parametrize(("code", "name", "changes"), BROKEN, ids=[f"{c}-{n}" for c, n, _ in BROKEN])
def test_a_broken_link(code: str, name: str, changes: dict[str, Any]) -> None:
    found = ask(azure.azure_bundle(FORGE, **changes))
    assert (found.verdict, found.reason) == ("contraindicated", f"snp.azure.{code}")


@pytest.mark.parametrize(
    ("pcrs", "verdict", "reason"),
    [
        (f'7 = ["{azure.PCRS[7].hex()}"]\n4 = "any"', "affirming", None),
        (f'7 = ["{"00" * 32}"]', "contraindicated", "snp.azure.pcr_mismatch"),
        ('8 = "any"', "contraindicated", "snp.azure.pcr_selection"),
    ],
)
def test_pcrs_that_policy_names(pcrs: str, verdict: str, reason: str | None) -> None:
    wanted = demanding(FORGE, more=f"[snp.pcrs]\n{pcrs}")
    found = judge(
        FORGE, report=azure.azure_bundle(FORGE), endorsements=OTHERS, nonce=azure.NONCE, expectations=wanted
    )
    assert (found.verdict, found.reason) == (verdict, reason)


def test_pcrs_that_policy_names_and_nobody_gave() -> None:
    wanted = demanding(FORGE, more='[snp.pcrs]\n7 = "any"')
    bundle = azure.azure_bundle(FORGE, pcrs=None)
    found = judge(FORGE, report=bundle, endorsements=OTHERS, nonce=azure.NONCE, expectations=wanted)
    assert (found.verdict, found.reason) == ("none", "snp.azure.pcrs_missing")


@pytest.mark.parametrize(
    ("offset", "value"),
    [(0, b"HCLB"), (4, b"\3"), (8, b"\0\0"), (12, b"\3"), (16, b"\1"), (0x4C0, b"\0"), (0x4C4, b"\2"),
     (0x4C8, b"\4"), (0x4D0, b"\0"), (-1, b"\1")],
)  # fmt: skip
def test_a_blob_that_breaks_its_format_is_unreadable(offset: int, value: bytes) -> None:
    blob = bytearray(azure.hcl_blob(FORGE)[0])
    start = offset % len(blob)
    blob[start : start + len(value)] = value
    with pytest.raises(Unreadable):
        unwrap(bytes(blob))


def test_version_2_blobs_are_read() -> None:
    blob, runtime = azure.hcl_blob(FORGE, version=2)
    assert read_hcl(blob)[1].runtime_data == runtime


@pytest.mark.parametrize(
    "changes",
    [
        {"quote_signature": None},
        {"hcl_report": None},
        {"report": FORGE.report()},
        {"form": "azure"},
        {"pcrs": ["00" * 32]},
        {"unknown": 1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_bundle_with_members_missing_is_unreadable(changes: dict[str, Any]) -> None:
    with pytest.raises(Unreadable):
        unwrap(azure.azure_bundle(FORGE, **changes))


@pytest.mark.parametrize("expected", ['7 = "any"', f'0 = ["{"00" * 32}"]'])
def test_pcrs_that_are_demanded_of_a_report_without_a_vtpm(expected: str) -> None:
    """Nothing vouches for them: that is undecided, not waived."""
    found = judge(FORGE, expectations=demanding(FORGE, tables=f"[snp.pcrs]\n{expected}"))
    assert (found.verdict, found.reason) == ("none", "snp.azure.quote_missing")


def test_a_response_frame() -> None:
    report = FORGE.report()
    header = struct.pack("<II", 0, 0x4A0) + bytes(24)
    assert unwrap(header + report).report == report
    assert unwrap((header + report).ljust(4000, b"\0")).report == report
    for bad in (
        struct.pack("<II", 0x16, 0x4A0) + bytes(24) + report,
        struct.pack("<II", 0, 0x4A1) + bytes(24) + report,
        header + report + b"\1",
        (header + report).ljust(4001, b"\0"),
    ):
        with pytest.raises(Unreadable):
            unwrap(bad)


@pytest.mark.skipif(not recorded.PRESENT, reason=recorded.ABSENT)
@pytest.mark.parametrize(
    "name", [n for n in recorded.snp_case_names() if "azure" in n and not n.endswith("_fail")]
)
def test_genuine_quotes(name: str) -> None:
    """Real vTPM quotes answer their own nonce and no other."""
    from attestation.appraise import appraise_snp
    from attestation.snp.forms import FOLDER_FILES, from_folder

    case = recorded.case(name)
    folder = recorded.FOLDER / "snp" / name
    evidence = from_folder({f: (folder / f).read_bytes() for f in FOLDER_FILES if (folder / f).is_file()})
    paths = [*case["endorsements"], *([case["crl"]] if case["crl"] else []), f"{name}/vcek.der"]
    offered = [recorded.read(f"snp/{path}") for path in paths]
    nonce = bytes.fromhex(case["expectations"].get("quote_extra_data", ""))
    at = parse_time(case["evaluation_time"])
    for asked, verdict in ((nonce, "affirming"), (b"another", "contraindicated")):
        found = appraise_snp(
            evidence, endorsements=offered, nonce=asked, waive_revocation=not case["crl"], at=at
        )
        assert found.verdict == verdict
        assert found.check("snp.azure.quote").status == "pass"
        if "tpm_pcrs" in case["files"]:
            assert found.check("snp.azure.pcrs").status == "pass"
