"""Is this genuine device what the relying party asked for (`GpuPolicy`), check by check.

Only what expectations state is judged here. What a report cannot say (whether confidential mode is on,
whether devtools are) is taken from the attested guest, and undecided where there is none.
"""

from __future__ import annotations

from typing import Final

from attestation.gpu.expected import GpuPolicy
from attestation.gpu.pki.chain import Family
from attestation.gpu.spdm.opaque import DRIVER, PROTECTED_PCIE, Opaque
from attestation.gpu.spdm.report import Report
from attestation.gpu.verify import version_of
from attestation.result import Check, compared, failed, not_evaluated, passed, undecided
from attestation.toml import ANY
from schemas.proof.evidence import DeviceState

_NAMES: Final = ("gpu.policy.chip", "gpu.policy.driver", "gpu.policy.vbios", "gpu.policy.mode")


def mode_of(opaque: Opaque) -> str:
    """`single`, `multi`, `ppcie`, or `unstated` (gpu.md 2, fields 21 and 36)."""
    if opaque.feature is not None:
        return opaque.feature
    return "ppcie" if opaque.flag(PROTECTED_PCIE) else "unstated"


def check_demands(
    report: Report | None, family: Family | None, state: DeviceState | None, policy: GpuPolicy
) -> list[Check]:
    """Every demand; none is skipped because a field is absent."""
    if report is None or family is None:
        return [not_evaluated(name, "no report of a known chip", "[nvidia]") for name in _NAMES]
    return [
        _chip(family, policy),
        _driver(report, family, policy),
        _vbios(report, policy),
        _mode(report, family, policy),
        *_guest(family, state, policy),
    ]


def _chip(family: Family, policy: GpuPolicy) -> Check:
    if policy.chips is None:
        return not_evaluated("gpu.policy.chip", f"waived: {family.chip}", "[nvidia] chips")
    return compared(
        "gpu.policy.chip", "gpu.chip_not_allowed", family.chip in policy.chips, family.chip,
        f"one of {', '.join(sorted(policy.chips))}", "[nvidia] chips",
    )  # fmt: skip


def _driver(report: Report, family: Family, policy: GpuPolicy) -> Check:
    """A switch has no driver of its own."""
    name, clause, seen = "gpu.policy.driver", "[nvidia] driver_min", report.opaque.text(DRIVER)
    if policy.driver_min is None or family.kind == "switch":
        return not_evaluated(name, f"not demanded: {seen}", clause)
    wanted = ".".join(map(str, policy.driver_min))
    holds = version_of(seen) >= policy.driver_min
    return compared(name, "gpu.driver_below_floor", holds, str(seen), f"at least {wanted}", clause)


def _vbios(report: Report, policy: GpuPolicy) -> Check:
    name, clause, seen = "gpu.policy.vbios", "[nvidia] vbios", report.opaque.vbios
    if policy.vbios is None:
        return not_evaluated(name, f"waived: {seen}", clause)
    wanted = f"one of {len(policy.vbios)} listed"
    return compared(name, "gpu.vbios_not_allowed", seen in policy.vbios, str(seen), wanted, clause)


def _mode(report: Report, family: Family, policy: GpuPolicy) -> Check:
    """Whether GPUs work alone, together, or behind protected PCIe. A switch does not say."""
    name, clause, seen = "gpu.policy.mode", "[nvidia] modes", mode_of(report.opaque)
    if policy.modes is None or family.kind == "switch":
        return not_evaluated(name, f"not demanded: {seen}", clause)
    wanted = f"one of {', '.join(sorted(policy.modes))}"
    return compared(name, "gpu.mode_not_allowed", seen in policy.modes, seen, wanted, clause)


def _guest(family: Family, state: DeviceState | None, policy: GpuPolicy) -> list[Check]:
    """What only the attested guest can say of its GPUs (gpu.md 2)."""
    if family.kind == "switch":
        return []
    return [_confidential(state, policy), _devtools(state, policy)]


def _confidential(state: DeviceState | None, policy: GpuPolicy) -> Check:
    name, clause, wanted = "gpu.policy.confidential", "[nvidia] confidential", "on, in production"
    if policy.confidential == ANY:
        return not_evaluated(name, "waived: a report does not say it", clause)
    if state is None:
        seen = "a report does not say it, and no attested guest does"
        return undecided(name, "gpu.cc_mode_unproven", seen, wanted, clause)
    seen = f"{'on' if state.confidential else 'off'}, {state.environment}"
    if state.confidential and state.environment == "production":
        return passed(name, seen, wanted, clause)
    return failed(name, "gpu.mode_not_allowed", seen, wanted, clause)


def _devtools(state: DeviceState | None, policy: GpuPolicy) -> Check:
    name, clause = "gpu.policy.devtools", "[nvidia] devtools"
    if policy.devtools == ANY:
        return not_evaluated(name, "waived: a report does not say it", clause)
    if state is None:
        seen = "a report does not say it, and no attested guest does"
        return undecided(name, "gpu.cc_mode_unproven", seen, "off", clause)
    holds = not state.devtools
    return compared(name, "gpu.devtools_on", holds, "off" if holds else "on", "off", clause)
