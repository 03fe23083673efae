"""Frame parsing: exact round trips, and any bytes are read or refused as unreadable."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.streaming import frames
from federation.streaming.frames import Frame, Opening
from schemas.errors import Refused, Unreadable

SEQUENCES = st.integers(0, frames.MAX_SEQUENCE)
PAYLOADS = st.binary(max_size=300)
IDS = st.binary(min_size=16, max_size=16)
ZEROS = "0" * 32


@given(st.sampled_from(sorted(frames.ANSWER_KINDS)), SEQUENCES, PAYLOADS)
def test_answer_frames_round_trip(kind: int, sequence: int, payload: bytes) -> None:
    assert frames.read_answer(frames.answer(kind, sequence, payload)) == Frame(kind, sequence, payload)


@given(
    st.sampled_from(sorted(frames.CONTROL_KINDS)), st.binary(min_size=16, max_size=16), SEQUENCES, PAYLOADS
)
def test_control_frames_round_trip(kind: int, stream: bytes, sequence: int, payload: bytes) -> None:
    made = frames.control(kind, stream, sequence, payload)
    assert frames.read_control(made) == Frame(kind, sequence, payload, stream)


@given(st.binary(min_size=16, max_size=16))
def test_opened_round_trips(stream: bytes) -> None:
    assert frames.read_opened(frames.opened("x-" + "0" * 32, stream)) == ("x-" + "0" * 32, stream)


@pytest.mark.parametrize(
    "token",
    ["release", "x-", "x-" + "0" * 31, "x-" + "g" * 32, "x-*", "x->", "x-a.b", "x-" + "0" * 32 + "\n"],
)
def test_an_opening_can_name_nothing_but_a_control_subject(token: str) -> None:
    with pytest.raises(Unreadable, match=r"stream\.opened"):
        frames.read_opened(f"{token}/{'0' * 32}".encode())


@given(st.binary(max_size=600), st.lists(st.binary(max_size=400), max_size=20))
def test_a_request_round_trips_in_one_message(head: bytes, body: list[bytes]) -> None:
    first, rest = frames.cut(head, body)
    assert rest == []
    assert frames.read_opening(first) == Opening(head, tuple(body), len(body), sum(map(len, body)))


@given(st.lists(st.integers(0, frames.MAX_PART_BYTES), min_size=1, max_size=30))
def test_a_long_body_is_cut_at_its_parts_and_each_message_is_bounded(sizes: list[int]) -> None:
    body = [bytes(size) for size in sizes]
    if sum(sizes) > frames.MAX_BODY_BYTES:
        with pytest.raises(Refused, match=r"stream\.body_too_long"):
            frames.cut(b"head", body)
        return
    first, rest = frames.cut(b"head", body)
    assert all(len(message) <= frames.MESSAGE_BYTES for message in [first, *rest])
    opening = frames.read_opening(first)
    parts = opening.parts + tuple(part for message in rest for part in frames.read_parts(message))
    assert parts == tuple(body)
    assert (opening.total_parts, opening.total_bytes) == (len(body), sum(sizes))
    short = sum(sizes) + 4 * len(sizes) + 15 <= frames.MESSAGE_BYTES
    assert not short or not rest, "what fits costs no second message"


def test_bounds_of_a_request() -> None:
    for head, body, code in [
        (bytes(frames.MAX_HEAD_BYTES + 1), [], "body_too_long"),
        (b"", [b""] * (frames.MAX_PARTS + 1), "body_too_long"),
        (b"", [bytes(frames.MAX_PART_BYTES + 1)], "part_too_long"),
    ]:
        with pytest.raises(Refused, match=rf"stream\.{code}"):
            frames.cut(head, body)


PARSERS: list[Callable[[bytes], object]] = [
    frames.read_answer,
    frames.read_control,
    frames.read_opened,
    frames.read_opening,
    frames.read_parts,
    frames.count,
]
WHOLE = [
    frames.answer(frames.DATA, 1, b"x"),
    frames.control(frames.BODY, bytes(16), 1, b"\0\0\0\1x"),
    frames.opened("x-" + "0" * 32, bytes(16)),
    frames.cut(b"head", [b"one", b"two"])[0],
    b"\0\0\0\1x",
    b"\0\0\0\1",
]


@pytest.mark.parametrize("parse", PARSERS)
@given(data=st.data())
def test_any_bytes_are_read_or_unreadable(parse: Callable[[bytes], object], data: st.DataObject) -> None:
    whole = data.draw(st.one_of(st.binary(max_size=200), st.sampled_from(WHOLE)))
    cut = data.draw(st.integers(0, len(whole)))
    flipped = bytearray(whole[:cut] + data.draw(st.binary(max_size=4)))
    if flipped and data.draw(st.booleans()):
        flipped[data.draw(st.integers(0, len(flipped) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with contextlib.suppress(Unreadable):
        parse(bytes(flipped))


@pytest.mark.parametrize(
    ("parts", "total_parts", "total_bytes"),
    [
        ([b"ab"], 0, 2),
        ([b"ab"], 1, 1),
        ([b"ab"], 1, 3),
        ([b"ab"], 2, 1),
        ([], 1025, 1),
        ([], 1, frames.MAX_BODY_BYTES + 1),
        ([], 0, 1),
    ],
)
def test_announcements_that_do_not_add_up(parts: list[bytes], total_parts: int, total_bytes: int) -> None:
    packed = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    data = b"\1" + bytes(4) + total_parts.to_bytes(2, "big") + total_bytes.to_bytes(4, "big") + packed
    with pytest.raises(Unreadable, match=r"stream\.opening"):
        frames.read_opening(data)
