"""Beside a peer: the same status and advisories wherever both give a verdict, and why where they differ.

`dcap-qvl` is a development tool, used here and in the bench alone. Every disagreement is a row of the
table in docs/attestation-tdx.md, which these tests hold to what really happens.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from attestation.appraise import appraise_dcap
from attestation.tdx.collateral.shapes import STATUSES
from attestation.tdx.quote import read_quote
from attestation.tdx.tests import recorded
from attestation.tdx.tests.judging import GOOD, SGX, TD15, TD15_EX, but, codes, judge
from attestation.testing.der import integer, sequence, tlv
from attestation.testing.intel import PLATFORM_CN, ROOT_CN, IntelForge, crl, days, member, pem
from attestation.testing.intel_documents import NOW, module, platform_level, svn_level, text
from schemas.primitives import parse_time

dcap_qvl = pytest.importorskip("dcap_qvl", reason="the peer publishes no wheel for this platform")

Standing = tuple[str, list[str]]


def peer(quote: bytes, collateral: bytes, at: datetime, root: bytes | None = None) -> Standing | str:
    """The peer's status and advisories, or the text of its refusal."""
    offered = dcap_qvl.QuoteCollateralV3.from_json(collateral.decode())
    seconds = int(at.timestamp())
    try:
        if root is None:
            found = dcap_qvl.verify(quote, offered, seconds)
        else:
            found = dcap_qvl.verify_with_root_ca(quote, offered, root, seconds)
    except ValueError as error:
        return str(error)
    return found.status, sorted(found.advisory_ids)


def peer_of(forge: IntelForge, root: bytes | None = None) -> Standing | str:
    return peer(forge.quote(), forge.collateral(), NOW, forge.root.der() if root is None else root)


def plain(forge: IntelForge = GOOD, /, **changes: Any) -> IntelForge:
    """The case with MISCSELECT zero, whose text reads the same from either end."""
    qe, identity = changes.pop("qe", {}), changes.pop("identity", {})
    return but(forge, qe={"miscselect": 0, **qe}, identity={"miscselect": "00000000", **identity}, **changes)


def ours_of(forge: IntelForge) -> Standing | None:
    found = judge(forge, tcb_status='"any"').stated()
    status: Any = found["tcb_status"]
    advisories: Any = found["advisory_ids"]
    return None if status is None else (status, advisories)


# Recorded evidence

SILENT = {
    "Debug mode is enabled": "debug",
    "SEPT_VE_DISABLE is not enabled": "SEPT_VE_DISABLE",
    "missing field `sgxtcbcomponents`": "version 2",
    "Failed to parse root CA CRL": "empty CRL",
}
"""What the peer says where it gives no status and we do → the row of the table in the document."""


@pytest.mark.skipif(not recorded.PRESENT, reason=recorded.ABSENT)
def test_recorded_evidence() -> None:
    both = 0
    for row in recorded.rows():
        if not row["endorsements"]:
            continue
        quote, offered = recorded.read(row["evidence"]), recorded.read(row["endorsements"][0])
        at = parse_time(row["at"])
        result = appraise_dcap(quote, tee=row["tee"], endorsements=[offered], at=at)
        stated, theirs = result.stated(), peer(quote, offered, at)
        if not isinstance(theirs, str):
            assert theirs == (stated["tcb_status"], stated["advisory_ids"]), row["case"]
            both += 1
        elif result.verdict in ("affirming", "warning"):
            assert any(each in theirs for each in SILENT), (row["case"], theirs)
    assert both == 38


# Made-up platforms: every merge, and levels by chance

PARTS = ("UpToDate", "OutOfDate", "Revoked")


def standing(platform: str, module_status: str, qe: str, shape: IntelForge = GOOD) -> IntelForge:
    date = "2025-05-14T00:00:00Z"
    return plain(
        shape,
        info={
            "tcbLevels": [platform_level(5, 5, platform, date, ["INTEL-SA-1", "INTEL-SA-3"])],
            "tdxModuleIdentities": [module("TDX_01", svn_level(5, module_status, date, ["INTEL-SA-2"]))],
        },
        identity={"tcbLevels": [svn_level(4, qe, date, ["INTEL-SA-3", "INTEL-SA-4"])]},
    )


@pytest.mark.parametrize("statuses", list(product(STATUSES, PARTS, PARTS)), ids="-".join)
def test_every_merge(statuses: tuple[str, str, str]) -> None:
    forge = standing(*statuses)
    theirs, ours = peer_of(forge), ours_of(forge)
    assert ours is not None
    if isinstance(theirs, str):
        assert ours[0] == "Revoked", theirs
    else:
        assert theirs == ours


def by_chance(chance: random.Random) -> IntelForge:
    """A platform near the edges of a handful of levels."""
    near = [(chance.randint(2, 6), chance.choice((10, 11, 12))) for _ in range(3)]
    pick = ("UpToDate", "SWHardeningNeeded", "ConfigurationNeeded", "ConfigurationAndSWHardeningNeeded",
            "OutOfDate", "OutOfDateConfigurationNeeded")  # fmt: skip
    levels = [
        platform_level(
            sgx, chance.randint(2, 6), chance.choice(pick), f"2024-0{sgx}-01T00:00:00Z",
            chance.sample(["INTEL-SA-1", "INTEL-SA-2", "INTEL-SA-3"], chance.randint(0, 3)),
            pcesvn=pcesvn,
        )
        for sgx, pcesvn in sorted(near, reverse=True)
    ]  # fmt: skip
    modules = [
        module(name, *(svn_level(svn, status, f"2024-0{svn}-01T00:00:00Z", [f"INTEL-SA-{svn}"])
                       for svn, status in ((5, "UpToDate"), (3, "OutOfDate"))))
        for name in ("TDX_01", "tdx_03")
    ]  # fmt: skip
    svns = [
        bytes([chance.randint(2, 6), chance.choice((0, 1, 1, 3, 2))])
        + bytes(chance.randint(4, 6) for _ in range(14))
        for _ in range(2)
    ]
    shape = chance.choice((GOOD, TD15, TD15_EX, SGX))
    tdx: dict[str, Any] = {"tdxModuleIdentities": modules} if shape is not SGX else {}
    body = {"tcb_svn": svns[0], "tcb_svn2": svns[1]} if shape is not SGX else {}
    return plain(
        shape,
        body=body,
        components=tuple(chance.randint(4, 6) for _ in range(16)),
        info={"tcbLevels": levels, **tdx},
        qe={"isvsvn": chance.randint(1, 5)},
    )


@pytest.mark.parametrize("seed", range(4))
def test_levels_by_chance(seed: int) -> None:
    chance, decided = random.Random(seed), 0
    for _ in range(60):
        forge = by_chance(chance)
        theirs, ours = peer_of(forge), ours_of(forge)
        if isinstance(theirs, str):
            assert ours is None, (theirs, ours)
        else:
            assert theirs == ours
            decided += 1
    assert decided >= 5


# Where the peer affirms and we do not. Row of the table → evidence, and our reason.

Difference = tuple[Callable[[], Standing | str], Callable[[], list[str]], str]


def _binding() -> IntelForge:
    start = 48 + 584 + 4 + 128 + 6 + 320
    half = plain().quote()[start : start + 32]
    return plain(qe={"report_data": half + bytes(31) + b"\1"})


def _difference(forge: IntelForge, code: str) -> Difference:
    return lambda: peer_of(forge, GOOD.root.der()), lambda: _judged(forge), code


def _judged(forge: IntelForge, **more: Any) -> list[str]:
    return codes(judge(plain(), quote=forge.quote(), endorsements=[forge.collateral()], **more))


def _tail() -> Difference:
    quote, forge = plain().quote() + b"text", plain()
    theirs = lambda: peer(quote, forge.collateral(), NOW, forge.root.der())  # noqa: E731
    return theirs, lambda: codes(judge(forge, quote=quote)), "trailing_bytes"


CHAIN = pem(*GOOD.chain())
ACCEPTED_BY_THE_PEER: dict[str, Difference] = {
    "bytes behind the quote": _tail(),
    "QE report data, upper half": _difference(_binding(), "qe_report_binding_invalid"),
    "a chain without its root": _difference(plain(order=(0, 1)), "pck_chain_malformed"),
    "a certificate repeated": _difference(plain(order=(0, 1, 2, 2)), "pck_chain_malformed"),
    "another certificate for the root's key": _difference(
        plain(root=replace(GOOD.root, serial=99)), "root_not_pinned"
    ),
    "a root out of date": _difference(plain(root=replace(GOOD.root, not_after=days(-1))), "cert_expired"),
    "names of leaf and CA": _difference(
        plain(pck=replace(GOOD.pck, subject="Intel SGX TCB Signing")), "cert_role_invalid"
    ),
    "a leaf that may sign certificates": _difference(
        plain(pck=replace(GOOD.pck, cert_sign=True)), "cert_role_invalid"
    ),
    "a TCB signer with a platform's extension": _difference(
        plain(signer=replace(GOOD.signer, extension=GOOD.sgx_extension())), "collateral_signer_role_invalid"
    ),
    "a CRL from the future": _difference(
        plain(pck_crl=crl(PLATFORM_CN, "ca", (), days(1), days(30))), "crl_not_yet_valid"
    ),
    "PCEID of the TCB info": _difference(plain(info={"pceId": "0001"}), "pceid_mismatch"),
    "an unknown version of TCB info": _difference(plain(info={"version": 4}), "collateral_malformed"),
    "an unknown tcbType": _difference(plain(info={"tcbType": 1}), "collateral_malformed"),
    "an unknown version of the identity": _difference(plain(identity={"version": 3}), "collateral_malformed"),
    "a quote that a VM inside asked for": _difference(plain(TD15_EX, body={"vmid": b"\1"}), "vm_not_allowed"),
    "a service TD that was bound at first": _difference(
        plain(TD15_EX, body={"init_servicetd": b"\1" * 48}), "service_td_not_allowed"
    ),
}


@pytest.mark.parametrize("row", ACCEPTED_BY_THE_PEER)
def test_where_we_refuse_and_the_peer_does_not(row: str) -> None:
    theirs, ours, code = ACCEPTED_BY_THE_PEER[row]
    assert theirs() == ("UpToDate", [])
    assert code in ours()


# Where we give a status and the peer does not

TCB = [member(f"2.{i + 1}", integer(5)) for i in range(16)]
OTHER_CPUSVN = sequence(
    member("1", tlv(0x04, bytes(16))),
    member("2", sequence(*TCB, member("2.17", integer(11)), member("2.18", tlv(0x04, bytes(16))))),
    member("3", tlv(0x04, bytes(2))), member("4", tlv(0x04, bytes.fromhex("00806f050000"))),
    member("5", tlv(0x0A, b"\x01")),
)  # fmt: skip
REFUSED_BY_THE_PEER: dict[str, tuple[IntelForge, dict[str, Any]]] = {
    "MISCSELECT": (GOOD, {}),
    "CPUSVN": (plain(extension=OTHER_CPUSVN), {}),
    "debug": (plain(body={"td_attributes": b"\1\0\0\x10\0\0\0\0"}), {"debug": '"any"'}),
    "SEPT_VE_DISABLE": (plain(body={"td_attributes": bytes(8)}), {"profile": '"azure-paravisor"'}),
    "service TD": (
        plain(TD15, body={"mrservicetd": b"\1" * 48}),
        {"profile": '"service-td"', "mrservicetd": f'["{"01" * 48}"]'},
    ),
    "empty CRL": (plain(pck_crl=None), {"revocation": '"any"'}),
}


@pytest.mark.parametrize("row", REFUSED_BY_THE_PEER)
def test_where_the_peer_gives_no_status_and_we_do(row: str) -> None:
    forge, choices = REFUSED_BY_THE_PEER[row]
    assert isinstance(peer_of(forge), str)
    assert judge(forge, **choices).verdict == "affirming"


def _signed_by_another() -> dict[str, tuple[bytes, bytes]]:
    """Which of the nine signatures does not hold → quote and collateral."""
    good, stranger = plain(), b"\1" * 64
    quote, offered = good.quote(), good.collateral()
    parsed, stated = read_quote(quote), json.loads(offered)
    return {
        "leaf": (plain(pck=replace(GOOD.pck, signer="other")).quote(), offered),
        "CA": (plain(ca=replace(GOOD.ca, signer="other")).quote(), offered),
        "QE report": (quote.replace(parsed.qe_signature, stranger), offered),
        "quote": (quote.replace(parsed.signature, stranger), offered),
        "signer": (quote, plain(signer=replace(GOOD.signer, signer="other")).collateral()),
        "TCB info": (quote, json.dumps({**stated, "tcb_info_signature": stranger.hex()}).encode()),
        "identity": (quote, json.dumps({**stated, "qe_identity_signature": stranger.hex()}).encode()),
        "root CRL": (quote, plain(root_crl=crl(ROOT_CN, "other")).collateral()),
        "PCK CRL": (quote, plain(pck_crl=crl(PLATFORM_CN, "other")).collateral()),
    }


def test_both_check_the_same_nine_signatures() -> None:
    """Otherwise comparing their times would say little."""
    root, changed = GOOD.root.der(), _signed_by_another()
    assert len(changed) == 9
    for name, (quote, offered) in changed.items():
        assert "nvalid" in str(peer(quote, offered, NOW, root)), name
        found = codes(judge(plain(), quote=quote, endorsements=[offered]))
        assert any("signature_invalid" in code for code in found), name


def test_levels_that_do_not_descend() -> None:
    """Intel writes them in descending order. Otherwise the peer sorts; we take the document's order."""
    date = "2025-05-14T00:00:00Z"
    levels = [platform_level(3, 0, "OutOfDate", date, pcesvn=10), platform_level(3, 0, "UpToDate", date)]
    forge = plain(SGX, info={"tcbLevels": levels})
    assert (peer_of(forge), ours_of(forge)) == (("UpToDate", []), ("OutOfDate", []))


THEIR_NAMES = {
    "tcb_svn": "tee_tcb_svn", "mrseam": "mr_seam", "mrsignerseam": "mr_signer_seam", "mrtd": "mr_td",
    "mrconfigid": "mr_config_id", "mrowner": "mr_owner", "mrownerconfig": "mr_owner_config",
    **{f"rtmr{i}": f"rt_mr{i}" for i in range(4)}, "tcb_svn2": "tee_tcb_svn2",
    "mrservicetd": "mr_service_td", "devinfo": "dev_info", "init_servicetd": "init_service_td_hash",
    "init_servicetd_attributes": "init_service_td_attributes", "init_cpusvn": "init_cpu_svn",
    "init_tcb_svn": "init_tee_tcb_svn", "init_fmspc": "init_tee_fmspc",
    "current_servicetd": "cur_service_td_hash", "current_servicetd_attributes": "cur_service_td_attributes",
}  # fmt: skip


@pytest.mark.parametrize("shape", ["v4", "v5 td10", "v5 td15", "v5 td15ex"])
def test_both_read_the_same_fields(shape: str) -> None:
    """Bytes that differ everywhere, so that a field at another place is another field."""
    body = hashlib.shake_256(shape.encode()).digest(885)
    quote = IntelForge(shape=shape).quote()
    start, size = (48, 584) if shape == "v4" else (54, int.from_bytes(quote[50:54], "little"))
    quote = quote[:start] + body[:size] + quote[start + size :]
    theirs, ours = dcap_qvl.parse_quote(quote).report, read_quote(quote).td
    assert ours is not None
    fields = {**ours._asdict(), **(ours.history._asdict() if ours.history else {})}
    told = {
        name: value for name, value in fields.items() if name not in ("raw", "history") and value is not None
    }
    assert len(told) == {584: 15, 648: 17, 885: 27}[size]
    assert {name: getattr(theirs, THEIR_NAMES.get(name, name)) for name in told} == told


def test_both_agree_on_the_good_cases() -> None:
    for forge in (plain(), plain(TD15), plain(TD15_EX), plain(SGX)):
        assert peer_of(forge) == ours_of(forge) == ("UpToDate", [])
    late = plain(info={"nextUpdate": text(days(-1))})
    assert "expired" in str(peer_of(late))
    assert judge(late).reason == "tdx.collateral_expired"


def test_every_disagreement_stands_in_the_document() -> None:
    document = (Path(__file__).parents[3] / "docs" / "attestation-tdx.md").read_text("utf-8")
    rows = {*ACCEPTED_BY_THE_PEER, *REFUSED_BY_THE_PEER, *SILENT.values(), "levels that do not descend"}
    assert {row for row in rows if f"| {row} |" not in document} == set()
