"""The forms in which a report arrives, each unwrapped by one explicit parser (snp.md 8).

The form is decided from the bytes alone; what fits none, or two, is refused rather than tried.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from attestation.snp.report import REPORT_BYTES
from schemas.errors import Unreadable

FRAME_HEADER: Final = 32  # u32 status, u32 size, 24 zero bytes (AMD 56860 MSG_REPORT_RSP)
FRAME_BYTES: Final = 4000  # the kernel's response buffer, zero-filled behind the report


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one input holds."""

    form: str
    report: bytes
    endorsements: tuple[bytes, ...] = ()


def unwrap(data: bytes) -> Evidence:
    """Find the report in any supported form. Raises `Unreadable`, `snp.report.length` or `.malformed`."""
    if len(data) == REPORT_BYTES:
        return Evidence("raw", data)
    if FRAME_HEADER + REPORT_BYTES <= len(data) <= FRAME_BYTES and _is_frame(data):
        return Evidence("response-frame", _read_frame(data))
    raise Unreadable("snp.report.length", f"{len(data)} bytes are no report in any known form")


def _is_frame(data: bytes) -> bool:
    return data[4:8] == REPORT_BYTES.to_bytes(4, "little") and not any(data[8:FRAME_HEADER])


def _read_frame(data: bytes) -> bytes:
    if any(data[:4]):
        raise Unreadable("snp.report.malformed", "the firmware answered with an error status")
    end = FRAME_HEADER + REPORT_BYTES
    if any(data[end:]):
        raise Unreadable("snp.report.malformed", "something stands behind the report in its frame")
    return data[FRAME_HEADER:end]
