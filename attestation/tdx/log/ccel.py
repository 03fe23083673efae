"""The firmware's event log of a trust domain: ACPI CCEL, a crypto-agile TCG log (TCG PC Client PFP 10.2).

The area is as large as firmware set it aside; behind the last record it is filled with 0xFF or zeros.
"""

from __future__ import annotations

import struct
from typing import Final

from attestation.tdx.log.events import EV_NO_ACTION, MAX_EVENTS, MAX_LOG_BYTES, REGISTER_BYTES, Event
from schemas.errors import Refused

MAX_ALGORITHMS: Final = 8
MAX_DIGEST_BYTES: Final = 64  # SHA-512, the longest that TCG lists
SIGNATURE: Final = b"Spec ID Event03\0"  # PFP 10.4.5.1
SHA384: Final = 0x000C  # TCG algorithm registry

_FIRST: Final = struct.Struct("<II20sI")  # register, type, SHA-1 digest, size of the event
_FIXED: Final = struct.Struct("<16sIBBBBI")  # signature, class, versions, size of UINTN, algorithms
_RECORD: Final = struct.Struct("<III")
_END: Final = b"\xff\xff\xff\xff"
_REGISTERS: Final = range(1, 5)  # 0 is MRTD, which the module measured before any code of the guest ran


class _Log:
    """Cuts pieces off the log, never beyond its end."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, size: int) -> bytes:
        end = self.at + size
        if end > len(self.data):
            raise malformed("a record reaches beyond the log")
        piece, self.at = self.data[self.at : end], end
        return piece

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")


def read_ccel(data: bytes) -> tuple[Event, ...]:
    """The events that extend an RTMR, in order. Raises `Refused` (`tdx.event_log_malformed`)."""
    if len(data) > MAX_LOG_BYTES:
        raise malformed(f"more than {MAX_LOG_BYTES} bytes")
    log = _Log(data)
    sizes = _digest_sizes(log)
    events: list[Event] = []
    while not _ended(log):
        event = _record(log, sizes)
        if event is not None:
            events.append(event)
        if len(events) > MAX_EVENTS:
            raise malformed(f"more than {MAX_EVENTS} events")
    return tuple(events)


def is_ccel(data: bytes) -> bool:
    """Whether the first record names the crypto-agile form."""
    return data[_FIRST.size : _FIRST.size + len(SIGNATURE)] == SIGNATURE


def _digest_sizes(log: _Log) -> dict[int, int]:
    """Algorithm → bytes of its digest, from the first record, which is in the old form (PFP 10.2.1)."""
    _, kind, _, size = _FIRST.unpack(log.take(_FIRST.size))
    header = _Log(log.take(size))
    signature, *_, count = _FIXED.unpack(header.take(_FIXED.size))
    if kind != EV_NO_ACTION or signature != SIGNATURE or not 1 <= count <= MAX_ALGORITHMS:
        raise malformed("no crypto-agile TCG log")
    sizes = {header.number(2): header.number(2) for _ in range(count)}
    if len(sizes) != count or max(sizes.values()) > MAX_DIGEST_BYTES:
        raise malformed("an algorithm is repeated or its digest too long")
    if sizes.get(SHA384) != REGISTER_BYTES:
        raise malformed("without SHA-384, which RTMRs are extended with")
    return sizes


def _ended(log: _Log) -> bool:
    rest = log.data[log.at : log.at + _RECORD.size]
    if not rest or rest[:4] == _END:
        return True
    return not any(rest) and not any(log.data[log.at :])


def _record(log: _Log, sizes: dict[int, int]) -> Event | None:
    """One record; None where it extends nothing (EV_NO_ACTION, or MRTD's register)."""
    register, kind, count = _RECORD.unpack(log.take(_RECORD.size))
    if count > MAX_ALGORITHMS:
        raise malformed(f"{count} digests in one record")
    digests: dict[int, bytes] = {}
    for _ in range(count):
        algorithm = log.number(2)
        if algorithm not in sizes or algorithm in digests:
            raise malformed(f"algorithm 0x{algorithm:x} is not in the header, or repeated")
        digests[algorithm] = log.take(sizes[algorithm])
    data = log.take(log.number(4))
    if kind == EV_NO_ACTION or register == 0:
        return None
    if register not in _REGISTERS or SHA384 not in digests:
        raise malformed(f"a record of register {register} with algorithms {sorted(digests)}")
    return Event(register - 1, kind, digests[SHA384], "", data)


def malformed(why: str) -> Refused:
    return Refused("tdx.event_log_malformed", why)
