"""Reading firmware's log: exactly what stands there, or a refusal, whatever the bytes."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation.tdx.log.ccel import MAX_ALGORITHMS, SHA384, read_ccel
from attestation.tdx.log.events import MAX_EVENTS, MAX_LOG_BYTES, Event
from attestation.tdx.log.replay import read_log
from attestation.tdx.log.tests.logs import ACTION, SEPARATOR, ccel, digest, dstack, header, record, runtime
from schemas.errors import Refused

GOOD = ccel(record(1, SEPARATOR, bytes(4)), record(2, ACTION, b"Exit"), record(3, 0xD, b"x", b"file"))


def test_every_record_is_read() -> None:
    assert read_ccel(GOOD) == (
        Event(0, SEPARATOR, digest(bytes(4)), "", bytes(4)),
        Event(1, ACTION, digest(b"Exit"), "", b"Exit"),
        Event(2, 0xD, digest(b"file"), "", b"x"),
    )


@pytest.mark.parametrize("fill", [b"", b"\xff" * 4, b"\xff" * 4000, bytes(12), bytes(4096)])
def test_the_area_behind_the_log_is_no_part_of_it(fill: bytes) -> None:
    assert len(read_ccel(ccel(record(1, SEPARATOR, bytes(4)), fill=fill))) == 1


def test_what_extends_nothing_is_left_out() -> None:
    assert read_ccel(ccel(record(1, 3, b"note"), record(0, SEPARATOR, bytes(4)))) == ()


def test_other_algorithms_are_skipped_by_their_sizes() -> None:
    both = struct.pack("<IIIH", 1, SEPARATOR, 2, 0x000B) + bytes(32)
    both += struct.pack("<H", SHA384) + digest(bytes(4)) + struct.pack("<I", 4) + bytes(4)
    log = header(((0x000B, 32), (SHA384, 48))) + both
    assert [event.digest for event in read_ccel(log)] == [digest(bytes(4))]


ONE = struct.pack("<IIIH", 1, SEPARATOR, 1, SHA384) + bytes(48)
MALFORMED = {
    "empty": b"",
    "other form": header(signature=b"Spec ID Event02\0"),
    "no SHA-384": header(((0x000B, 32),)),
    "SHA-384 of 32 bytes": header(((SHA384, 32),)),
    "algorithm twice": header(((SHA384, 48), (SHA384, 48))),
    "no algorithms": header(()),
    "too many algorithms": header(tuple((n, 48) for n in range(SHA384, SHA384 + MAX_ALGORITHMS + 1))),
    "huge digest": header(((SHA384, 48), (0xFF, 0xFFFF))),
    "register 5": ccel(record(5, SEPARATOR, bytes(4))),
    "unknown algorithm": header() + struct.pack("<IIIH", 1, SEPARATOR, 1, 0x000B) + bytes(32 + 4),
    "no digest": header() + struct.pack("<IIII", 1, SEPARATOR, 0, 0),
    "digest twice": header() + struct.pack("<III", 1, SEPARATOR, 2) + ONE[12:] * 2 + bytes(4),
    "many digests": header() + struct.pack("<III", 1, SEPARATOR, 0xFFFFFFFF),
    "huge event": header() + ONE + struct.pack("<I", 0xFFFFFFFF),
    "cut short": GOOD[:-65],
    "something behind zeros": ccel(fill=bytes(64) + b"\1"),
    "too long": header() + bytes(MAX_LOG_BYTES),
    "too many": ccel(*[record(1, SEPARATOR, bytes(4))] * (MAX_EVENTS + 1)),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed(name: str) -> None:
    with pytest.raises(Refused) as error:
        read_ccel(MALFORMED[name])
    assert error.value.code == "tdx.event_log_malformed"


JSON_LOG = dstack(runtime("app-id", b"\1\2"), runtime("ready", b"", digest=""))


@given(st.sampled_from([GOOD, JSON_LOG]), st.data())
def test_a_damaged_log_is_read_or_refused_and_nothing_else(good: bytes, data: st.DataObject) -> None:
    damaged = bytearray(good[: data.draw(st.integers(0, len(good)))] + data.draw(st.binary(max_size=60)))
    for _ in range(data.draw(st.integers(0, 4))):
        if damaged:
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        events = read_log(bytes(damaged))
    except Refused as error:
        assert error.code == "tdx.event_log_malformed"  # noqa: PT017
    else:
        assert all(each.binding in ("bound", "digest only", "contradicted") for each in events)
