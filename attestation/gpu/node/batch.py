"""Devices together: one challenge, no device twice, one mode, the expected number (gpu.md 11)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from attestation.gpu.appraise import DeviceAppraisal
from attestation.gpu.expected import GpuPolicy
from attestation.gpu.spdm.opaque import DRIVER, PROTECTED_PCIE
from attestation.result import Check, compared, failed, not_evaluated

CLAUSE: Final = "gpu.md 11"


def check_batch(devices: Sequence[DeviceAppraisal], count: int, policy: GpuPolicy) -> list[Check]:
    """What must hold of all devices together. count: how many were offered, readable or not."""
    return [
        _distinct(devices),
        _nonce(devices),
        _mode(devices),
        _drivers(devices, policy),
        _number(devices, count, "gpu", policy.fabric.gpus),
        _number(devices, count, "switch", policy.fabric.switches),
    ]


def _distinct(devices: Sequence[DeviceAppraisal]) -> Check:
    """No leaf, boot ROM or report twice: one device cannot stand for two."""
    name, wanted = "gpu.batch.distinct", "every device once"
    chains = [each.chain for each in devices if each.chain is not None]
    for what, values in (
        ("ueid", [chain.ueid for chain in chains]),
        ("boot ROM serial", [f"{chain.brom.serial:x}" for chain in chains]),
        ("report", [each.result.identity.hex() for each in devices]),
    ):
        twice = sorted({each for each in values if values.count(each) > 1})
        if twice:
            return failed(name, "gpu.device_duplicate", f"{what} {twice[0]} stands twice", wanted, CLAUSE)
    return compared(name, "gpu.device_duplicate", True, f"{len(devices)} devices", wanted, CLAUSE)


def _nonce(devices: Sequence[DeviceAppraisal]) -> Check:
    nonces = {each.report.nonce for each in devices if each.report is not None}
    holds = len(nonces) <= 1
    seen = f"{len(nonces)} challenges"
    return compared("gpu.batch.nonce", "gpu.batch_nonce_differs", holds, seen, "one for all", CLAUSE)


def _mode(devices: Sequence[DeviceAppraisal]) -> Check:
    """The same feature flag and protected-PCIe state on every GPU; switches state neither."""
    opaques = [each.report.opaque for each in devices if each.report is not None]
    states = {(opaque.feature, opaque.flag(PROTECTED_PCIE)) for opaque in opaques if not opaque.is_switch}
    seen = " and ".join(sorted(f"feature {feature}, protected PCIe {flag}" for feature, flag in states))
    return compared("gpu.batch.mode", "gpu.mode_mixed", len(states) <= 1, seen, "one for all", CLAUSE)


def _drivers(devices: Sequence[DeviceAppraisal], policy: GpuPolicy) -> Check:
    name = "gpu.batch.drivers"
    found = {each.report.opaque.text(DRIVER) for each in devices if each.report is not None} - {None}
    seen = ", ".join(sorted(map(str, found)))
    if not policy.fabric.equal_drivers:
        return not_evaluated(name, f"not demanded: {seen}", "[nvidia.fabric] drivers")
    return compared(name, "gpu.driver_mixed", len(found) <= 1, seen, "one for all", "[nvidia.fabric] drivers")


def _number(devices: Sequence[DeviceAppraisal], count: int, kind: str, wanted: int | None) -> Check:
    name, clause = f"gpu.batch.{kind}_count", f"[nvidia.fabric] {'gpus' if kind == 'gpu' else 'switches'}"
    number = sum(1 for each in devices if each.family is not None and each.family.kind == kind)
    if wanted is None:
        return not_evaluated(name, f"not demanded: {number} of {count}", clause)
    return compared(name, "gpu.topology_incomplete", number == wanted, str(number), str(wanted), clause)
