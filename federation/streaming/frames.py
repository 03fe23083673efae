"""The bytes of a stream (session.md 10): pure, so that every parser can be tried with any bytes.

Answer frames   kind ‖ u32 sequence ‖ payload                   to the requester's reply subject
Control frames  kind ‖ 16-byte stream id ‖ u32 sequence ‖ payload   to the subject that OPENED names
Both directions count from 0 without a gap, so that a lost or repeated frame shows at once.
The first message holds the head and as many parts of the body as fit; BODY frames hold the rest.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from schemas.errors import Refused, Unreadable

WINDOW: Final = 32  # data frames that may be on their way without the reader's credit (session.md 10)
BODY_WINDOW: Final = 4  # messages of a long body on their way without the responder's leave
MESSAGE_BYTES: Final = 192 * 1024  # head and body in one message: no extra round trip up to here
MAX_FRAME_BYTES: Final = 192 * 1024  # payload of one data frame
MAX_HEAD_BYTES: Final = 32 * 1024
MAX_PART_BYTES: Final = 128 * 1024  # one part of the body: a sealed chunk has 64 KiB and a little
MAX_PARTS: Final = 1024
MAX_BODY_BYTES: Final = 4 * 1024 * 1024 + 256 * 1024  # all parts: 4 MiB of text, padded and sealed

OPENED, DATA, ERROR, END, WANT = b"OdeEw"
BODY, CREDIT, CANCEL = b"bcx"
ANSWER_KINDS: Final = frozenset((OPENED, DATA, ERROR, END, WANT))
CONTROL_KINDS: Final = frozenset((BODY, CREDIT, CANCEL))
ID_BYTES: Final = 16
MAX_SEQUENCE: Final = 2**32 - 1

_VERSION: Final = 1
_OPENED: Final = re.compile(rb"^(x-[0-9a-f]{32})/([0-9a-f]{32})\Z")


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of either direction; `stream` is empty in answers, whose subject names the stream."""

    kind: int
    sequence: int
    payload: bytes = field(repr=False)
    stream: bytes = b""


@dataclass(frozen=True, slots=True)
class Opening:
    """The first message: what is asked, and how much of the body follows it."""

    head: bytes = field(repr=False)
    parts: tuple[bytes, ...] = field(repr=False)
    """Those parts that came along."""
    total_parts: int
    total_bytes: int


def answer(kind: int, sequence: int, payload: bytes = b"") -> bytes:
    """Bytes of an answer frame."""
    return bytes((kind,)) + sequence.to_bytes(4, "big") + payload


def control(kind: int, stream: bytes, sequence: int, payload: bytes = b"") -> bytes:
    """Bytes of a control frame."""
    return bytes((kind,)) + stream + sequence.to_bytes(4, "big") + payload


def read_answer(data: bytes) -> Frame:
    """Raises `Unreadable`."""
    if len(data) < 5 or data[0] not in ANSWER_KINDS or len(data) > 5 + MAX_FRAME_BYTES:
        raise Unreadable("stream.frame", "not an answer frame")
    return Frame(data[0], int.from_bytes(data[1:5], "big"), data[5:])


def read_control(data: bytes) -> Frame:
    """Raises `Unreadable`."""
    if len(data) < 21 or data[0] not in CONTROL_KINDS or len(data) > 21 + MESSAGE_BYTES:
        raise Unreadable("stream.frame", "not a control frame")
    return Frame(data[0], int.from_bytes(data[17:21], "big"), data[21:], data[1:17])


def count(payload: bytes) -> int:
    """The absolute count in a CREDIT or WANT. Raises `Unreadable`."""
    if len(payload) != 4:
        raise Unreadable("stream.frame", "a credit has 4 bytes")
    return int.from_bytes(payload, "big")


def opened(token: str, stream: bytes) -> bytes:
    """Payload of OPENED: where control frames go, and the stream's id there."""
    return f"{token}/{stream.hex()}".encode("ascii")


def read_opened(payload: bytes) -> tuple[str, bytes]:
    """(control token, stream id). Raises `Unreadable`; the token can name nothing but an `x-` operation."""
    match = _OPENED.match(payload)
    if not match:
        raise Unreadable("stream.opened", "not the opening of a stream")
    return match[1].decode("ascii"), bytes.fromhex(match[2].decode("ascii"))


def cut(head: bytes, body: Sequence[bytes]) -> tuple[bytes, list[bytes]]:
    """(first message, payloads of the BODY frames). Raises `Refused` when a bound is passed."""
    total = sum(map(len, body))
    if len(head) > MAX_HEAD_BYTES or len(body) > MAX_PARTS or total > MAX_BODY_BYTES:
        raise Refused("stream.body_too_long", f"{len(body)} parts of {total} bytes in all")
    if body and max(map(len, body)) > MAX_PART_BYTES:
        raise Refused("stream.part_too_long", f"a part of the body has over {MAX_PART_BYTES} bytes")
    prefix = b"".join(
        (
            bytes((_VERSION,)),
            len(head).to_bytes(4, "big"),
            head,
            len(body).to_bytes(2, "big"),
            total.to_bytes(4, "big"),
        )
    )
    messages: list[list[bytes]] = [[prefix]]
    room = MESSAGE_BYTES - len(prefix)
    for part in body:
        if room < len(part) + 4:
            messages.append([])
            room = MESSAGE_BYTES
        messages[-1] += (len(part).to_bytes(4, "big"), part)
        room -= len(part) + 4
    first, *rest = (b"".join(message) for message in messages)
    return first, rest


def read_opening(data: bytes) -> Opening:
    """Parse the first message. Raises `Unreadable`."""
    if len(data) < 11 or data[0] != _VERSION or len(data) > MESSAGE_BYTES:
        raise Unreadable("stream.opening", "not the first message of a stream")
    at = 5 + int.from_bytes(data[1:5], "big")
    if at - 5 > MAX_HEAD_BYTES or len(data) < at + 6:
        raise Unreadable("stream.opening", "the head is cut off or too long")
    total_parts = int.from_bytes(data[at : at + 2], "big")
    total_bytes = int.from_bytes(data[at + 2 : at + 6], "big")
    parts = read_parts(data[at + 6 :])
    came = sum(map(len, parts))
    if total_parts > MAX_PARTS or total_bytes > MAX_BODY_BYTES:
        raise Unreadable("stream.opening", "the body is too long")
    if (
        len(parts) > total_parts
        or came > total_bytes
        or (len(parts) == total_parts) != (came == total_bytes and len(parts) == total_parts)
    ):
        raise Unreadable("stream.opening", "the parts do not add up")
    return Opening(data[5:at], parts, total_parts, total_bytes)


def read_parts(data: bytes) -> tuple[bytes, ...]:
    """The parts that a message holds. Raises `Unreadable`."""
    parts: list[bytes] = []
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        end = at + 4 + size
        if len(data) < at + 4 or size > MAX_PART_BYTES or end > len(data) or len(parts) >= MAX_PARTS:
            raise Unreadable("stream.parts", "a part is cut off or too long")
        parts.append(data[at + 4 : end])
        at = end
    return tuple(parts)
