"""A receipt as a log's row holds it: key, signature and payload as they are, a quarter shorter than JSON.

The envelope that goes out, base64 inside JSON, is made of it again byte for byte: what we sign has one
spelling. Rows from before schema version 5 hold the envelope itself.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from receipts.leaf import raw_thumbprint
from schemas import envelope
from schemas.envelope import MAX_ENVELOPE_BYTES, STATEMENT, Envelope
from schemas.errors import Unreadable
from schemas.keys import base64url

_MARK: Final = b"\x01"  # no JSON begins so
_KEY: Final = 32  # bytes of an RFC 7638 thumbprint
_HEAD: Final = 1 + _KEY + 1  # mark, key, and how long the signature is


def pack(thumbprint: str, signature: bytes, payload: bytes) -> bytes:
    """mark ‖ key ‖ length of the signature ‖ signature ‖ payload. A DER signature has up to 72 bytes."""
    return b"%b%b%c%b%b" % (_MARK, raw_thumbprint(thumbprint), len(signature), signature, payload)


def read(data: bytes) -> Envelope:
    """A row's receipt, not yet verified. Raises `Unreadable`."""
    if not data.startswith(_MARK):
        return envelope.read(data)
    end = _HEAD + (data[_HEAD - 1] if len(data) >= _HEAD else 0)
    if not end <= len(data) <= MAX_ENVELOPE_BYTES:
        raise Unreadable("log.damaged", f"a receipt of {len(data)} bytes is cut off, or is none")
    return Envelope(STATEMENT, data[end:], ((_thumbprint(data[1 : 1 + _KEY]), data[_HEAD:end]),))


def written(data: bytes) -> bytes:
    """A row's receipt as it was first given out, byte for byte. Raises `Unreadable`."""
    return envelope.write(read(data)) if data.startswith(_MARK) else data


@lru_cache(maxsize=64)
def _thumbprint(raw: bytes) -> str:
    return base64url(raw)
