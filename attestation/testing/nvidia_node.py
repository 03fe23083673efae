"""A made-up board of eight GPUs and four switches, linked as an HGX board is, with any of it put wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from attestation.testing.nvidia import GpuForge
from attestation.testing.nvidia_manifest import manifests_for
from attestation.testing.nvidia_report import NONCE
from schemas.proof.evidence import DeviceEvidence, DeviceState

LINKS: Final = (5, 5, 4, 4)
"""Links from each GPU to each of the four switches; 18 in all."""
SWITCH_VBIOS: Final = "96.10.55.00.01"
VBIOS: Final = "96.00.9f.00.01"
PRODUCTION: Final = DeviceState(confidential=True, environment="production", devtools=False)


@dataclass(frozen=True)
class BoardForge:
    """Devices that know one another, good until a field is replaced. As on a real board each GPU's links
    lie in an order of its own, and nothing else that it states differs from its neighbours'."""

    nonce: bytes = NONCE
    gpus: int = 8
    switches: int = 4
    links: Sequence[int] = LINKS
    changes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """`gpu3`, `switch1` → fields of its `GpuForge` that differ."""
    first: int = 0
    """Number of the first device: another board has other ones."""

    def devices(self) -> dict[str, GpuForge]:
        """By name, GPUs first."""
        gpus = [GpuForge(number=self.first + n, nonce=self.nonce) for n in range(self.gpus)]
        switches = [GpuForge("LS_10", number=self.first + n, nonce=self.nonce) for n in range(self.switches)]
        slots = [s.pdi[::-1] for s, n in zip(switches, self.links, strict=False) for _ in range(n)]
        wired = {
            f"gpu{n}": replace(
                gpu, fields={21: b"\xaa", 22: b"".join(slots[n:] + slots[:n]).ljust(144, b"\0")}
            )
            for n, gpu in enumerate(gpus)
        }
        pdis = b"".join(gpu.pdi for gpu in gpus).ljust(64, b"\0")
        for n, switch in enumerate(switches):
            ports = bytes(g for g in range(self.gpus) for _ in range(self.links[n])).ljust(64, b"\xff")
            wired[f"switch{n}"] = replace(switch, fields={26: pdis + ports, 24: bytes((n, 0))})
        return {name: self._changed(name, device) for name, device in wired.items()}

    def _changed(self, name: str, device: GpuForge) -> GpuForge:
        change = dict(self.changes.get(name, {}))
        fields = {**device.fields, **change.pop("fields", {})}
        return replace(device, fields=fields, **change)

    def evidence(self, state: DeviceState | None = PRODUCTION) -> list[DeviceEvidence]:
        """As it stands in a `NodeEvidence`, without manifests: those are common."""
        return [
            DeviceEvidence(
                kind="switch" if device.kind == "switch" else "gpu",
                report=device.report(),
                endorsements=[device.chain()],
                state=state if device.kind == "gpu" else None,
            )
            for device in self.devices().values()
        ]


def board_manifests() -> list[bytes]:
    """The manifests of such a board."""
    return [*manifests_for("GH100", "550.90.07", VBIOS), *manifests_for("LS_10", "", SWITCH_VBIOS)]
