"""What is remembered changes no answer: the same bytes come out cold and warm, at every moment."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

import attestation.tdx
from attestation import memory
from attestation.memory import forget
from attestation.pki.x509 import read_certificate
from attestation.render import json_text
from attestation.result import AttestationResult
from attestation.tdx.origin.chain import INTEL_ROOT, split_pem, verify_link, verify_root
from attestation.tdx.quote import read_quote
from attestation.tdx.tests import recorded
from attestation.tdx.tests.faults.listed import turned
from attestation.tdx.tests.judging import GOOD, SGX, TD15, TD15_EX, but, judge
from attestation.testing.intel import PLATFORM_CN, IntelForge, crl, days
from attestation.testing.intel_documents import NOW, text

SHAPES = (GOOD, TD15, TD15_EX, SGX)
GRACE = '[{ status = "OutOfDate", days = 292, until = "2027-01-01T00:00:00Z" }]'


def guest(forge: IntelForge, number: int) -> IntelForge:
    """Another quote of the same guest: other report data, another enclave report, another signature."""
    return but(forge, body={"report_data": number.to_bytes(64)}, auth_data=number.to_bytes(32))


def cold_and_warm(forge: IntelForge, at: datetime = NOW, **inputs: Any) -> AttestationResult:
    """Judge once with nothing known and once after the same guest's other quote at another moment."""
    quote = forge.quote()
    forget()
    cold = judge(forge, quote=quote, at=at, **inputs)
    forget()
    judge(forge, quote=guest(forge, 77).quote(), **inputs)
    warm = judge(forge, quote=quote, at=at, **inputs)
    assert json_text(cold) == json_text(warm)
    return warm


@pytest.mark.parametrize("forge", SHAPES)
@pytest.mark.parametrize("number", [1, 2])
def test_another_quote_of_the_same_guest(forge: IntelForge, number: int) -> None:
    found = cold_and_warm(guest(forge, number))
    assert found.verdict == "affirming"
    assert found.stated()["report_data"] == number.to_bytes(64).hex()


MOMENTS = [days(count) for count in (-3000, -11, -10, -5, 0, 1, 1.5, 20, 20.001, 30, 9000)]


@pytest.mark.parametrize("at", MOMENTS, ids=str)
def test_every_moment_gives_its_own_answer(at: datetime) -> None:
    cold_and_warm(GOOD, at)
    cold_and_warm(GOOD, at, waive=True)
    cold_and_warm(but(pck_crl=crl(PLATFORM_CN, "ca", (3,), days(1), days(30))), at)


@pytest.mark.parametrize("at", MOMENTS, ids=str)
def test_a_later_document_is_taken_when_it_begins(at: datetime) -> None:
    later = but(
        info={"tcbEvaluationDataNumber": 19, "issueDate": text(days(1))},
        identity={"tcbEvaluationDataNumber": 19, "issueDate": text(days(1))},
    )
    found = cold_and_warm(GOOD, at, endorsements=[GOOD.collateral(), later.collateral()])
    used = found.stated()["tcb_evaluation"]
    if days(1) <= at <= days(20):
        assert used == {"tcb_info": 19, "qe_identity": 19}
    elif days(-10) <= at < days(1):
        assert used == {"tcb_info": 18, "qe_identity": 18}


@pytest.mark.parametrize("at", MOMENTS, ids=str)
def test_a_later_crl_is_taken_when_it_begins(at: datetime) -> None:
    """The answer then rests on it, and holds for as long."""
    later = crl(PLATFORM_CN, "ca", (), days(1), days(40), 2)
    found = cold_and_warm(GOOD, at, endorsements=[GOOD.collateral(), later])
    if NOW <= at <= days(20):
        seen = found.check("tdx.collateral.pck_crl").seen
        assert text(days(40) if at >= days(1) else days(20)) in seen


@pytest.mark.parametrize("at", [NOW, days(0.4), days(0.6), days(2)], ids=str)
def test_grace_ends_in_memory_too(at: datetime) -> None:
    behind = but(components=(3,) * 16, body={"tcb_svn": bytes([5, 1]) + bytes([3]) * 14})
    found = cold_and_warm(behind, at, grace=GRACE)
    assert found.verdict == ("warning" if at <= days(0.5) else "contraindicated")


DAMAGES = {
    "quote signature": 48 + 584 + 4,
    "attestation key": 48 + 584 + 4 + 64,
    "QE report data": 48 + 584 + 4 + 128 + 6 + 320,
    "QE signature": 48 + 584 + 4 + 128 + 6 + 384,
    "authentication data": 48 + 584 + 4 + 128 + 6 + 384 + 64 + 2,
    "report data": 48 + 520,
}


@pytest.mark.parametrize("place", DAMAGES)
def test_what_is_new_in_a_quote_is_verified_each_time(place: str) -> None:
    quote = turned(GOOD.quote(), DAMAGES[place])
    forget()
    cold = judge(GOOD, quote=quote)
    assert judge(GOOD).verdict == "affirming"
    warm = judge(GOOD, quote=quote)
    assert cold.verdict == "contraindicated"
    assert json_text(cold) == json_text(warm)
    assert judge(GOOD).verdict == "affirming"


@pytest.mark.parametrize("nonce", [b"\x33" * 64, bytes(64)], ids=["answered", "another"])
def test_a_nonce_is_compared_each_time(nonce: bytes) -> None:
    assert (cold_and_warm(GOOD, nonce=nonce).verdict == "affirming") == (nonce == b"\x33" * 64)
    demanded = f'["{nonce.hex()}"]'
    forget()
    cold = judge(GOOD, report_data=demanded)
    forget()
    judge(but(body={"report_data": nonce}), report_data=demanded)
    assert json_text(cold) == json_text(judge(GOOD, report_data=demanded))


def test_what_another_relying_party_asks_is_never_answered_from_memory() -> None:
    assert judge(GOOD).verdict == "affirming"
    assert judge(GOOD, mrtd=f'["{"77" * 48}"]').verdict == "contraindicated"
    assert judge(GOOD, endorsements=[]).reason == "tdx.collateral_missing"
    assert judge(GOOD, evaluation=17).reason == "tdx.collateral_missing"
    assert judge(but(pck_crl=None)).reason == "tdx.crl_missing"
    assert judge(but(pck_crl=None), waive=True).verdict == "affirming"
    assert judge(but(pck_crl=None)).reason == "tdx.crl_missing"


def test_another_platform_is_another_guest() -> None:
    assert judge(GOOD).verdict == "affirming"
    other = but(pck=replace(GOOD.pck, serial=5, key="pck2"))
    assert judge(GOOD, quote=other.quote()).verdict == "contraindicated"


@pytest.mark.parametrize(
    ("qe", "code"),
    [
        ({"attributes": b"\x17" + bytes(15)}, "tdx.qe_debug"),
        ({"mrsigner": bytes(32)}, "tdx.qe_identity_mismatch"),
        ({"isvsvn": 0}, "tdx.qe_isvsvn_not_supported"),
    ],
)
def test_another_quoting_enclave_is_judged_anew(qe: dict[str, Any], code: str) -> None:
    """Of the same platform, whose PCK signed its report as well."""
    forget()
    assert judge(GOOD).verdict == "affirming"
    assert code in [check.code for check in judge(but(qe=qe)).checks]


def remembering() -> set[object]:
    """Everything of this room that remembers, found by looking."""
    modules = [
        importlib.import_module(each.name)
        for each in pkgutil.walk_packages(attestation.tdx.__path__, "attestation.tdx.")
        if ".tests" not in each.name
    ]
    return {
        each
        for module in modules
        for each in vars(module).values()
        if isinstance(each, functools._lru_cache_wrapper) and each.__module__ == module.__name__
    }


def test_all_that_remembers_can_forget() -> None:
    """Otherwise a measurement of the cold path would not be cold."""
    assert len(remembering()) > 10
    assert remembering() - set(memory.caches()) == set()


@pytest.mark.skipif(not recorded.PRESENT, reason=recorded.ABSENT)
def test_intels_root_signed_itself() -> None:
    """What `verify_root` takes as known of the pinned bytes."""
    (row,) = [
        each for each in recorded.rows() if each["case"].endswith("gotdx-cf77a6-eval18-2026-02-01-uptodate")
    ]
    root = read_certificate(split_pem(read_quote(recorded.read(row["evidence"])).certification)[2])
    assert root.fingerprint == INTEL_ROOT
    assert verify_link(root, root) is verify_root(root)
