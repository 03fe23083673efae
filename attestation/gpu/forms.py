"""The forms in which NVIDIA evidence arrives, told apart by content.

One report, as bytes, in hex or in base64; several devices, as a request to NVIDIA's service or as its tools
write down what they collected; a manifest or a service token, to be judged by itself.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from attestation.gpu.documents import listed_devices, read_answer, read_devices
from attestation.gpu.node.devices import DeviceInput
from attestation.gpu.spdm.report import REQUEST_HEADER, is_report
from schemas.canonical import Json, read_json
from schemas.errors import Refused, Unreadable
from schemas.proof.evidence import NodeEvidence

MAX_REQUEST_BYTES: Final = 1024 * 1024  # 64 devices with their chains
REPORT_FILE: Final = "report.bin"
_IN_HEX: Final = REQUEST_HEADER.hex().encode()
_IN_BASE64: Final = b"EeAB/"  # of the same four bytes, whatever follows them
_OF_DEVICES: Final = (b'"evidence_list"', b'"evidences"', b'"__cmwc_t"')


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
    if _is_hex(data):
        return Devices((DeviceInput(_from_hex(data)),), together=False)
    if data.startswith(_IN_BASE64):
        return Devices((DeviceInput(_from_base64(data)),), together=False)
    match data.lstrip()[:1]:
        case b"<":
            return ManifestFile(data)
        case b"[":
            return _read_list(data)
        case b"{":
            return _read_object(read_json(data, limit=MAX_REQUEST_BYTES))
    raise _no("neither a report, a list of devices, a manifest, nor a service token")


def is_form(data: bytes) -> bool:
    """Whether the bytes look like any of these: no other vendor's evidence is a JSON array, or XML."""
    if data.lstrip()[:1] in (b"[", b"<") or is_report(data) or _is_hex(data) or data.startswith(_IN_BASE64):
        return True
    alone = b'"evidence"' in data and b'"certificate"' in data
    return alone or b'"rim"' in data or any(key in data for key in _OF_DEVICES)


def _is_hex(data: bytes) -> bool:
    return data[: len(_IN_HEX)].lower() == _IN_HEX


def _from_hex(data: bytes) -> bytes:
    """A report as NVIDIA's Python verifier keeps its sample."""
    try:
        return bytes.fromhex(data.decode("ascii"))
    except ValueError:
        raise _no("a report that begins in hex and does not go on in it") from None


def _from_base64(data: bytes) -> bytes:
    """A report as it stands in JSON, taken out of it; broken into lines or not."""
    try:
        return base64.b64decode(b"".join(data.split()), validate=True)
    except binascii.Error:
        raise _no("a report that begins in base64 and does not go on in it") from None


def _read_list(data: bytes) -> Devices | TokenFile:
    """Objects are devices; anything else is tried as a token, which says why it is none."""
    try:
        stated = read_json(data, limit=MAX_REQUEST_BYTES)
    except Unreadable:
        return TokenFile(data)
    first = stated[0] if isinstance(stated, list) and stated else None
    return read_collected(stated) if isinstance(first, dict) else TokenFile(data)


def _read_object(stated: Json) -> Devices | ManifestFile:
    """What the manifest service answers is a manifest; anything else is tried as devices."""
    if not isinstance(stated, dict) or not stated.keys() >= {"id", "rim"}:
        return read_collected(stated)
    try:
        return ManifestFile(read_answer(stated).data)
    except Refused as error:
        raise _no(error.text) from None


def read_collected(stated: Json) -> Devices:
    """Devices: what is sent to NVIDIA's service (gpu.md 9), or what its tools collected (nvattest).

    What stands beside report and chain (architecture, versions, nonce) is a claim and not looked at. Raises
    `Unreadable`.
    """
    listed = listed_devices(stated)
    if listed is None:
        raise _no("no list of devices with evidence and certificate")
    try:
        devices = read_devices(listed)
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
