"""What a report states and how it was evaluated, as plain JSON. Display only: nothing is judged here."""

from __future__ import annotations

from collections.abc import Sequence

from attestation.gpu.pki.chain import DeviceChain, Family
from attestation.gpu.policy import mode_of
from attestation.gpu.rim.issues import Chosen
from attestation.gpu.spdm.opaque import COUNTERS, DRIVER, FWID, NAMES, NVDEC0, PROTECTED_PCIE, Opaque
from attestation.gpu.spdm.report import Report
from attestation.gpu.verify import date
from schemas.canonical import Json

CANNOT_SAY = (
    "whether confidential mode is on", "whether devtools are on", "which CPU the device is attached to",
    "where the device stands",
)  # fmt: skip
"""What no report of NVIDIA's states, shown with every result (gpu.md 2, 10)."""


def state_device(
    report: Report | None, chain: DeviceChain | None, family: Family | None, manifests: Sequence[Chosen]
) -> dict[str, Json]:
    """Device, firmware, chain and manifests; what could not be read is absent."""
    return {
        **({} if report is None else state_report(report)),
        **({} if chain is None else _chain(chain)),
        "architecture": family.architecture if family else None,
        "chip": family.chip if family else None,
        "manifests": {each.slot.name: _manifest(each) for each in manifests},
        "cannot_say": list(CANNOT_SAY),
    }


def state_report(report: Report) -> dict[str, Json]:
    """Every field of the report by name."""
    opaque = report.opaque
    return {
        "kind": "switch" if opaque.is_switch else "gpu",
        "identity": report.identity.hex(),
        "nonce": report.nonce.hex(),
        "driver": opaque.text(DRIVER),
        "vbios": opaque.vbios,
        "mode": mode_of(opaque),
        "feature_flag": opaque.feature,
        "protected_pcie": _switch(opaque.flag(PROTECTED_PCIE)),
        "nvdec0": _switch(opaque.flag(NVDEC0)),
        "fwid": opaque.fields[FWID].hex() if FWID in opaque.fields else None,
        "measurement_blocks": len(report.measurements),
        "trailing_bytes": len(report.tail),
        "opaque_types": list(opaque.fields),
        "opaque": _opaque(opaque),
        "measurements": {str(index): value.hex() for index, value in report.measurements.items()},
    }


def _opaque(opaque: Opaque) -> dict[str, Json]:
    """The raw fields, less those that are long and shown elsewhere."""
    return {
        NAMES.get(kind, f"type_{kind}"): value.hex()
        for kind, value in opaque.fields.items()
        if kind not in (COUNTERS, FWID)
    }


def _switch(value: bool | None) -> Json:
    return None if value is None else "on" if value else "off"


def _chain(chain: DeviceChain) -> dict[str, Json]:
    return {
        "leaf": chain.leaf.common_name,
        "ueid": chain.ueid,
        "brom_serial": f"{chain.brom.serial:x}",
        "pdi": chain.pdi.hex() if chain.pdi else None,
        "root": {"certificate": chain.root.fingerprint, "key": chain.root.spki_fingerprint},
    }


def _manifest(chosen: Chosen) -> dict[str, Json]:
    manifest = chosen.manifest
    found: dict[str, Json] = {"id": chosen.slot.id, "issues": dict(chosen.outcomes)}
    if manifest is None:
        return found
    return found | {
        "sha256": manifest.digest,
        "version": manifest.version,
        "tag_id": manifest.tag_id,
        "signer": {
            "subject": manifest.chain[0].common_name,
            "serial": f"{manifest.chain[0].serial:x}",
            "not_before": date(manifest.chain[0].not_before),
            "not_after": date(manifest.chain[0].not_after),
        },
        "golden": len(manifest.golden),
        "mismatched": [each.index for each in chosen.mismatches],
        "mismatches": [each.text for each in chosen.mismatches],
    }
