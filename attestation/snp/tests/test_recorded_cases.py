"""Real reports through the command line: the verdict, exit code and reason that hardware deserves."""

from __future__ import annotations

import json
from typing import Any

import pytest

from attestation.commands import main
from attestation.tests import recorded

pytestmark = pytest.mark.skipif(not recorded.PRESENT, reason=recorded.ABSENT)


@pytest.mark.parametrize("row", recorded.snp_rows(), ids=lambda row: row["case"])
def test_case(row: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "verify",
        "--tee",
        "snp",
        str(recorded.FOLDER / row["evidence"]),
        "--at",
        row["at"],
        "--json",
    ]
    for path in row["endorsements"]:
        arguments += ["--endorsements", str(recorded.FOLDER / path)]
    for waiver in row["waive"]:
        arguments += ["--waive", waiver]
    if row["nonce"]:
        arguments += ["--nonce", row["nonce"]]
    assert main(arguments) in row["exit"]
    printed = json.loads(capsys.readouterr().out)
    assert printed["verdict"] == row["verdict"]
    assert (printed["reason"] or "") == row["why"]
    if row["case"].endswith("_fail"):
        assert printed["verdict"] != "affirming"
