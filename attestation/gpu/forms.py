"""The forms in which NVIDIA evidence arrives, told apart by content.

One report; a service request with several devices; a manifest or a service token, to be judged by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from attestation.gpu.documents import read_devices
from attestation.gpu.node.devices import DeviceInput
from attestation.gpu.spdm.report import is_report
from schemas.canonical import read_json
from schemas.errors import Refused, Unreadable
from schemas.proof.evidence import NodeEvidence

MAX_REQUEST_BYTES: Final = 1024 * 1024  # 64 devices with their chains
REPORT_FILE: Final = "report.bin"


@dataclass(frozen=True, slots=True)
class Devices:
    """One or several devices."""

    inputs: tuple[DeviceInput, ...]
    together: bool
    """Whether they came as one node; a single report is judged by itself."""


@dataclass(frozen=True, slots=True)
class ManifestFile:
    data: bytes


@dataclass(frozen=True, slots=True)
class TokenFile:
    data: bytes


def unwrap(data: bytes) -> Devices | ManifestFile | TokenFile:
    """What kind of evidence this is. Raises `Unreadable` (`gpu.report_malformed`)."""
    if is_report(data):
        return Devices((DeviceInput(data),), together=False)
    match data.lstrip()[:1]:
        case b"<":
            return ManifestFile(data)
        case b"[":
            return TokenFile(data)
        case b"{":
            return read_request(data)
    raise _no("neither a report, a service request, a manifest, nor a service token")


def read_request(data: bytes) -> Devices:
    """The request that a node sends to NVIDIA's service (gpu.md 9, endpoints). Raises `Unreadable`."""
    stated = read_json(data, limit=MAX_REQUEST_BYTES)
    try:
        devices = read_devices(stated.get("evidence_list") if isinstance(stated, dict) else None)
    except Refused as error:
        raise _no(error.text) from None
    return Devices(tuple(DeviceInput(report, (chain,)) for report, chain in devices), together=True)


def devices_in(files: Mapping[str, Mapping[str, bytes]]) -> Devices:
    """A folder with a report, or with a folder for each device: name → file name → content.

    Everything beside a report belongs to that device. Raises `Unreadable` where there is no report.
    """
    inputs = tuple(
        DeviceInput(found[REPORT_FILE], tuple(data for name, data in found.items() if name != REPORT_FILE))
        for found in files.values()
        if REPORT_FILE in found
    )
    if not inputs:
        raise _no(f"no {REPORT_FILE} in the folder, nor in a folder of it")
    return Devices(inputs, together=len(inputs) > 1)


def devices_of(node: NodeEvidence) -> Devices:
    """The devices of a node's evidence, of which there may be none."""
    inputs = tuple(DeviceInput(each.report, tuple(each.endorsements), each.kind) for each in node.devices)
    return Devices(inputs, together=True)


def _no(why: str) -> Unreadable:
    return Unreadable("gpu.report_malformed", why)
