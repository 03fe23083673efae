"""The JSON event log of dstack guests: boot events and those that the guest extends at run time.

A list of objects with imr, event_type, digest, event, event_payload. Some writers leave digests out:
such events are kept, and leave their register unproven.
"""

from __future__ import annotations

import re
from typing import Final

from attestation.tdx.log.ccel import malformed
from attestation.tdx.log.events import MAX_EVENTS, MAX_LOG_BYTES, REGISTER_BYTES, REGISTERS, Event
from schemas.canonical import Json, read_json
from schemas.errors import Unreadable

MAX_NAME: Final = 256  # characters of an event's name
_HEX: Final = re.compile(r"(?:[0-9a-fA-F]{2})*")


def read_runtime(data: bytes) -> tuple[Event, ...]:
    """The events in order. Raises `Refused` (`tdx.event_log_malformed`)."""
    try:
        listed = read_json(data, limit=MAX_LOG_BYTES)
    except Unreadable as error:
        raise malformed(error.text) from None
    if not isinstance(listed, list) or len(listed) > MAX_EVENTS:
        raise malformed(f"no list of at most {MAX_EVENTS} events")
    return tuple(_event(each) for each in listed)


def _event(stated: Json) -> Event:
    if not isinstance(stated, dict):
        raise malformed("an event that is no object")
    register, kind, name = stated.get("imr"), stated.get("event_type"), stated.get("event", "")
    if not _is_number(register, len(REGISTERS) - 1) or not _is_number(kind, 2**32 - 1):
        raise malformed("an event without register or type")
    if not isinstance(name, str) or len(name) > MAX_NAME:
        raise malformed(f"a name that is no text of at most {MAX_NAME} characters")
    digest = _hex(stated.get("digest", ""))
    if len(digest) > REGISTER_BYTES:
        raise malformed(f"a digest of {len(digest)} bytes")
    padded = digest.ljust(REGISTER_BYTES, b"\0") if digest else None  # shorter ones are extended with zeros
    assert isinstance(register, int)
    assert isinstance(kind, int)
    return Event(register, kind, padded, name, _hex(stated.get("event_payload", "")))


def _is_number(value: Json, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most


def _hex(value: Json) -> bytes:
    if not isinstance(value, str) or not _HEX.fullmatch(value):
        raise malformed("a member that is not hex")
    return bytes.fromhex(value)
