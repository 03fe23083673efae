"""Real quotes through the command line: the verdict, exit code, reason and facts that hardware deserves."""

from __future__ import annotations

import json
from typing import Any

import pytest

from attestation.appraise import appraise_dcap
from attestation.commands import main
from attestation.tdx.tests import recorded
from attestation.tdx.tests.judging import GOOD, SGX
from schemas.primitives import parse_time

pytestmark = pytest.mark.skipif(not recorded.PRESENT, reason=recorded.ABSENT)

FACTS = (
    "fmspc", "pceid", "pcesvn", "pck_ca", "tcb_status", "advisory_ids", "tcb_parts", "current_tcb_status",
    "debug", "td_attributes", "sept_ve_disable", "trailing_bytes", "body_type", "mrtd", "rtmr", "notes",
)  # fmt: skip
"""Members of `expected` that the result states under the same name."""


@pytest.mark.parametrize("row", recorded.rows(), ids=lambda row: row["case"])
def test_case(row: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["verify", "--tee", row["tee"], str(recorded.FOLDER / row["evidence"]), "--at", row["at"]]
    for path in row["endorsements"]:
        arguments += ["--endorsements", str(recorded.FOLDER / path)]
    for waiver in row["waive"]:
        arguments += ["--waive", waiver]
    if row["nonce"]:
        arguments += ["--nonce", row["nonce"]]
    exit_code = main([*arguments, "--json"])
    printed = json.loads(capsys.readouterr().out)
    assert (exit_code, printed["verdict"]) == (EXITS[row["verdict"]], row["verdict"])
    assert exit_code in row["exit"]
    reasons = row["why"].split(",") if row["verdict"] != "affirming" else [""]
    assert (printed["reason"] or "").removeprefix("tdx.") in reasons
    wanted = recorded.case(row)["expected"]
    stated = printed["evidence"]
    for fact in FACTS:
        if wanted.get(fact) is not None and (fact in stated or "pck_chain_malformed" not in reasons):
            assert stated[fact] == wanted[fact], fact
    if "tcb_status" in wanted:
        assert stated["tcb_status"] == wanted["tcb_status"]
    for name, holds in wanted["links"].items():
        found = stated_link(printed, name)
        malformed = (
            name == "pck_chain" and "pck_chain_malformed" in reasons
        )  # it links, but is no chain of three
        if holds is not None and found is not None and not malformed:
            assert found == holds, name
    if row["case"].endswith("_fail"):
        assert printed["verdict"] not in ("affirming", "warning")


EXITS = {"affirming": 0, "warning": 0, "contraindicated": 1, "none": 3}
LINKS = {
    "quote_signature": "quote_signature",
    "qe_report_binding": "qe_report_binding",
    "qe_report_signature": "qe_report_signature",
    "pck_chain": "pck_chain",
    "root_pinned": "root",
}


def stated_link(printed: dict[str, Any], name: str) -> bool | None:
    """Whether that link holds; None where it could not be looked at."""
    for check in printed["checks"]:
        if check["check"] == f"tdx.authenticity.{LINKS[name]}":
            return {"pass": True, "fail": False}.get(check["status"])
    raise KeyError(name)


WITH_A_COMPLETE_SET = [row for row in recorded.rows() if row["verdict"] in ("affirming", "warning")]


@pytest.mark.parametrize("row", WITH_A_COMPLETE_SET, ids=lambda row: row["case"])
def test_a_whole_folder_of_collateral_gives_the_same(row: dict[str, Any]) -> None:
    """All platforms', all dates', and sets that were damaged on purpose: each piece stands for itself."""
    offered = [file.read_bytes() for file in sorted((recorded.FOLDER / "tdx" / "collateral").iterdir())]
    found = appraise_dcap(
        recorded.read(row["evidence"]), tee=row["tee"], endorsements=offered, at=parse_time(row["at"]),
        waive_revocation="revocation" in row["waive"],
    )  # fmt: skip
    assert found.verdict == row["verdict"]


STRANGERS = [
    piece
    for forge in (GOOD, SGX)
    for piece in (forge.collateral(), *forge.pieces(), *forge.chain(), forge.evaluations())
]


@pytest.mark.parametrize("row", WITH_A_COMPLETE_SET, ids=lambda row: row["case"])
def test_a_made_up_vendors_collateral_in_the_same_folder_changes_nothing(row: dict[str, Any]) -> None:
    """It bears Intel's names, is current at other times, and stands first."""
    offered = [*STRANGERS, *(recorded.read(each) for each in row["endorsements"])]
    found = appraise_dcap(
        recorded.read(row["evidence"]), tee=row["tee"], endorsements=offered, at=parse_time(row["at"]),
        waive_revocation="revocation" in row["waive"],
    )  # fmt: skip
    assert found.verdict == row["verdict"]
