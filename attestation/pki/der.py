"""Walking DER that a strict parser has already accepted (X.690 10): whole elements, byte for byte.

The library's own objects cost ten times the signature's share of a certificate; names and keys are
compared as bytes anyway, so they are cut out as bytes.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from schemas.errors import Unreadable

MAX_ELEMENTS: Final = 64  # children of one element; certificates have at most 20 anywhere but in CRLs
CACHED_NAMES: Final = 256  # AMD has a dozen
MAX_NAME: Final = 64  # ub-common-name, RFC 5280 appendix A
COMMON_NAME: Final = b"\x06\x03\x55\x04\x03"  # OID 2.5.4.3, encoded


def split(element: bytes) -> tuple[int, bytes]:
    """(tag, content) of one element that fills its bytes exactly. Raises `Unreadable`."""
    start, end = _bounds(element, 0)
    if end != len(element):
        raise Unreadable("der.length", "an element and its bytes differ in length")
    return element[0], element[start:]


def children(element: bytes, limit: int = MAX_ELEMENTS) -> list[bytes]:
    """The elements inside a constructed one, each whole. Raises `Unreadable`."""
    at, end = _bounds(element, 0)
    if end != len(element):
        raise Unreadable("der.length", "an element and its bytes differ in length")
    found: list[bytes] = []
    try:
        for _ in range(limit):
            if at >= end:
                break
            length = element[at + 1]
            following = at + 2 + length if length < 0x80 else _bounds(element, at)[1]
            found.append(element[at:following])
            at = following
    except IndexError:
        raise Unreadable("der.length", "cut short") from None
    if at != end:
        raise Unreadable("der.length", "an element reaches beyond its parent, or there are too many")
    return found


def _bounds(data: bytes, at: int) -> tuple[int, int]:
    """(start of the content, stated end): definite length, at most three octets of it."""
    try:
        length = data[at + 1]
        if length < 0x80:
            return at + 2, at + 2 + length
        if length == 0x82:  # nearly all that is longer
            return at + 4, at + 4 + (data[at + 2] << 8 | data[at + 3])
    except IndexError:
        raise Unreadable("der.length", "cut short") from None
    if not 0x81 <= length <= 0x83:
        raise Unreadable("der.length", "an indefinite or huge length")
    start = at + 2 + (length & 0x7F)
    return start, start + int.from_bytes(data[at + 2 : start])


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


@lru_cache(maxsize=CACHED_NAMES)
def common_name(name: bytes) -> str:
    """The one common name of a Name (RFC 5280 4.1.2.4). Raises `Unreadable`."""
    at = name.find(COMMON_NAME)
    if at < 4 or name.count(COMMON_NAME) != 1:
        raise Unreadable("der.common_name", "not exactly one common name")
    start = at + len(COMMON_NAME) + 2
    kind, size = name[start - 2 : start - 1], name[start - 1] if len(name) >= start else 0
    text = name[start : start + size]
    if kind not in _PLAIN or len(text) != size or not 0 < size <= MAX_NAME:
        raise Unreadable("der.common_name", "a common name that is not plain text of its length")
    if name[at - 4 : at] != bytes((0x31, size + 9, 0x30, size + 7)):  # a SET of one SEQUENCE of OID and text
        raise Unreadable("der.common_name", "a common name that does not stand alone")
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError:
        raise Unreadable("der.common_name", "a common name that is not text") from None


_PLAIN: Final = (b"\x0c", b"\x13")  # UTF8String, PrintableString
