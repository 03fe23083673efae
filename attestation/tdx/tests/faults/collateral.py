"""Faults in TCB info and QE identity."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from attestation.tdx.collateral.documents import MAX_DOCUMENTS
from attestation.tdx.tests.faults.listed import asking, fault, made
from attestation.tdx.tests.judging import GOOD, SGX, but, judge
from attestation.testing.intel import IntelForge, days, pem, sign
from attestation.testing.intel_documents import platform_level, svn_level, text

DATE = "2025-05-14T00:00:00Z"
SET: dict[str, Any] = json.loads(GOOD.collateral())


def offered(code: str, name: str, *endorsements: bytes, verdict: str = "contraindicated") -> None:
    fault(code, name, lambda: judge(GOOD, endorsements=endorsements), verdict)


def changed(**members: str) -> bytes:
    """The good set with members replaced."""
    return json.dumps({**SET, **members}).encode()


# Nothing, or not all
offered("collateral_missing", "nothing", verdict="none")
INFO, IDENTITY, *REST = GOOD.pieces()
offered("collateral_missing", "no TCB info", IDENTITY, *REST, verdict="none")
offered("collateral_missing", "no QE identity", INFO, *REST, verdict="none")
offered("collateral_missing", "no signer", INFO, IDENTITY, *REST[:2], verdict="none")
offered("collateral_missing", "empty TCB info", changed(tcb_info=""), verdict="none")

# The signature is over the bytes as received
REWRITTEN = json.dumps(json.loads(SET["tcb_info"]), indent=1)
offered("collateral_signature_invalid", "written again", changed(tcb_info=REWRITTEN))
offered(
    "collateral_signature_invalid",
    "TCB info",
    changed(tcb_info=SET["tcb_info"].replace("UpToDate", "UpToDatE")),
)
offered(
    "collateral_signature_invalid",
    "identity",
    changed(qe_identity=SET["qe_identity"].replace("TD_QE", "TD_qE")),
)
offered("collateral_signature_invalid", "swapped", changed(tcb_info_signature=SET["qe_identity_signature"]))
offered("collateral_signature_invalid", "piece", INFO.replace(b"UpToDate", b"UpToDatE"), IDENTITY, *REST)
made("collateral_signature_invalid", "another key", document_key="other")
made(
    "collateral_signature_invalid",
    "signer that the root did not sign",
    signer=replace(GOOD.signer, signer="other"),
)

# Who signed: a TCB signer of the root and nobody else
SIGNED_BY_LEAF = but(signer=replace(GOOD.pck, extension=GOOD.sgx_extension()), document_key="pck")
for name, forge in (
    ("PCK leaf", SIGNED_BY_LEAF),
    ("intermediate", but(signer=GOOD.ca, document_key="ca")),
    ("root", but(signer=GOOD.root, document_key="root")),
    (
        "a leaf that calls itself signer",
        but(signer=replace(GOOD.signer, issuer=GOOD.ca.subject, signer="ca")),
    ),
    ("a signer with a platform", but(signer=replace(GOOD.signer, extension=GOOD.sgx_extension()))),
    ("a signer that is an authority", but(signer=replace(GOOD.signer, authority=True, cert_sign=True))),
):
    fault("collateral_signer_role_invalid", name, lambda forge=forge: judge(forge))  # type: ignore[misc]
OTHER = but(root=replace(GOOD.root, serial=99))
offered("root_not_pinned", "documents under another root", OTHER.collateral())

# When
made("collateral_expired", "TCB info", verdict="none", info={"nextUpdate": text(days(-1))})
made("collateral_expired", "QE identity", verdict="none", identity={"nextUpdate": text(days(-1))})
made("collateral_expired", "signer", verdict="none", signer=replace(GOOD.signer, not_after=days(-1)))
made("collateral_not_yet_valid", "TCB info", verdict="none", info={"issueDate": text(days(1))})
made("collateral_not_yet_valid", "QE identity", verdict="none", identity={"issueDate": text(days(1))})
made("collateral_not_yet_valid", "signer", verdict="none", signer=replace(GOOD.signer, not_before=days(1)))
fault(
    "collateral_expired", "older than policy allows", lambda: judge(GOOD, collateral_max_age_days="9"), "none"
)

# About whom
made("collateral_id_mismatch", "SGX's TCB info", info={"id": "SGX"})
made("collateral_id_mismatch", "SGX's QE identity", identity={"id": "QE"})
made("collateral_id_mismatch", "the verification enclave's identity", identity={"id": "QVE"})
made("collateral_id_mismatch", "TDX's QE identity for SGX", SGX, identity={"id": "TD_QE"})
made("fmspc_mismatch", "another model", info={"fmspc": "00806F050001"})
made("pceid_mismatch", "another PCE", info={"pceId": "0001"})
fault(
    "collateral_eval_mismatch", "further apart than policy allows",
    lambda: judge(but(identity={"tcbEvaluationDataNumber": 17}), evaluation_difference="0"),
)  # fmt: skip
asking("eval_number_too_low", "below the floor", evaluation_min="19")
asking(
    "eval_number_too_low", "identity below the floor",
    but(identity={"tcbEvaluationDataNumber": 17}), evaluation_min="18",
)  # fmt: skip


# What they say: strictly
def info(name: str, forge: IntelForge = GOOD, /, **members: Any) -> None:
    made("collateral_malformed", f"TCB info: {name}", forge, info=members)


def identity(name: str, /, **members: Any) -> None:
    made("collateral_malformed", f"identity: {name}", identity=members)


GOOD_LEVEL = platform_level(5, 5, "UpToDate", DATE)


def level(**changes: Any) -> dict[str, Any]:
    return {**GOOD_LEVEL, **changes}


def tcb(**changes: Any) -> dict[str, Any]:
    return {**GOOD_LEVEL, "tcb": {**GOOD_LEVEL["tcb"], **changes}}  # type: ignore[dict-item]


for member in (
    "id", "version", "issueDate", "nextUpdate", "fmspc", "pceId", "tcbType", "tcbEvaluationDataNumber",
    "tcbLevels", "tdxModule",
):  # fmt: skip
    info(f"without {member}", **{member: None})
info("version 4", version=4)
info("version 2 for TDX", version=2)
info("version as text", version="3")
info("unknown id", id="TDY")
info("unknown type", tcbType=1)
info("FMSPC too short", fmspc="00806F0500")
info("date that is none", issueDate="yesterday")
info("evaluation negative", tcbEvaluationDataNumber=-1)
info("evaluation true", tcbEvaluationDataNumber=True)
info("levels no list", tcbLevels={})
info("level no object", tcbLevels=[1])
info("too many levels", tcbLevels=[GOOD_LEVEL] * 257)
for count in (0, 1, 15, 17):
    info(f"{count} SGX components", tcbLevels=[tcb(sgxtcbcomponents=[{"svn": 5}] * count)])
    info(f"{count} TDX components", tcbLevels=[tcb(tdxtcbcomponents=[{"svn": 5}] * count)])
info("component above 255", tcbLevels=[tcb(sgxtcbcomponents=[{"svn": 256}] + [{"svn": 5}] * 15)])
info("component as text", tcbLevels=[tcb(sgxtcbcomponents=[{"svn": "5"}] + [{"svn": 5}] * 15)])
info("component without SVN", tcbLevels=[tcb(tdxtcbcomponents=[{}] * 16)])
info("PCESVN too large", tcbLevels=[tcb(pcesvn=65536)])
info("unknown status", tcbLevels=[level(tcbStatus="Fine")])
info("a status that no document states", tcbLevels=[level(tcbStatus="TDRelaunchAdvised")])
info("advisories no list", tcbLevels=[level(advisoryIDs="INTEL-SA-00001")])
info("advisory with a space", tcbLevels=[level(advisoryIDs=["INTEL SA"])])
info("too many advisories", tcbLevels=[level(advisoryIDs=["A"] * 257)])
info("level without date", tcbLevels=[{k: v for k, v in GOOD_LEVEL.items() if k != "tcbDate"}])
info("modules no list", tdxModuleIdentities={})
info("module without levels", tdxModuleIdentities=[{"id": "TDX_01"}])
info(
    "module signer too short",
    tdxModule={"mrsigner": "00", "attributes": "00" * 8, "attributesMask": "00" * 8},
)
for member in (
    "id", "version", "issueDate", "nextUpdate", "tcbEvaluationDataNumber", "miscselect", "miscselectMask",
    "attributes", "attributesMask", "mrsigner", "isvprodid", "tcbLevels",
):  # fmt: skip
    identity(f"without {member}", **{member: None})
identity("version 3", version=3)
identity("product too large", isvprodid=65536)
identity("SVN too large", tcbLevels=[svn_level(65536, "UpToDate", DATE)])
identity("mask too short", attributesMask="FF")
info("version 2 with an id", SGX, version=2)
info("version 2 without numbered components", SGX, version=2, id=None)


def resigned(body: str) -> bytes:
    """A set whose TCB info is this text, signed."""
    return changed(tcb_info=body, tcb_info_signature=sign("signer", body.encode()).hex())


offered("collateral_malformed", "a key twice", resigned(SET["tcb_info"].replace("{", '{"version":3,', 1)))
offered("collateral_malformed", "too deep", resigned('{"id":' * 40 + "1" + "}" * 40))
offered(
    "collateral_malformed", "a fraction", resigned(SET["tcb_info"].replace('"version":3', '"version":3.0'))
)
offered("collateral_malformed", "a list", resigned("[]"))
offered("collateral_malformed", "set that is cut", GOOD.collateral()[:-1])
offered("collateral_malformed", "signature too short", changed(tcb_info_signature="00"))
offered("collateral_malformed", "CRL not hex", changed(pck_crl="zz"))
offered(
    "collateral_signer_role_invalid",
    "root before its signer",
    changed(tcb_info_issuer_chain=pem(GOOD.root.der(), GOOD.signer.der()).decode()),
)
offered(
    "collateral_malformed", "chain without end", changed(tcb_info_issuer_chain="-----BEGIN CERTIFICATE-----")
)
offered("collateral_malformed", "too many documents", *[GOOD.collateral()] * (MAX_DOCUMENTS + 1))
offered(
    "collateral_malformed",
    "certificate that is none, and no signer",
    INFO,
    IDENTITY,
    *REST[:2],
    b"\x30\x06\x30\x04\xa0\x02\x01\x02",
)
