"""Collateral in every form in which services, proxies and libraries hand it over."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.x509.oid import NameOID

from attestation.appraise import appraise_dcap
from attestation.expected import Expectations
from attestation.result import AttestationResult
from attestation.tdx.collateral.documents import MAX_DOCUMENTS, gather
from attestation.tdx.tests.judging import GOOD, SGX, but, judge, toml
from attestation.testing.forge import Forge
from attestation.testing.intel import IntelForge, days, pem
from attestation.testing.intel_documents import NOW
from schemas.errors import Unreadable

LEAF_ALONE = but(certification=(4, pem(GOOD.chain()[0])))
Change = Callable[[dict[str, Any]], dict[str, Any]]


def as_library(stated: dict[str, Any]) -> dict[str, Any]:
    """Seven members and two numbers, each text a string of C, each document the service's whole answer."""
    info = f'{{"tcbInfo":{stated["tcb_info"]},"signature":"{stated["tcb_info_signature"]}"}}\0'
    identity = (
        f'{{"enclaveIdentity":{stated["qe_identity"]},"signature":"{stated["qe_identity_signature"]}"}}\0'
    )
    texts = {
        name: f"{value}\0"
        for name, value in stated.items()
        if name.endswith(("_chain", "_crl")) and value != ""
    }
    return {"version": 3, "tee_type": 129, **texts, "tcb_info": info, "qe_identity": identity}


def in_base64(stated: dict[str, Any]) -> dict[str, Any]:
    crls = {
        name: base64.b64encode(bytes.fromhex(stated[name])).decode() for name in ("root_ca_crl", "pck_crl")
    }
    return {**stated, **crls}


def as_octets(stated: dict[str, Any]) -> dict[str, Any]:
    names = ("root_ca_crl", "pck_crl", "tcb_info_signature", "qe_identity_signature")
    return {**stated, **{name: list(bytes.fromhex(stated[name])) for name in names}}


SETS: dict[str, Change] = {
    "as the library has it": as_library,
    "CRLs in base64": in_base64,
    "bytes as lists": as_octets,
    "in a guest's answer": lambda stated: {"quote": "00", "collateral": stated},
    "CRLs in capitals": lambda stated: {**stated, "pck_crl": stated["pck_crl"].upper()},
    "signatures in capitals": lambda stated: {
        **stated,
        "tcb_info_signature": stated["tcb_info_signature"].upper(),
    },
    "a member of somebody else's": lambda stated: {**stated, "fetched": True, "note": "\\"},
}


def judged(forge: IntelForge, change: Change, indent: int | None = None) -> AttestationResult:
    return judge(
        forge, endorsements=[json.dumps(change(json.loads(forge.collateral())), indent=indent).encode()]
    )


@pytest.mark.parametrize("forge", [GOOD, SGX], ids=["tdx", "sgx"])
@pytest.mark.parametrize("form", SETS)
@pytest.mark.parametrize("indent", [None, 2])
def test_a_set(form: str, forge: IntelForge, indent: int | None) -> None:
    assert judged(forge, SETS[form], indent).verdict == "affirming"


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("tcb_info", "{}"),
        ("tcb_info", '{"enclaveIdentity":{},"signature":"' + "00" * 64 + '"}'),
        ("tcb_info", '{"tcbInfo":{},"signature":"00"}'),
        ("qe_identity", "text"),
        ("pck_crl", "no digits"),
        ("pck_crl", "MA=="),
        ("pck_crl", "30"),
        ("pck_crl", 5),
        ("pck_crl", [256]),
        ("pck_crl", [True] * 4),
        ("pck_crl", ["30"]),
        ("tcb_info", {}),
        ("tcb_info_issuer_chain", "-----BEGIN CERTIFICATE-----"),
    ],
)
def test_a_set_with_something_else_in_it_is_refused(member: str, value: Any) -> None:
    found = judged(GOOD, lambda stated: {**as_library(stated), member: value})
    assert (found.verdict, found.reason) == ("contraindicated", "tdx.collateral_malformed")


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        ("pck_crl", "tdx.crl_missing"), ("root_ca_crl", "tdx.crl_missing"),
        ("tcb_info", "tdx.collateral_missing"), ("qe_identity", "tdx.collateral_missing"),
        ("tcb_info_issuer_chain", "tdx.collateral_missing"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("gone", [None, "", ...])
def test_a_set_without_a_member_lacks_that_member_alone(member: str, reason: str, gone: Any) -> None:
    def lacking(stated: dict[str, Any]) -> dict[str, Any]:
        rest = {name: value for name, value in stated.items() if name != member}
        return rest if gone is ... else {**rest, member: gone}

    found = judged(GOOD, lacking)
    assert (found.verdict, found.reason) == ("none", reason)
    codes = [check.code for check in found.checks if check.effect != "shown"]
    assert codes == [reason]


def test_a_document_without_its_chain_is_held_to_any_offered_signer() -> None:
    stated = json.loads(GOOD.collateral())
    apart = [stated.pop("tcb_info_issuer_chain").encode(), json.dumps(stated).encode()]
    assert judge(GOOD, endorsements=apart).verdict == "affirming"


def test_a_document_of_a_library_is_signed_like_any_other() -> None:
    def edited(stated: dict[str, Any]) -> dict[str, Any]:
        changed = as_library(stated)
        return {**changed, "tcb_info": changed["tcb_info"].replace('"tcbType":0', '"tcbType": 0')}

    assert judged(GOOD, edited).reason == "tdx.collateral_signature_invalid"


def test_a_chain_as_it_stands_in_a_header() -> None:
    info, identity, *crls, _, ca = GOOD.pieces()
    header = pem(GOOD.signer.der(), GOOD.root.der())
    for octet in b" \n+=/":
        header = header.replace(bytes((octet,)), b"%%%02X" % octet)
    assert judge(GOOD, endorsements=[info, identity, *crls, header, ca]).verdict == "affirming"


def test_crls_in_pem_and_an_answer_with_its_members_the_other_way_round() -> None:
    info, identity, *crls, signer, ca = GOOD.pieces()
    stated = json.loads(info)
    body = info[len(b'{"tcbInfo":') : info.rindex(b',"signature"')]
    turned = b'{ "signature" : "' + stated["signature"].encode() + b'",\n "tcbInfo" : ' + body + b" }\n"
    texts = [
        b"-----BEGIN X509 CRL-----\n" + base64.encodebytes(each) + b"-----END X509 CRL-----\n"
        for each in crls
    ]
    assert judge(GOOD, endorsements=[turned, identity, *texts, signer, ca]).verdict == "affirming"


def _strange(*name: x509.NameAttribute[str]) -> bytes:
    """A certificate of somebody else's that this product does not read."""
    key, subject = ed25519.Ed25519PrivateKey.generate(), x509.Name(list(name))
    made = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).serial_number(5)
    made = made.not_valid_before(NOW).not_valid_after(days(9)).public_key(key.public_key())
    return made.sign(key, None).public_bytes(serialization.Encoding.PEM)


ALIENS = {
    "another algorithm": _strange(x509.NameAttribute(NameOID.COMMON_NAME, "x")),
    "no common name": _strange(x509.NameAttribute(NameOID.ORGANIZATION_NAME, "x")),
    "another vendor's root": pem(Forge.of("Milan").ark()),
}


@pytest.mark.parametrize("alien", ALIENS)
@pytest.mark.parametrize(
    ("forge", "with_root"), [(GOOD, True), (GOOD, False), (LEAF_ALONE, True)],
    ids=["chain inside", "root inside alone", "leaf inside alone"],
)  # fmt: skip
def test_certificates_of_somebody_elses_disturb_nothing(
    alien: str, forge: IntelForge, with_root: bool
) -> None:
    *pieces, _, ca = forge.pieces()
    signer = forge.signer.der()
    own = [pem(signer, forge.root.der()) if with_root else pem(signer)]
    for offered in ([ALIENS[alien], *pieces, *own, ca], [*pieces, *own, ca, ALIENS[alien]]):
        assert judge(forge, endorsements=offered).verdict == "affirming"


@pytest.mark.parametrize("alien", list(ALIENS)[:2])
def test_what_cannot_be_read_is_named_where_a_signer_is_missing(alien: str) -> None:
    """It may be that signer's certificate, damaged."""
    found = judge(GOOD, endorsements=[*GOOD.pieces()[:4], ALIENS[alien]])
    assert (found.verdict, found.reason) == ("contraindicated", "tdx.collateral_malformed")
    lacking = judge(LEAF_ALONE, endorsements=[*GOOD.pieces()[:5], ALIENS[alien]])
    assert lacking.check("tdx.authenticity.pck_chain").code == "tdx.pck_chain_malformed"


def test_a_fleets_folder_is_read_and_no_more() -> None:
    others = [
        answer
        for number in range(100)
        for answer in but(info={"fmspc": f"{number:012x}"}, identity={"id": f"QE{number}"}).pieces()[:2]
    ]
    assert judge(GOOD, endorsements=[*others, *GOOD.pieces()]).verdict == "affirming"
    with pytest.raises(Unreadable, match=str(MAX_DOCUMENTS)):
        gather(tuple(GOOD.pieces()[:1] * (MAX_DOCUMENTS + 1)))


def test_one_accepted_root_vouches_for_no_platform_under_another() -> None:
    signer = replace(GOOD.signer, signer="other")
    other = but(root=replace(GOOD.root, key="other", signer="other"), signer=signer)
    both = toml(GOOD) + toml(other).partition("\n[[")[2].join(("\n[[", ""))
    assert judge(GOOD).verdict == "affirming"
    found = appraise_dcap(
        GOOD.quote(), tee="tdx", endorsements=[other.collateral()], at=NOW,
        expectations=Expectations.parse(both.encode()),
    )  # fmt: skip
    for document in ("tcb_info", "qe_identity"):
        assert found.check(f"tdx.collateral.{document}.signature").code == "tdx.root_not_pinned"


def test_as_if_an_evaluation_were_the_newest_holds_for_the_identity_too() -> None:
    later = but(identity={"tcbEvaluationDataNumber": 19}).pieces()[1]
    for evaluation, seen in ((None, "QE identity 19"), (18, "QE identity 18")):
        found = judge(GOOD, endorsements=[*GOOD.pieces(), later], evaluation=evaluation)
        assert found.check("tdx.collateral.evaluation").seen.endswith(seen)
