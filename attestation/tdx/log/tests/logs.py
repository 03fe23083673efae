"""Event logs made to measure, and the registers that they lead to."""

from __future__ import annotations

import hashlib
import json
import struct
from typing import Any

from attestation.tdx.log.ccel import SHA384, SIGNATURE
from attestation.tdx.log.events import RUNTIME_EVENT
from attestation.tdx.log.replay import replay

SEPARATOR = 0x4
ACTION = 0x80000007


def digest(data: bytes) -> bytes:
    return hashlib.sha384(data).digest()


def record(register: int, kind: int, data: bytes, measured: bytes | None = None) -> bytes:
    """One record; register 1 to 4 for RTMR0 to RTMR3. `measured`: what was hashed, if not the data."""
    value = digest(data if measured is None else measured)
    head = struct.pack("<IIIH", register, kind, 1, SHA384) + value
    return head + struct.pack("<I", len(data)) + data


def header(algorithms: tuple[tuple[int, int], ...] = ((SHA384, 48),), signature: bytes = SIGNATURE) -> bytes:
    event = signature + struct.pack("<IBBBBI", 0, 0, 2, 0, 2, len(algorithms))
    event += b"".join(struct.pack("<HH", *each) for each in algorithms) + b"\0"
    return struct.pack("<II20sI", 1, 3, b"", len(event)) + event


def ccel(*records: bytes, fill: bytes = b"\xff" * 64) -> bytes:
    return header() + b"".join(records) + fill


def register(*measured: bytes) -> bytes:
    """The value of an RTMR into which these were measured."""
    return replay([digest(each) for each in measured])


def runtime_digest(name: str, payload: bytes) -> bytes:
    return digest(struct.pack("<I", RUNTIME_EVENT) + b":" + name.encode() + b":" + payload)


def runtime(name: str, payload: bytes, **changes: Any) -> dict[str, Any]:
    """One event that a guest extended into RTMR3."""
    good = {
        "imr": 3,
        "event_type": RUNTIME_EVENT,
        "digest": runtime_digest(name, payload).hex(),
        "event": name,
        "event_payload": payload.hex(),
    }
    return {**good, **changes}


def dstack(*events: Any) -> bytes:
    return json.dumps(list(events)).encode()
