"""NVIDIA's attestation report: an SPDM request and the device's answer (DMTF DSP0274 1.1; gpu.md 1).

Every length is checked before it is used, and every byte belongs to something. The signature stands
where the lengths say, never "at the end": some dumps carry a padding byte behind it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from attestation.gpu.spdm.blocks import read_blocks
from attestation.gpu.spdm.firmware import Firmware, firmware_of
from attestation.gpu.spdm.opaque import Opaque, malformed, read_opaque
from schemas.canonical import sha256
from schemas.errors import Refused, Unreadable

MAX_REPORT_BYTES: Final = 8192  # the buffer of the driver's interface
REQUEST_HEADER: Final = bytes.fromhex("11e001ff")
"""SPDM 1.1 GET_MEASUREMENTS, signature requested, all blocks (DSP0274 10.11.1)."""
RESPONSE_HEADER: Final = bytes.fromhex("1160")
REQUEST_BYTES: Final = 37
NONCE_BYTES: Final = 32
SIGNATURE_BYTES: Final = 96
SLOT: Final = 0
_NONCE_AT: Final = 4
_RECORD_AT: Final = REQUEST_BYTES + 8  # behind headers, number of blocks and length of the record


@dataclass(frozen=True, slots=True)
class Report:
    """What one report says. Nothing in it has been verified."""

    nonce: bytes
    """The requester's: the challenge (32 bytes)."""
    record: bytes
    measurements: Mapping[int, bytes]
    """What the record holds: values by index as a manifest counts, from 0, a block's own index less one."""
    responder_nonce: bytes
    opaque: Opaque
    signed: bytes
    """Request and response up to the signature (SPDM 1.1 has no signing prefix)."""
    signature: bytes
    """r ‖ s, 96 bytes."""
    tail: bytes
    """What stands behind the signature; none belongs there."""

    @property
    def firmware(self) -> Firmware:
        """What manifests are asked about."""
        return firmware_of(self.record, len(self.measurements), self.opaque)

    @property
    def identity(self) -> bytes:
        """SHA-256 of what the device signed (32 bytes)."""
        return sha256(self.signed)


def is_report(data: bytes) -> bool:
    """Whether the bytes open as a report does, so that a broken one may be told from something else."""
    return data[: len(REQUEST_HEADER)] == REQUEST_HEADER


def read_report(data: bytes) -> Report:
    """Read a report. Raises `Unreadable` when it is none, `Refused` when it is one and breaks a rule."""
    if not is_report(data):
        raise Unreadable("gpu.report_malformed", "no SPDM 1.1 request for all measurements")
    if len(data) > MAX_REPORT_BYTES:
        raise Refused("gpu.report_too_large", f"{len(data)} bytes, at most {MAX_REPORT_BYTES}")
    response = _Reader(data, REQUEST_BYTES)
    if response.take(2) != RESPONSE_HEADER or data[REQUEST_BYTES - 1] != SLOT:
        raise malformed("no SPDM 1.1 measurements from slot 0")
    response.take(2)  # Param1, Param2: slot and content changes, signed but without meaning here
    count, length = response.number(1), response.number(3)
    record = response.take(length)
    measurements = read_blocks(record, count)
    responder_nonce = response.take(NONCE_BYTES)
    opaque = read_opaque(response.take(response.number(2)))
    end = response.at
    signature = response.take(SIGNATURE_BYTES)
    return Report(
        nonce=data[_NONCE_AT : _NONCE_AT + NONCE_BYTES],
        record=record,
        measurements=measurements,
        responder_nonce=responder_nonce,
        opaque=opaque,
        signed=data[:end],
        signature=signature,
        tail=data[response.at :],
    )


Standing = tuple[int, bytes, bytes, bytes, bytes]
"""Length, request, measurements, opaque data, tail: all but both nonces and the signature."""


def standing_of(data: bytes) -> Standing:
    """What the same device's next report says again, cut out by the lengths that it states.

    Reports of one standing are read alike, whatever stands in the places that are left out.
    """
    record, opaque, end = _places(data)
    tail = data[end + SIGNATURE_BYTES :]
    return len(data), data[:_NONCE_AT], data[_NONCE_AT + NONCE_BYTES : record], data[opaque:end], tail


def read_next(known: Report, data: bytes) -> Report:
    """A report of the standing of `known`."""
    record, opaque, end = _places(data)
    return Report(
        nonce=data[_NONCE_AT : _NONCE_AT + NONCE_BYTES],
        record=known.record,
        measurements=known.measurements,
        responder_nonce=data[record:opaque],
        opaque=known.opaque,
        signed=data[:end],
        signature=data[end : end + SIGNATURE_BYTES],
        tail=known.tail,
    )


def _places(data: bytes) -> tuple[int, int, int]:
    """Where the measurement record ends, the opaque length begins, and the signature begins."""
    record = _RECORD_AT + int.from_bytes(data[_RECORD_AT - 3 : _RECORD_AT], "little")
    opaque = record + NONCE_BYTES
    return record, opaque, opaque + 2 + int.from_bytes(data[opaque : opaque + 2], "little")


@dataclass(slots=True)
class _Reader:
    """Takes bytes one after the other, and refuses where there are none left."""

    data: bytes
    at: int = 0

    def take(self, count: int) -> bytes:
        if self.at + count > len(self.data):
            raise malformed("cut short")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")
