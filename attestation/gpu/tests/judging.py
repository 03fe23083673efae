"""What the tests share: one good forged device, judged under expectations that accept its roots alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from typing import Any

from attestation.appraise import appraise_nvidia
from attestation.expected import Expectations
from attestation.result import AttestationResult
from attestation.testing.nvidia import NOW, GpuForge, root_toml
from attestation.testing.nvidia_manifest import (
    SWITCH_INDICES,
    VBIOS_INDICES,
    ManifestForge,
)
from attestation.testing.nvidia_node import SWITCH_VBIOS, VBIOS
from attestation.testing.nvidia_report import NONCE
from attestation.testing.nvidia_status import answers

KEYS = {
    "driver_min": '"any"',
    "vbios": '"any"',
    "modes": '"any"',
    "confidential": '"any"',
    "devtools": '"any"',
}
GOOD = GpuForge()
SWITCH = GpuForge("LS_10")
GB100 = GpuForge("GB100", driver="595.58.03")
GB202 = GpuForge("GB20X", driver="595.58.03")
DRIVER_MANIFEST = ManifestForge()
VBIOS_MANIFEST = ManifestForge(version=VBIOS.upper(), indices=VBIOS_INDICES)


def manifests_of(device: GpuForge) -> list[ManifestForge]:
    if device.kind == "switch":
        return [
            ManifestForge(
                version=SWITCH_VBIOS, product="LS10", edition="SWITCH", indices=SWITCH_INDICES, count=31
            )
        ]
    product = {"GB20X": "GB202"}.get(device.chip, device.chip)
    return [
        replace(DRIVER_MANIFEST, version=device.driver, product=product),
        replace(VBIOS_MANIFEST, product=product),
    ]


def status_of(devices: Sequence[GpuForge]) -> list[bytes]:
    """Good answers about each of them and its manifests."""
    return [answer for each in devices for answer in answers(each, manifests_of(each))]


def collateral(
    device: GpuForge, manifests: Sequence[ManifestForge] | None = None, *, chain: bytes | None = None
) -> list[bytes]:
    """Chain, manifests and good answers about all of them."""
    listed = manifests_of(device) if manifests is None else manifests
    own = device.chain() if chain is None else chain
    return [own, *(each.document() for each in listed), *answers(device, listed)]


def toml(more: str = "", **changes: str | None) -> str:
    """A complete table that the good case meets; a change of None leaves a key out."""
    keys = {**KEYS, **changes}
    lines = ["[nvidia]", *(f"{key} = {value}" for key, value in keys.items() if value is not None)]
    return "\n".join([*lines, more, root_toml()])


@lru_cache
def expect(text: str) -> Expectations:
    return Expectations.parse(text.encode())


def judge(
    device: GpuForge = GOOD,
    *,
    report: bytes | None = None,
    endorsements: Sequence[bytes] | None = None,
    nonce: bytes | None = NONCE,
    waive: bool = False,
    at: datetime = NOW,
    more: str = "",
    **expected: str | None,
) -> AttestationResult:
    return appraise_nvidia(
        device.report() if report is None else report,
        endorsements=collateral(device) if endorsements is None else endorsements,
        expectations=expect(toml(more, **expected)),
        nonce=nonce,
        waive_revocation=waive,
        at=at,
    )


def but(device: GpuForge = GOOD, **changes: Any) -> GpuForge:
    """The device with these fields replaced."""
    return replace(device, **changes)


def codes(result: AttestationResult) -> list[str]:
    """Codes of everything that speaks against it, without the room's name."""
    found = [check for check in result.checks if check.effect != "shown"]
    return [(check.code or "").removeprefix("gpu.") for check in found]
