"""What the log holds of a receipt: 66 bytes that name nothing without the salt (receipts.md 7.1)."""

from __future__ import annotations

import base64
import hmac
from enum import IntEnum
from functools import lru_cache
from typing import Final, NamedTuple

from receipts.merkle import leaf_hash
from schemas.errors import Refused, Unreadable

RECORD_BYTES: Final = 66
SALT_BYTES: Final = 32
_VERSION: Final = 1


class Kind(IntEnum):
    """What kind of statement a leaf stands for."""

    PLACEMENT = 1
    EXECUTION = 2
    ACKNOWLEDGEMENT = 3
    MANIFEST = 4
    TOMBSTONE = 5
    GAP = 6
    ACCUSATION = 7
    EQUIVOCATION = 8
    ANCHOR = 9
    POLICY = 10


class Record(NamedTuple):
    """One leaf. It binds issuer key and payload, not signature bytes; a tuple, for audits make many."""

    kind: Kind
    tag: bytes
    """HMAC-SHA256(salt, receipt digest), 32 bytes."""
    issuer: bytes
    """Issuer key's RFC 7638 thumbprint, raw, 32 bytes."""

    def write(self) -> bytes:
        return bytes((_VERSION, self.kind)) + self.tag + self.issuer

    @property
    def hash(self) -> bytes:
        return leaf_hash(self.write())


def make(kind: Kind, salt: bytes, receipt_digest: bytes, thumbprint: str) -> Record:
    """The leaf record of a receipt. Raises `Refused` when salt, digest or thumbprint has a wrong length."""
    if len(salt) != SALT_BYTES or len(receipt_digest) != 32:
        raise Refused("leaf.length", "salt and receipt digest are 32 bytes each")
    return Record(kind, hmac.digest(salt, receipt_digest, "sha256"), raw_thumbprint(thumbprint))


def read(data: bytes) -> Record:
    """Parse a record. Raises `Unreadable`."""
    if len(data) != RECORD_BYTES:
        raise Unreadable("leaf.length", f"a leaf record is {RECORD_BYTES} bytes")
    if data[0] != _VERSION:
        raise Unreadable("leaf.version", f"leaf version {data[0]}")
    try:
        kind = Kind(data[1])
    except ValueError:
        raise Unreadable("leaf.kind", f"leaf kind {data[1]}") from None
    return Record(kind, data[2:34], data[34:])


@lru_cache(maxsize=64)
def raw_thumbprint(thumbprint: str) -> bytes:
    """The 32 bytes behind a base64url thumbprint. Raises `Refused`."""
    try:
        raw = base64.b64decode(thumbprint + "=", altchars=b"-_", validate=True)
    except ValueError:
        raw = b""
    if len(raw) != 32 or base64.urlsafe_b64encode(raw).decode("ascii") != thumbprint + "=":
        raise Refused("leaf.thumbprint", "not an RFC 7638 thumbprint")
    return raw
