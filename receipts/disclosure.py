"""Showing a part without the rest: keyed commitments opened one by one, and salted fields (RFC 9901).

A commitment is HMAC-SHA256 under 32 random bytes of its own, so that a short prompt cannot be
guessed and one key opens one field. Salted fields stand in a receipt as digests, sorted, decoys
among them; a disclosure shows one of them and says nothing of the others.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
from collections.abc import Collection, Mapping
from typing import Final

from schemas.canonical import Json, read_json, sha256, write_json
from schemas.errors import Refused, Unreadable

KEY_BYTES: Final = 32  # of a commitment's own key
SALT_BYTES: Final = 16  # 128 bits, as RFC 9901 9.3 asks for
MAX_DISCLOSURE: Final = 64 * 1024  # characters of one disclosure
MAX_CONCEALED: Final = 1024  # digests in one receipt, decoys included


def commit(key: bytes, value: bytes) -> bytes:
    """The commitment to a value (32 bytes). Raises `Refused` for a key that is not 32 bytes."""
    if len(key) != KEY_BYTES:
        raise Refused("disclosure.key", f"a commitment's key is {KEY_BYTES} bytes")
    return hmac.digest(key, value, "sha256")


def open_commitment(commitment: bytes, key: bytes, value: bytes) -> bytes:
    """Return the value if it is what was committed to. Raises `Refused`."""
    if not hmac.compare_digest(commit(key, value), commitment):
        raise Refused("disclosure.commitment", "the value is not what was committed to")
    return value


def conceal(fields: Mapping[str, Json], *, decoys: int = 0) -> tuple[list[str], dict[str, str]]:
    """(`sd` digests in hex, sorted; field name → its disclosure). A salt is never used twice.

    Raises `Refused` when there are more than a receipt may hold.
    """
    if len(fields) + decoys > MAX_CONCEALED:
        raise Refused("disclosure.count", f"at most {MAX_CONCEALED} concealed fields")
    shown = {
        name: _encode(write_json([_encode(secrets.token_bytes(SALT_BYTES)), name, value]))
        for name, value in fields.items()
    }
    digests = [digest_of(text) for text in shown.values()]
    digests += [sha256(secrets.token_bytes(32)).hex() for _ in range(decoys)]
    return sorted(digests), shown


def reveal(text: str, sd: Collection[str]) -> tuple[str, Json]:
    """(name, value) of a disclosure whose digest stands in the receipt. Raises `Unreadable` or `Refused`."""
    if len(text) > MAX_DISCLOSURE:
        raise Unreadable("disclosure.too_long", f"at most {MAX_DISCLOSURE} characters")
    if digest_of(text) not in sd:
        raise Refused("disclosure.unknown", "no field of this receipt has this salt, name and value")
    match read_json(_decode(text)):
        case [str(salt), str(name), value] if len(_decode(salt)) >= SALT_BYTES:
            return name, value
    raise Unreadable("disclosure.shape", "a disclosure is a salt, a name and a value")


def digest_of(text: str) -> str:
    """SHA-256 over the encoded disclosure itself, hex (RFC 9901 4.2.3)."""
    return sha256(text.encode("utf-8", "surrogatepass")).hex()


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode("ascii").rstrip("=")


def _decode(text: str) -> bytes:
    try:
        data = base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
    except (UnicodeEncodeError, binascii.Error):
        raise Unreadable("disclosure.base64", "not base64url") from None
    if _encode(data) != text:
        raise Unreadable("disclosure.base64", "base64url with stray characters or bits")
    return data
