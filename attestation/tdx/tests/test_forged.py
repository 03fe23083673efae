"""The forged vendor's good cases hold in every shape and form of collateral, and never pass for Intel's."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from cryptography import x509

from attestation.appraise import appraise_dcap
from attestation.pki.x509 import MAX_MARKED
from attestation.tdx.collateral import stated
from attestation.tdx.tests.judging import GOOD, SGX, TD15, but, codes, judge
from attestation.testing.intel import PLATFORM_CN, ROOT_CN, IntelForge, crl, pem
from attestation.testing.intel_documents import NOW, platform_level
from attestation.testing.intel_quote import QUOTE_BODIES
from schemas.canonical import sha256


@pytest.mark.parametrize("shape", QUOTE_BODIES)
def test_every_shape_holds(shape: str) -> None:
    found = judge(IntelForge(shape=shape))
    assert (found.verdict, found.reason) == ("affirming", None)
    assert found.simulated
    assert found.platform.startswith("simulated-")
    assert found.stated()["verdicts"] == {
        "authenticity": "affirming",
        "freshness": "affirming",
        "tcb_launch": "affirming",
        "tcb_current": "affirming" if shape.startswith("v5 td15") else None,
        "policy": "affirming",
        "event_log": None,
    }


@pytest.mark.parametrize("forge", [GOOD, SGX, TD15])
def test_collateral_may_come_in_pieces(forge: IntelForge) -> None:
    assert judge(forge, endorsements=forge.pieces()).verdict == "affirming"


def test_the_made_up_root_is_no_root_of_intels() -> None:
    found = appraise_dcap(GOOD.quote(), tee="tdx", endorsements=[GOOD.collateral()], at=NOW)
    assert found.verdict == "contraindicated"
    assert found.reason == "tdx.root_not_pinned"
    assert not found.simulated


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_the_chain_may_stand_in_any_order(order: tuple[int, ...]) -> None:
    assert judge(but(order=order)).verdict == "affirming"


@pytest.mark.parametrize("length", [0, 1, 31, 33, 4096])
def test_authentication_data_of_any_length_is_bound(length: int) -> None:
    assert judge(but(auth_data=bytes(length))).verdict == "affirming"


@pytest.mark.parametrize("kind", [1, 2, 3])
@pytest.mark.parametrize("pceid", [b"", bytes(2)], ids=["with PCEID", "without"])
def test_a_quote_without_a_chain_takes_the_one_that_is_offered(kind: int, pceid: bytes) -> None:
    stated = bytes({1: 16, 2: 256, 3: 384}[kind]) + b"\5" * 16 + (11).to_bytes(2, "little") + pceid
    forge = but(certification=(kind, stated))
    assert judge(forge, endorsements=[GOOD.collateral(), pem(*GOOD.chain())]).verdict == "affirming"
    assert judge(forge).reason == "tdx.cert_data_type_unsupported"


PLAIN = but(certification=(1, bytes(16) + b"\5" * 16 + (11).to_bytes(2, "little") + bytes(2)))
STRANGER = replace(GOOD.pck, key="other", serial=77)
NAMESAKE = replace(GOOD.root, key="namesake", signer="namesake")


@pytest.mark.parametrize(
    "others",
    [
        but(pck=STRANGER).chain()[:1],
        [
            replace(STRANGER, key=f"fleet {n}", serial=100 + n, extension=GOOD.sgx_extension()).der()
            for n in range(20)
        ],
        but(pck=replace(STRANGER, signer="other")).chain()[:1],
        [NAMESAKE.der()],
        [replace(GOOD.root, serial=99).der()],
        [replace(GOOD.ca, key="namesake", signer="namesake").der()],
    ],
    ids=["another machine", "a fleet", "a forged leaf", "a namesake root", "the root's key", "a namesake CA"],
)
def test_its_own_chain_is_found_among_those_like_it(others: Sequence[bytes]) -> None:
    """Of the same model and TCB, or of the same name: what signed the QE's report decides."""
    offered = [GOOD.collateral(), *others, *GOOD.chain()]
    assert judge(PLAIN, endorsements=offered).verdict == "affirming"


def test_crls_of_namesakes_beside_ours_say_nothing_and_alone_refuse() -> None:
    """A made-up vendor's CRLs bear Intel's names."""
    theirs = [crl(ROOT_CN, "namesake"), crl(PLATFORM_CN, "namesake", (3,))]
    assert judge(GOOD, endorsements=[GOOD.collateral(), *theirs]).verdict == "affirming"
    info, identity, *_, signer, ca = GOOD.pieces()
    alone = judge(GOOD, endorsements=[info, identity, signer, ca, *theirs], waive=True)
    assert (alone.verdict, alone.reason) == ("contraindicated", "tdx.crl_signature_invalid")
    revoking = [crl(PLATFORM_CN, "ca", (3,)), *theirs]
    assert judge(GOOD, endorsements=[GOOD.collateral(), *revoking]).reason == "tdx.cert_revoked"


def test_why_a_serial_is_revoked_does_not_matter() -> None:
    """Critical or not: another machine's reason is no reason, and its own revokes."""
    why = x509.CRLReason(x509.ReasonFlags.key_compromise)
    assert judge(but(pck_crl=crl(PLATFORM_CN, "ca", (9,), entry=why))).verdict == "affirming"
    assert judge(but(pck_crl=crl(PLATFORM_CN, "ca", (3,), entry=why))).reason == "tdx.cert_revoked"
    many = crl(PLATFORM_CN, "ca", tuple(range(9, 10 + MAX_MARKED)), entry=why)
    assert judge(but(pck_crl=many)).reason == "tdx.collateral_malformed"


def test_another_machines_chain_is_no_chain_of_this_one() -> None:
    leaf, *above = but(pck=STRANGER).chain()
    found = judge(PLAIN, endorsements=[GOOD.collateral(), leaf, *above])
    assert found.reason == "tdx.qe_report_signature_invalid"


@pytest.mark.parametrize("tail", [b"", b"\0"])
def test_a_quote_with_its_leaf_alone_takes_the_rest_from_the_collateral(tail: bytes) -> None:
    assert judge(but(certification=(4, pem(GOOD.chain()[0]) + tail))).verdict == "affirming"


def test_the_higher_evaluation_that_fits_is_used() -> None:
    older, newer = but(), but(info={"tcbEvaluationDataNumber": 19}, identity={"tcbEvaluationDataNumber": 19})
    found = judge(GOOD, endorsements=[older.collateral(), newer.collateral()])
    assert found.stated()["tcb_evaluation"] == {"tcb_info": 19, "qe_identity": 19}


def test_a_set_may_bring_the_pck_chain_and_crls_in_pem() -> None:
    stated = json.loads(GOOD.collateral())
    for name in ("root_ca_crl", "pck_crl"):
        body = base64.b64encode(bytes.fromhex(stated[name])).decode()
        stated[name] = f"-----BEGIN X509 CRL-----\n{body}\n-----END X509 CRL-----\n"
    stated["pck_certificate_chain"] = pem(*GOOD.chain()).decode()
    without = but(certification=(1, bytes(16) + b"\5" * 16 + (11).to_bytes(2, "little") + bytes(2)))
    assert judge(without, endorsements=[json.dumps(stated).encode()]).verdict == "affirming"
    stated["pck_crl"] = "-----BEGIN X509 CRL-----"
    assert judge(GOOD, endorsements=[json.dumps(stated).encode()]).reason == "tdx.collateral_malformed"


def test_the_right_documents_are_found_among_a_fleets() -> None:
    others = [
        but(info={"fmspc": f"{n:012x}", "tcbEvaluationDataNumber": 30}, document_key="signer").pieces()[0]
        for n in range(1, 30)
    ]
    edited = GOOD.pieces()[0].replace(b"UpToDate", b"OutOfDate")
    assert judge(GOOD, endorsements=[*others, edited, GOOD.collateral()]).verdict == "affirming"
    assert judge(GOOD, endorsements=[*others, *GOOD.pieces()[1:]]).reason == "tdx.fmspc_mismatch"


def test_a_large_document_is_read_and_not_remembered() -> None:
    before = stated._tcb_info.cache_info().currsize
    levels = [
        platform_level(5, 5, "UpToDate", f"2025-05-{day:02}T00:00:00Z", ["X" * 64] * 12)
        for day in range(1, 29)
    ]
    large = but(info={"tcbLevels": levels * 2})
    assert len(large.documents()[0]) > stated.REMEMBERED_BYTES
    assert judge(large).verdict == "affirming"
    assert stated._tcb_info.cache_info().currsize == before


def test_another_evaluation_can_be_asked_for_and_the_others_are_shown() -> None:
    newer = but(
        info={
            "tcbEvaluationDataNumber": 20,
            "tcbLevels": [platform_level(6, 6, "UpToDate", "2026-02-11T00:00:00Z"),
                          platform_level(5, 5, "OutOfDate", "2025-05-14T00:00:00Z", ["INTEL-SA-7"])],
        },
        identity={"tcbEvaluationDataNumber": 19},
    )  # fmt: skip
    offered = [GOOD.collateral(), newer.collateral()]
    newest, older = judge(GOOD, endorsements=offered), judge(GOOD, endorsements=offered, evaluation=18)
    assert (newest.reason, older.verdict) == ("tdx.tcb_status_not_accepted", "affirming")
    assert newest.stated()["tcb_evaluation"] == {"tcb_info": 20, "qe_identity": 19}
    until = "2026-03-21T12:00:00Z"
    assert newest.stated()["other_evaluations"] == {
        "18": {"tcb_status": "UpToDate", "advisory_ids": [], "tcb_info_until": until}
    }
    assert older.stated()["other_evaluations"] == {
        "20": {"tcb_status": "OutOfDate", "advisory_ids": ["INTEL-SA-7"], "tcb_info_until": until}
    }
    assert judge(GOOD, endorsements=offered, evaluation=19).reason == "tdx.collateral_missing"


def test_what_a_platform_lacks_is_told_by_how_much() -> None:
    behind = judge(but(components=(5,) * 15 + (3,), pcesvn=11, body={"tcb_svn": bytes([3, 1]) + b"\5" * 14}))
    seen = behind.check("tdx.tcb.launch").seen
    assert "SGX component 16 3<5" in seen
    assert "module SVN 3<5" in seen
    none = judge(but(components=(5,) * 15 + (1,), pcesvn=9)).check("tdx.tcb.launch").seen
    assert "SGX component 16 1<3, PCESVN 9<11" in none
    days: Any = behind.stated()["days_left"]
    assert days == {"tcb_info": 20, "qe_identity": 20, "root_crl": 20, "pck_crl": 20, "pck_chain": 8705}


def test_the_result_names_every_document_that_it_rests_on() -> None:
    info, identity = GOOD.documents()
    _, _, root_crl, pck_crl, *_ = GOOD.pieces()
    named = {"tcb_info": info, "qe_identity": identity, "root_crl": root_crl, "pck_crl": pck_crl}
    assert judge(GOOD).stated()["collateral"] == {name: sha256(each).hex() for name, each in named.items()}


def test_every_mismatch_is_listed() -> None:
    found = judge(but(info={"tcbLevels": []}), mrtd=f'["{"00" * 48}"]', rtmr1=f'["{"00" * 48}"]')
    assert codes(found) == ["tcb_level_not_found", "measurement_mismatch", "measurement_mismatch"]
