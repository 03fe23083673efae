"""How statuses merge, what a relaunch mends, and when a grace ends (PCS API v4; tdx.md 4.4 to 4.6)."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import product

import pytest

from attestation.tdx.collateral.shapes import STATUSES
from attestation.tdx.tcb.grace import AGED
from attestation.tdx.tcb.levels import merge, relaunched
from attestation.tdx.tests.judging import GOOD, TD15, but, judge
from attestation.testing.intel_documents import platform_level, svn_level
from schemas.errors import ConfigurationError

MERGED = {
    # platform: with an out-of-date part
    "UpToDate": "OutOfDate",
    "SWHardeningNeeded": "OutOfDate",
    "ConfigurationNeeded": "OutOfDateConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded": "OutOfDateConfigurationNeeded",
    "OutOfDate": "OutOfDate",
    "OutOfDateConfigurationNeeded": "OutOfDateConfigurationNeeded",
    "Revoked": "Revoked",
}
PARTS = ("UpToDate", "OutOfDate", "Revoked")


@pytest.mark.parametrize(("platform", "module", "qe"), list(product(STATUSES, PARTS, PARTS)))
def test_every_merge(platform: str, module: str, qe: str) -> None:
    wanted = MERGED[platform] if "OutOfDate" in (module, qe) else platform
    assert merge(platform, [module, qe]) == ("Revoked" if "Revoked" in (module, qe) else wanted)


MENDED = ("UpToDate", "SWHardeningNeeded", "ConfigurationNeeded", "ConfigurationAndSWHardeningNeeded")


@pytest.mark.parametrize(("launch", "current"), list(product(STATUSES, STATUSES)))
def test_every_relaunch(launch: str, current: str) -> None:
    wanted = launch
    if launch in ("OutOfDate", "OutOfDateConfigurationNeeded") and current in MENDED:
        configuration = "Configuration" in launch + current
        wanted = "TDRelaunchAdvisedConfigurationNeeded" if configuration else "TDRelaunchAdvised"
    assert relaunched(launch, current) == wanted


OLD_MODULE = bytes([2, 1]) + bytes([5]) * 14


@pytest.mark.parametrize(
    ("platform", "wanted"),
    [("UpToDate", "TDRelaunchAdvised"), ("ConfigurationNeeded", "TDRelaunchAdvisedConfigurationNeeded")],
)
def test_a_guest_that_was_launched_under_an_older_module(platform: str, wanted: str) -> None:
    levels = {"tcbLevels": [platform_level(5, 5, platform, "2025-05-14T00:00:00Z")]}
    forge = but(TD15, body={"tcb_svn": OLD_MODULE}, info=levels)
    found = judge(forge)
    assert found.stated()["tcb_status"] == wanted
    assert found.reason == "tdx.tcb_status_not_accepted"
    accepted = judge(forge, tcb_status=f'["UpToDate", "{wanted}"]')
    assert (accepted.verdict, accepted.reason) == ("warning", f"tdx.{wanted}")


def test_launch_and_current_have_verdicts_of_their_own() -> None:
    found = judge(but(TD15, body={"tcb_svn2": bytes([5, 1]) + bytes([2]) * 14}))
    assert found.check("tdx.tcb.launch").status == "pass"
    assert found.check("tdx.tcb.current").code == "tdx.tcb_level_not_found"
    assert found.stated()["tcb_status"] is None


# The good TCB info has a level of 2025-05-14 that is up to date; below it stands an out-of-date one.
BEHIND = but(components=(3,) * 16, body={"tcb_svn": bytes([5, 1]) + bytes([3]) * 14})
NEXT_LEVEL = datetime(2025, 5, 14, tzinfo=UTC)


def grace(status: str = "OutOfDate", days: int = 300, until: str = "2027-01-01T00:00:00Z") -> str:
    return f'[{{ status = "{status}", days = {days}, until = "{until}" }}]'


def test_grace_runs_from_the_date_of_the_level_that_was_missed() -> None:
    found = judge(BEHIND, grace=grace(days=292))
    assert (found.verdict, found.reason) == ("warning", "tdx.OutOfDate")
    assert "in grace until 2026-03-02T00:00:00Z" in found.check("tdx.tcb.status").seen
    assert found.valid_until == datetime(2026, 3, 2, tzinfo=UTC).timestamp()
    over = judge(BEHIND, grace=grace(days=291))
    assert over.reason == "tdx.tcb_status_not_accepted"
    assert "grace ended 2026-03-01T00:00:00Z" in over.check("tdx.tcb.status").seen


def test_grace_ends_on_the_day_that_policy_names() -> None:
    assert judge(BEHIND, grace=grace(days=366, until="2026-03-01T12:00:00Z")).verdict == "warning"
    assert judge(BEHIND, grace=grace(days=366, until="2026-03-01T11:59:59Z")).verdict == "contraindicated"


def test_the_part_that_fell_behind_first_decides() -> None:
    identity = {"tcbLevels": [svn_level(5, "UpToDate", "2025-04-01T00:00:00Z"),
                              svn_level(4, "OutOfDate", "2024-03-13T00:00:00Z")]}  # fmt: skip
    found = judge(but(BEHIND, identity=identity), grace=grace(days=366))
    assert "in grace until 2026-04-02" in found.check("tdx.tcb.status").seen


def test_grace_is_for_what_ages_alone() -> None:
    assert judge(BEHIND, grace=grace("OutOfDateConfigurationNeeded")).verdict == "contraindicated"
    revoked = but(info={"tcbLevels": [platform_level(5, 5, "Revoked", "2025-05-14T00:00:00Z")]})
    assert judge(revoked, grace=grace()).reason == "tdx.tcb_revoked"
    no_better = but(info={"tcbLevels": [platform_level(5, 5, "OutOfDate", "2025-05-14T00:00:00Z")]})
    assert judge(no_better, grace=grace()).reason == "tdx.tcb_status_not_accepted"


@pytest.mark.parametrize(
    "text",
    [
        grace("UpToDate"), grace("Revoked"), grace("ConfigurationNeeded"), grace(days=0), grace(days=367),
        grace(until="soon"), '[{ status = "OutOfDate", days = 3 }]', '[{ days = 3 }]',
        '[{ status = "OutOfDate", days = "any", until = "2027-01-01T00:00:00Z" }]',
        f"{grace()[:-1]}, {grace()[1:]}", grace().replace("days", "weeks"),
    ],
)  # fmt: skip
def test_grace_is_stated_in_full(text: str) -> None:
    with pytest.raises(ConfigurationError):
        judge(GOOD, grace=text)


def test_no_switch_accepts_revoked() -> None:
    with pytest.raises(ConfigurationError):
        judge(GOOD, tcb_status='["Revoked"]')
    assert "Revoked" not in AGED
