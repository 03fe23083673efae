"""What a relying party may choose, by name: profiles, masks, platforms, waivers; and what it must state."""

from __future__ import annotations

from typing import Any

import pytest

from attestation.appraise import appraise_dcap
from attestation.expected import Expectations
from attestation.tdx.tests import recorded
from attestation.tdx.tests.judging import GOOD, SGX, SGX_KEYS, TD15, TD15_EX, TDX_KEYS, but, judge, toml
from attestation.testing.intel import IntelForge
from attestation.testing.intel_documents import NOW
from schemas.canonical import sha256
from schemas.errors import ConfigurationError
from schemas.primitives import parse_time

PARAVISOR = but(body={"td_attributes": bytes(8)})
SERVED = but(TD15, body={"mrservicetd": b"\1" * 48})


def test_an_azure_paravisor_is_a_choice_by_name() -> None:
    assert judge(PARAVISOR).reason == "tdx.td_attributes_not_allowed"
    found = judge(PARAVISOR, profile='"azure-paravisor"')
    assert found.verdict == "affirming"
    assert "paravisor" in found.check("tdx.policy.profile").seen


def test_a_service_td_is_a_choice_by_name_and_by_digest() -> None:
    listed = f'["{"01" * 48}"]'
    assert judge(SERVED).reason == "tdx.service_td_not_allowed"
    assert judge(SERVED, profile='"service-td"', mrservicetd=listed).verdict == "affirming"
    assert judge(SERVED, profile='"service-td"', mrservicetd='"any"').waived.count("tdx.mrservicetd") == 1
    wrong: list[dict[str, Any]] = [{"mrservicetd": listed}, {"profile": '"service-td"'}, {"profile": '"any"'}]
    for keys in wrong:
        with pytest.raises(ConfigurationError):
            judge(SERVED, **keys)


MOVED = but(
    TD15_EX,
    body={"mrservicetd": b"\1" * 48, "init_servicetd": b"\2" * 48, "current_servicetd": b"\1" * 48,
          "td_id": b"\7" * 32, "init_tcb_svn": b"\3" * 16, "init_fmspc": b"\4" * 12},
)  # fmt: skip


def test_an_extended_report_names_every_service_td_that_was_bound() -> None:
    both = f'["{"01" * 48}", "{"02" * 48}"]'
    found = judge(MOVED, profile='"service-td"', mrservicetd=both)
    assert found.verdict == "affirming"
    stated = found.stated()
    assert stated["body_type"] == "TD1.5ex"
    assert (stated["vmid"], stated["td_id"]) == (0, "07" * 32)
    assert (stated["init_server_td_hash"], stated["curr_server_td_hash"]) == ("02" * 48, "01" * 48)
    assert (stated["init_tee_tcb_svn"], stated["init_tee_fmspc"]) == ("03" * 16, "04" * 12)
    now = judge(MOVED, profile='"service-td"', mrservicetd=f'["{"01" * 48}"]')
    assert now.reason == "tdx.service_td_not_allowed"
    assert now.check("tdx.policy.mrservicetd").seen == "02" * 48


def test_a_quote_that_a_vm_inside_asked_for_is_a_paravisors_guest() -> None:
    inside = but(TD15_EX, body={"vmid": b"\2"})
    assert judge(inside).reason == "tdx.vm_not_allowed"
    assert "VM 2" in judge(inside).check("tdx.policy.profile").seen
    assert judge(inside, profile='"azure-paravisor"').verdict == "affirming"


def test_without_expectations_a_service_td_and_a_paravisor_are_shown_not_judged() -> None:
    for forge in (SERVED, PARAVISOR):
        found = appraise_dcap(forge.quote(), tee="tdx", endorsements=[forge.collateral()], at=NOW)
        assert [check.code for check in found.checks if check.effect == "contraindicated"] == [
            "tdx.root_not_pinned", "tdx.root_not_pinned", "tdx.root_not_pinned"
        ]  # fmt: skip


@pytest.mark.parametrize(("forge", "keys"), [(GOOD, TDX_KEYS), (SGX, SGX_KEYS)], ids=["tdx", "sgx"])
def test_every_expectation_is_stated_or_waived(forge: IntelForge, keys: dict[str, str]) -> None:
    for key in keys:
        with pytest.raises(ConfigurationError, match=key):
            Expectations.parse(toml(forge, **{key: None}).encode())
    assert set(judge(forge).waived) == {f"{forge.tee}.{k}" for k, v in keys.items() if v == '"any"'}


@pytest.mark.parametrize(
    "change",
    [
        {"mrtd": '["00"]'}, {"mrtd": "[]"}, {"td_attributes": '{ required = "00" }'}, {"xfam": '"none"'},
        {"td_attributes": '{ required = "0100000000000000", forbidden = "0100000000000000" }'},
        {"tcb_date_min": '"soon"'}, {"evaluation_min": "-1"}, {"evaluation_difference": "-1"},
        {"event_log": '["rtmr4"]'}, {"debug": '"allow"'}, {"revocation": '"never"'}, {"fmspcs": '["00"]'},
        {"platforms": '"x"'}, {"sgx_types": '["huge"]'}, {"platform_refused": '["slow"]'},
        {"collateral_max_age_days": "0"}, {"collateral_max_age_days": "true"}, {"unknown": "1"},
        {"advisories_tolerated": "[1]"},
    ],
)  # fmt: skip
def test_an_expectation_that_means_nothing_is_an_error(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        judge(GOOD, **change)


def test_several_values_of_each_identity() -> None:
    assert judge(GOOD, mrtd=f'["{"77" * 48}", "{"11" * 48}"]').verdict == "affirming"


def test_masks_that_hold() -> None:
    mask = '{ required = "0000001000000000", forbidden = "ff00000000000000" }'
    assert judge(GOOD, td_attributes=mask).verdict == "affirming"


def test_debug_passes_only_with_a_waiver_that_is_named() -> None:
    debug = but(body={"td_attributes": b"\1\0\0\x10\0\0\0\0"})
    found = judge(debug, debug='"any"')
    assert (found.verdict, found.debug) == ("affirming", True)
    assert "tdx.debug" in found.waived


def test_platform_rules_that_hold() -> None:
    digest = sha256(GOOD.ppid).hex()
    found = judge(
        GOOD, fmspcs='["00806F050000"]', platforms=f'["{digest}"]', platforms_denied=f'["{"00" * 32}"]',
        sgx_types='["scalable"]', fmspcs_denied='["000000000000"]',
    )  # fmt: skip
    assert found.verdict == "affirming"
    assert found.check("tdx.policy.platform").status == "pass"


@pytest.mark.parametrize("missing", ["pck_crl", "root_crl"])
def test_a_waiver_forgives_a_missing_crl_and_is_named(missing: str) -> None:
    found = judge(but(**{missing: None}), waive=True)
    assert (found.verdict, found.waived[0]) == ("affirming", "revocation")
    assert judge(but(**{missing: None}), revocation='"any"').verdict == "affirming"


def test_collateral_that_is_young_enough() -> None:
    found = judge(GOOD, collateral_max_age_days="11")
    assert found.verdict == "affirming"
    assert found.valid_until == NOW.timestamp() + 86_400


def test_an_adjacent_evaluation_is_shown_and_may_be_allowed() -> None:
    adjacent = but(identity={"tcbEvaluationDataNumber": 17})
    assert judge(adjacent).stated()["notes"] == ["collateral_eval_mismatch"]
    assert judge(adjacent, evaluation_difference="1").verdict == "affirming"


def test_a_nonce_is_the_whole_report_data() -> None:
    assert judge(GOOD, nonce=b"\x33" * 64).verdict == "affirming"


@pytest.mark.skipif(not recorded.PRESENT, reason=recorded.ABSENT)
@pytest.mark.parametrize(
    ("profile", "verdict", "reason"),
    [
        ("guest", "contraindicated", "tdx.td_attributes_not_allowed"),
        ("azure-paravisor", "warning", "tdx.OutOfDate"),
    ],
)
def test_a_genuine_paravisor(profile: str, verdict: str, reason: str) -> None:
    """A cloud's TD whose SEPT_VE_DISABLE is clear, under a TCB that these expectations accept."""
    (row,) = [each for each in recorded.rows() if "a187b0-eval17" in each["case"]]
    keys = "\n".join(f'{key} = "any"' for key in TDX_KEYS)
    text = f'[tdx]\n{keys}\nprofile = "{profile}"\ntcb_status = ["UpToDate", "OutOfDate"]\n'
    found = appraise_dcap(
        recorded.read(row["evidence"]), tee="tdx", expectations=Expectations.parse(text.encode()),
        endorsements=[recorded.read(each) for each in row["endorsements"]], at=parse_time(row["at"]),
    )  # fmt: skip
    assert found.verdict == verdict
    assert reason in {check.code for check in found.checks}
    assert found.check("tdx.policy.profile").seen.startswith("SEPT_VE_DISABLE clear")
