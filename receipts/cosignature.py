"""Timestamped cosignatures over checkpoints (C2SP tlog-cosignature): Ed25519, and ML-DSA-44 beside it.

At the stated time, the checkpoint was the largest consistent tree of that origin that the cosigner
had seen. The type is the registered key's; one key never serves two types.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final, Self, TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ed25519, mldsa

from receipts import checkpoint, note
from receipts.note import Signature
from schemas.errors import Refused, Unreadable
from schemas.primitives import decode_base64

COSIGNATURE: Final = 0x04  # timestamped Ed25519 checkpoint cosignature
SUBTREE: Final = 0x06  # timestamped ML-DSA-44 (sub)tree cosignature
MAX_TIME: Final = 2**63 - 1  # POSIX seconds that a cosignature can state
ML_DSA_44_BYTES: Final = 1312  # of a public key (FIPS 204, table 2)
SIGNATURE_BYTES: Final = {COSIGNATURE: 64, SUBTREE: 2420}

PublicKey: TypeAlias = ed25519.Ed25519PublicKey | mldsa.MLDSA44PublicKey
PrivateKey: TypeAlias = ed25519.Ed25519PrivateKey | mldsa.MLDSA44PrivateKey


@dataclass(frozen=True, slots=True)
class CosignerKey:
    """A cosigner's verifier key. An Ed25519 one belongs to one cosigner: its name is not signed."""

    name: str
    key_id: bytes
    raw: bytes
    public: PublicKey = field(repr=False, compare=False)
    kind: int = COSIGNATURE

    @classmethod
    def of(cls, name: str, raw: bytes, kind: int = COSIGNATURE) -> Self:
        """Register a raw public key. Raises `Unreadable` or `Refused`."""
        note.check_name(name)
        return cls(name, note.key_id(name, kind, raw), raw, _public(raw, kind), kind)

    @classmethod
    def read(cls, vkey: str) -> Self:
        """Parse verifier key text of type 0x04 or 0x06. Raises `Unreadable` or `Refused`."""
        name, _, rest = vkey.partition("+")
        identifier, _, encoded = rest.partition("+")  # base64 may hold '+': the first two only
        data = decode_base64(encoded)
        if not re.fullmatch(r"[0-9a-f]{8}", identifier) or not data:
            raise Unreadable("note.vkey", "not a verifier key")
        key = cls.of(name, data[1:], data[0])
        if key.key_id.hex() != identifier:
            raise Refused("note.key_id", "the key id is not that of this name and key")
        return key

    @property
    def vkey(self) -> str:
        return note.format_vkey(self.name, self.key_id, self.kind, self.raw)

    def verify(self, signature: Signature, text: str) -> int:
        """The time (POSIX seconds) at which this key cosigned the checkpoint text.

        Raises `Refused`; `Unreadable` when the text is no checkpoint.
        """
        if (signature.name, signature.key_id) != (self.name, self.key_id):
            raise Refused("witness.other_key", "a signature line by another key")
        if len(signature.blob) != 8 + SIGNATURE_BYTES[self.kind]:
            raise Refused("witness.cosignature_length", f"not 8 + {SIGNATURE_BYTES[self.kind]} bytes")
        time = int.from_bytes(signature.blob[:8])
        if not 0 < time <= MAX_TIME:
            raise Refused("witness.time", "a cosignature states a time from 1 to 2^63−1")
        try:
            self.public.verify(signature.blob[8:], message(self.kind, self.name, text, time))
        except InvalidSignature:
            raise Refused("note.signature_invalid", f"the signature of {self.name} does not hold") from None
        return time


def _public(raw: bytes, kind: int) -> PublicKey:
    match kind:
        case 0x04:
            return note.ed25519_key(raw)
        case 0x06 if len(raw) == ML_DSA_44_BYTES:
            return mldsa.MLDSA44PublicKey.from_public_bytes(raw)
        case 0x06:
            raise Refused("note.key_length", f"an ML-DSA-44 key is {ML_DSA_44_BYTES} bytes")
    raise Refused("note.key_type", f"signature type 0x{kind:02x} is no cosignature")


@dataclass(frozen=True, slots=True)
class Cosigner:
    """A cosigner's private key under its name."""

    key: CosignerKey
    private: PrivateKey = field(repr=False, compare=False)

    @classmethod
    def of(cls, name: str, seed: bytes, kind: int = COSIGNATURE) -> Self:
        """From a 32-byte seed (RFC 8032 5.1.5, FIPS 204 6.1). Raises `Unreadable` or `Refused`."""
        if len(seed) != 32:
            raise Unreadable("note.seed", "a note key's seed is 32 bytes")
        private: PrivateKey
        if kind == SUBTREE:
            private = mldsa.MLDSA44PrivateKey.from_seed_bytes(seed)
        else:
            private = ed25519.Ed25519PrivateKey.from_private_bytes(seed)
        return cls(CosignerKey.of(name, private.public_key().public_bytes_raw(), kind), private)

    def sign(self, text: str, time: int) -> Signature:
        """A cosignature over checkpoint text: at that time it was the largest consistent tree seen."""
        if not 0 < time <= MAX_TIME:
            raise Refused("witness.time", "a cosignature states a time from 1 to 2^63−1")
        signed = self.private.sign(message(self.key.kind, self.key.name, text, time))
        return Signature(self.key.name, self.key.key_id, time.to_bytes(8) + signed)


def message(kind: int, name: str, text: str, time: int) -> bytes:
    """What a cosignature of this type signs. Raises `Unreadable` or `Refused` for what cannot be signed."""
    return cosignature_message(text, time) if kind == COSIGNATURE else subtree_message(name, text, time)


def cosignature_message(text: str, time: int) -> bytes:
    """What an Ed25519 cosignature signs (tlog-cosignature): a header, the time, the whole note text."""
    return f"cosignature/v1\ntime {time}\n{text}".encode()


def subtree_message(name: str, text: str, time: int) -> bytes:
    """What an ML-DSA-44 cosignature signs: the fields of the checkpoint, from leaf 0 (receipts.md 8.3).

    It does not cover extension lines, so a checkpoint that has any is refused.
    """
    stated = checkpoint.parse_text(text)
    if stated.extensions:
        raise Refused("checkpoint.extension", "an ML-DSA cosignature does not cover extension lines")
    return b"".join(
        (
            b"subtree/v1\n\0",
            _short(name),
            time.to_bytes(8),
            _short(stated.origin),
            (0).to_bytes(8),  # start: a whole tree
            stated.size.to_bytes(8),
            stated.root,
        )
    )


def _short(text: str) -> bytes:
    data = text.encode()
    if not 1 <= len(data) <= 255:
        raise Refused("witness.name_length", "a cosigned name is 1 to 255 bytes")
    return bytes([len(data)]) + data
