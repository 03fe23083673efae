"""SPDM reports of a made-up device, byte by byte, with any part put wrong (DMTF DSP0274 1.1)."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from typing import Any, Final

Fields = Mapping[int, bytes | None]

NONCE: Final = bytes(range(32))
BOARD: Final = ("G520", "0280", "895")
"""Project, project SKU and chip SKU, as in a manifest's id."""


def value_of(index: int) -> bytes:
    """The good value of a measurement, counted as in a manifest (48 bytes)."""
    return hashlib.sha384(f"measurement {index}".encode()).digest()


def gpu_fields(chip: str, driver: str, vbios: bytes, fwid: bytes) -> dict[int, bytes]:
    """What a GPU of this chip states, in the order in which a device does."""
    project, project_sku, chip_sku = BOARD
    fields = {
        6: vbios, 14: bytes(4), 15: chip_sku.encode().ljust(9, b"\0"), 16: b"0\0\0\0\0",
        17: project.encode() + b"\0", 18: project_sku.encode() + b"\0", 19: b"\0\0",
        3: driver.encode() + b"\0", 4: bytes(8), 12: bytes(256), 13: bytes(4), 11: b"\xaa", 20: fwid,
    }  # fmt: skip
    if chip.startswith("GB"):
        return {
            **fields,
            33: b"\x07\0",
            35: (b"GB100\0" if chip == "GB100" else b"GB202\0"),
            34: b"\1\0",
            36: b"\0\0",
        }
    return {**fields, 21: b"\x55"}


def switch_fields(pdi: bytes) -> dict[int, bytes]:
    """What a switch states."""
    table = bytes(64) + b"\xff" * 64
    return {6: b"96.10.55.00.01", 22: pdi, 12: bytes(104), 26: table, 23: bytes(2), 24: bytes(2), 25: b"\1\0"}


def make_report(
    nonce: bytes,
    count: int,
    values: Mapping[int, bytes | None],
    fields: Mapping[int, bytes],
    frame: Mapping[str, Any],
) -> bytes:
    """Request and response up to the signature.

    frame: `header`, `slot`, `response`, `count`, `length`, `record`, `opaque` (bytes), `opaque_length`,
    `extra` (opaque bytes behind the good ones), `responder` (whom its nonce comes from)
    put other things in their places.
    """
    record = frame.get("record", _record(count, values))
    opaque = frame.get("opaque", b"".join(field(kind, value) for kind, value in fields.items()))
    opaque += frame.get("extra", b"")
    blocks = count - sum(1 for value in values.values() if value is None)
    return b"".join(
        (
            frame.get("header", bytes.fromhex("11e001ff")),
            nonce,
            bytes((frame.get("slot", 0),)),
            frame.get("response", bytes.fromhex("11600000")),
            bytes((frame.get("count", blocks),)),
            frame.get("length", len(record)).to_bytes(3, "little"),
            record,
            hashlib.sha256(frame.get("responder", b"") + nonce).digest(),
            frame.get("opaque_length", len(opaque)).to_bytes(2, "little"),
            opaque,
        )
    )


def field(kind: int, value: bytes) -> bytes:
    """One opaque field."""
    return struct.pack("<HH", kind, len(value)) + value


def block(index: int, value: bytes) -> bytes:
    """One measurement block; index from 1."""
    return struct.pack("<BBHBH", index, 1, len(value) + 3, 1, len(value)) + value


def _record(count: int, values: Mapping[int, bytes | None]) -> bytes:
    found = [(index, values.get(index, value_of(index))) for index in range(count)]
    return b"".join(block(index + 1, value) for index, value in found if value is not None)
