"""The forged vendor's good cases hold in every shape and form of collateral, and never pass for Intel's."""

from __future__ import annotations

import pytest

from attestation.appraise import appraise_dcap
from attestation.tdx.tests.judging import GOOD, SGX, TD15, but, codes, judge
from attestation.testing.intel import IntelForge
from attestation.testing.intel_documents import NOW
from attestation.testing.intel_quote import QUOTE_BODIES


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
        "tcb_current": "affirming" if shape == "v5 td15" else None,
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


def test_the_higher_evaluation_that_fits_is_used() -> None:
    older, newer = but(), but(info={"tcbEvaluationDataNumber": 19}, identity={"tcbEvaluationDataNumber": 19})
    found = judge(GOOD, endorsements=[older.collateral(), newer.collateral()])
    assert found.stated()["tcb_evaluation"] == {"tcb_info": 19, "qe_identity": 19}


def test_every_mismatch_is_listed() -> None:
    found = judge(but(info={"tcbLevels": []}), mrtd=f'["{"00" * 48}"]', rtmr1=f'["{"00" * 48}"]')
    assert codes(found) == ["tcb_level_not_found", "measurement_mismatch", "measurement_mismatch"]
