"""Every reason code, each reached by faults in otherwise good forged evidence."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from attestation.tdx.collateral.shapes import STATUSES
from attestation.tdx.tests.faults import collateral, judgement, origin
from attestation.tdx.tests.faults.listed import FAULTS, Fault
from attestation.tdx.tests.judging import codes

ROOMS = (origin, collateral, judgement)
"""Loading them fills `FAULTS`."""
EXITS = {"contraindicated": 1, "none": 3, "warning": 0}


@pytest.mark.parametrize("each", FAULTS, ids=lambda each: f"{each.code}-{each.name}")
def test_fault(each: Fault) -> None:
    found = each.make()
    assert each.code in codes(found)
    assert (found.verdict, found.exit_code) == (each.verdict, EXITS[each.verdict])
    assert found.reason is not None


ELSEWHERE = {
    # Unreadable, in forms/test_quote.py
    "quote_truncated", "quote_version_unsupported", "att_key_type_unsupported", "tee_type_unsupported",
    "body_type_unsupported", "body_size_mismatch", "sig_data_malformed",
    # Unreadable, in forms/test_forms.py
    "form_malformed",
    # in collateral/tests/test_rollback.py
    "collateral_rollback", "marks_malformed",
    # in log/tests/test_replay.py
    "event_log_malformed", "event_log_missing", "event_log_rtmr_mismatch", "event_digest_mismatch",
}  # fmt: skip


def codes_in_source() -> set[str]:
    """Every literal reason code of the room: checks have names with a further dot."""
    folder = Path(__file__).parents[2]
    files = [file for file in folder.rglob("*.py") if "tests" not in file.parts]
    text = "\n".join(file.read_text() for file in files)
    return set(re.findall(r'"tdx\.([a-z_]+)"', text))


def test_every_code_in_the_source_has_a_fault() -> None:
    assert codes_in_source() - {each.code for each in FAULTS} - ELSEWHERE == set()


def test_every_fault_names_a_code_of_the_source() -> None:
    assert {each.code for each in FAULTS} - codes_in_source() - set(STATUSES) == set()
