"""Walking DER that a strict parser has already accepted (X.690 10): whole elements, byte for byte.

The library's own objects cost ten times the signature's share of a certificate; names and keys are
compared as bytes anyway, so they are cut out as bytes.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from schemas.errors import Unreadable

MAX_ELEMENTS: Final = 64  # children of one element; certificates have at most 20 anywhere but in CRLs
CACHED_NAMES: Final = 256  # AMD has a dozen
MAX_NAME: Final = 64  # ub-common-name, RFC 5280 appendix A
COMMON_NAME: Final = b"\x06\x03\x55\x04\x03"  # OID 2.5.4.3, encoded


def split(element: bytes) -> tuple[int, bytes]:
    """(tag, content) of one element that fills its bytes exactly. Raises `Unreadable`."""
    tag, start, end = _bounds(element, 0)
    if end != len(element):
        raise Unreadable("der.length", "an element and its bytes differ in length")
    return tag, element[start:end]


def children(element: bytes, limit: int = MAX_ELEMENTS) -> list[bytes]:
    """The elements inside a constructed one, each whole. Raises `Unreadable`."""
    _, start, end = _bounds(element, 0)
    if end != len(element):
        raise Unreadable("der.length", "an element and its bytes differ in length")
    found: list[bytes] = []
    while start < end:
        if start + 2 <= end and element[start + 1] < 0x80:  # the short form, nearly always
            following = start + 2 + element[start + 1]
        else:
            following = _bounds(element, start)[2]
        if following > end or len(found) == limit:
            raise Unreadable("der.length", "an element reaches beyond its parent, or there are too many")
        found.append(element[start:following])
        start = following
    return found


def _bounds(data: bytes, at: int) -> tuple[int, int, int]:
    """(tag, start of the content, end): definite length, at most three octets of it."""
    if len(data) < at + 2:
        raise Unreadable("der.length", "cut short")
    length, start = data[at + 1], at + 2
    if length >= 0x80:
        octets = length & 0x7F
        if not 1 <= octets <= 3:
            raise Unreadable("der.length", "an indefinite or huge length")
        length = int.from_bytes(data[start : start + octets])
        start += octets
    if start + length > len(data):
        raise Unreadable("der.length", "cut short")
    return data[at], start, start + length


def encode_oid(dotted: str) -> bytes:
    """An OBJECT IDENTIFIER element (X.690 8.19), to be compared whole."""
    first, second, *rest = map(int, dotted.split("."))
    content = bytearray((40 * first + second,))
    for arc in rest:
        octets = [arc & 0x7F]
        while arc := arc >> 7:
            octets.insert(0, 0x80 | arc & 0x7F)
        content += bytes(octets)
    return bytes((0x06, len(content))) + content


_ONE_NAME = re.compile(
    rb"\x31(?P<set>.)\x30(?P<pair>.)" + re.escape(COMMON_NAME) + rb"[\x0c\x13](?P<size>.)(?P<text>.*)",
    re.DOTALL,
)


@lru_cache(maxsize=CACHED_NAMES)
def common_name(name: bytes) -> str:
    """The one common name of a Name (RFC 5280 4.1.2.4). Raises `Unreadable`."""
    if name.count(COMMON_NAME) != 1:
        raise Unreadable("der.common_name", "not exactly one common name")
    found = _ONE_NAME.search(name)
    if found is None:
        raise Unreadable("der.common_name", "a common name that is not plain text")
    size = found["size"][0]
    text = found["text"][:size]
    if len(text) != size or found["pair"][0] != size + 7 or found["set"][0] != size + 9 or size > MAX_NAME:
        raise Unreadable("der.common_name", "a common name whose lengths disagree")
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError:
        raise Unreadable("der.common_name", "a common name that is not text") from None
