"""An Azure trust domain's chain of custody: report data, runtime data, vTPM key, its quote, PCRs."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import pytest

from attestation.commands import main
from attestation.ear import as_ear
from attestation.expected import Expectations
from attestation.result import AttestationResult
from attestation.snp.tests.azure import azure_forge as azure
from attestation.tdx.forms import unwrap
from attestation.tdx.tests.judging import GOOD, but, judge, toml
from attestation.testing.forge import rsa_key
from attestation.testing.intel import IntelForge
from schemas.errors import ConfigurationError, Unreadable

RUNTIME = azure.runtime_json()
TD_REPORT = bytes(1024) + bytes(
    160
)  # what stands in the blob before the runtime data; the quote took its place
PARAVISOR: dict[str, Any] = {"profile": '"azure-paravisor"'}
BOTH: dict[str, Any] = {**PARAVISOR, "pcrs": f'{{ 4 = ["{azure.PCRS[4].hex()}"], 7 = "any" }}'}


def guest(runtime: bytes = RUNTIME) -> IntelForge:
    """A quote made at boot, over the runtime data, by a guest that runs without SEPT_VE_DISABLE."""
    bound = hashlib.sha256(runtime).digest() + bytes(32)
    return but(body={"report_data": bound, "td_attributes": bytes(8)})


def blob(runtime: bytes = RUNTIME, kind: int = 4, hash_type: int = 1) -> bytes:
    body = struct.pack("<5I", 20 + len(runtime), 1, kind, hash_type, len(runtime)) + runtime
    return b"HCLA" + struct.pack("<3I", 1, 0x4C0 + len(body), 2) + bytes(16) + TD_REPORT + body


def bundle(**changes: Any) -> bytes:
    """The JSON form; changes replace members, None leaves one out."""
    quote = changes.get("quote", azure.make_quote())
    members = {
        "form": "azure-tdx",
        "td_quote": guest().quote(),
        "hcl_report": blob(),
        "quote": quote,
        "quote_signature": azure.sign_quote(quote) if quote else None,
        "pcrs": [value.hex() for value in azure.PCRS],
        **changes,
    }
    plain = {
        name: base64.b64encode(value).decode() if isinstance(value, bytes) else value
        for name, value in members.items()
    }
    return json.dumps({name: value for name, value in plain.items() if value is not None}).encode()


def ask(data: bytes, nonce: bytes | None = azure.NONCE, **expected: Any) -> AttestationResult:
    return judge(GOOD, quote=data, nonce=nonce, **(expected or BOTH))


def test_a_good_bundle() -> None:
    found = ask(bundle())
    assert (found.verdict, found.reason) == ("affirming", None)
    for name in ("runtime_data", "key", "quote", "nonce", "pcrs"):
        assert found.check(f"tdx.azure.{name}").status == "pass"
    assert not any("snp" in check.name or "snp" in (check.code or "") for check in found.checks)


def test_the_runtime_data_may_come_alone() -> None:
    assert ask(bundle(hcl_report=None, runtime_data=RUNTIME)).verdict == "affirming"


STRANGER = rsa_key("thief", 2048)
OTHER_RUNTIME = azure.runtime_json([azure.jwk(STRANGER)])
OTHER = azure.make_quote(extra_data=b"yesterday's")
CHANGED = azure.make_quote(digest=bytes(32))
BROKEN: dict[str, tuple[str, dict[str, Any]]] = {
    "another guest's runtime data": ("runtime_hash_mismatch", {"hcl_report": blob(OTHER_RUNTIME)}),
    "another hash": ("runtime_hash_mismatch", {"hcl_report": blob(hash_type=2)}),
    "another vTPM's quote": (
        "quote_signature_invalid", {"quote_signature": azure.sign_quote(azure.make_quote(), STRANGER)},
    ),
    "an older quote": ("nonce_mismatch", {"quote": OTHER, "quote_signature": azure.sign_quote(OTHER)}),
    "PCRs that the quote does not cover": (
        "pcr_digest_mismatch", {"quote": CHANGED, "quote_signature": azure.sign_quote(CHANGED)},
    ),
    "no key of that name": (
        "key_missing",
        {"td_quote": guest(b'{"keys":[]}').quote(), "hcl_report": blob(b'{"keys":[]}')},
    ),
    "something signed that is no quote": (
        "quote_type",
        {"quote": azure.make_quote(kind=0x8017),
         "quote_signature": azure.sign_quote(azure.make_quote(kind=0x8017))},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_link(name: str) -> None:
    code, changes = BROKEN[name]
    found = ask(bundle(**changes))
    assert (found.verdict, found.reason) == ("contraindicated", f"tdx.azure.{code}")


def test_a_quote_of_another_guest_does_not_take_the_blob_for_its_own() -> None:
    assert ask(bundle(td_quote=GOOD.quote())).reason == "tdx.azure.runtime_hash_mismatch"


@pytest.mark.parametrize(
    ("changes", "nonce"),
    [({"quote": None, "quote_signature": None}, azure.NONCE), ({"pcrs": None}, azure.NONCE)],
)
def test_what_is_demanded_and_absent_cannot_be_decided(changes: dict[str, Any], nonce: bytes) -> None:
    found = ask(bundle(**changes), nonce)
    assert found.verdict == "none"


def test_pcrs_demanded_of_a_bare_quote_cannot_be_decided() -> None:
    found = judge(GOOD, quote=guest().quote(), **BOTH)
    assert (found.verdict, found.reason) == ("none", "tdx.azure.quote_missing")


def test_a_pcr_of_another_value_is_refused() -> None:
    found = ask(bundle(), **{**PARAVISOR, "pcrs": f'{{ 4 = ["{"00" * 32}"] }}'})
    assert found.reason == "tdx.azure.pcr_mismatch"


def test_without_its_profile_such_a_guest_is_refused() -> None:
    found = ask(bundle(), profile='"guest"')
    assert found.reason == "tdx.td_attributes_not_allowed"
    assert found.check("tdx.azure.quote").status == "pass"


@pytest.mark.parametrize(
    "keys",
    [
        {"pcrs": "{ 7 = 'any' }"},
        {**PARAVISOR, "pcrs": "{ 24 = 'any' }"},
        {**PARAVISOR, "pcrs": "{ x = 'any' }"},
    ],
)
def test_pcrs_need_the_profile_and_a_number(keys: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        Expectations.parse(toml(GOOD, **keys).encode())


def test_a_blob_of_an_snp_guest_is_none_of_a_trust_domain() -> None:
    with pytest.raises(Unreadable):
        unwrap(bundle(hcl_report=blob(kind=2)))


def test_a_folder_as_a_guest_leaves_it(tmp_path: Path) -> None:
    evidence = tmp_path / "evidence"
    evidence.mkdir()
    files = {
        "quote.bin": guest().quote(), "hcl_report.bin": blob(), "tpm_quote.bin": azure.make_quote(),
        "tpm_quote_signature.bin": azure.sign_quote(azure.make_quote()),
        "tpm_pcrs.json": json.dumps([value.hex() for value in azure.PCRS]).encode(),
    }  # fmt: skip
    for name, data in files.items():
        (evidence / name).write_bytes(data)
    (tmp_path / "collateral.json").write_bytes(GOOD.collateral())
    (tmp_path / "expected.toml").write_text(toml(GOOD, **BOTH))
    arguments = ["verify", "--tee", "tdx", str(evidence), "--endorsements", str(tmp_path / "collateral.json"),
                 "--expect", str(tmp_path / "expected.toml"), "--at", "2026-03-01T12:00:00Z"]  # fmt: skip
    assert main([*arguments, "--nonce", azure.NONCE.hex()]) == 0
    assert main([*arguments, "--nonce", b"another".hex()]) == 1
    (evidence / "tpm_pcrs.json").write_bytes(b"[]")
    with pytest.raises(Unreadable):
        main(arguments)


def test_a_broken_vtpm_shows_in_the_vector_of_an_ear() -> None:
    """What speaks against a guest is never outside the AR4SI vector."""
    names = {
        "key_missing": "instance-identity",
        "nonce_mismatch": "sourced-data",
        "pcr_mismatch": "executables",
    }
    broken = {
        "nonce_mismatch": ask(bundle(**BROKEN["an older quote"][1])),
        "key_missing": ask(bundle(**BROKEN["no key of that name"][1])),
        "pcr_mismatch": ask(bundle(), **{**PARAVISOR, "pcrs": f'{{ 4 = ["{"00" * 32}"] }}'}),
    }
    for code, found in broken.items():
        ear: Any = as_ear(found)
        assert ear["submods"]["tdx"]["ear.trustworthiness-vector"][names[code]] == 96, code
