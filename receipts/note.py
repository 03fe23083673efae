"""C2SP signed notes: a text, an empty line, signature lines; and the keys that verify them.

A signature by a known key that fails spoils the whole note; one by an unknown key counts for
nothing; no valid known signature means refused.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ed25519

from schemas.canonical import sha256
from schemas.errors import Refused, Unreadable
from schemas.primitives import decode_base64

ED25519: Final = 0x01
MAX_NOTE_BYTES: Final = 512 * 1024  # a checkpoint with every signature it may carry stays far below
MAX_SIGNATURES: Final = 64  # signed-note asks readers for at least 16
MAX_NAME_BYTES: Final = 255  # what a cosigned structure can hold in its one-byte length
_LEAD: Final = "— "  # U+2014, space
_CONTROL: Final = re.compile(r"[\x00-\x09\x0b-\x1f]")  # all below U+0020 but the newline
_NOT_IN_NAMES: Final = re.compile(r"[\s+\x00-\x1f]")

# p = 2^255 − 19; points whose order divides 8, by y coordinate. A key among them verifies anything.
_P: Final = 2**255 - 19
_SMALL_ORDER_Y: Final = frozenset(
    {
        0,
        1,
        _P - 1,
        0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7,
        0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
    }
)


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line, not yet judged."""

    name: str
    key_id: bytes
    blob: bytes
    """What follows the 4-byte key id."""


@dataclass(frozen=True, slots=True)
class Note:
    """A parsed note. `text` ends with its newline and is what the signatures cover."""

    text: str
    signatures: tuple[Signature, ...]


@dataclass(frozen=True, slots=True)
class NoteKey:
    """An Ed25519 verifier key of type 0x01 under its name."""

    name: str
    key_id: bytes
    raw: bytes
    public: ed25519.Ed25519PublicKey = field(repr=False, compare=False)

    @classmethod
    def of(cls, name: str, raw: bytes) -> Self:
        """Register a raw 32-byte key. Raises `Refused` for one that everybody can sign for."""
        check_name(name)
        return cls(name, key_id(name, ED25519, raw), raw, ed25519_key(raw))

    @classmethod
    def read(cls, vkey: str) -> Self:
        """Parse verifier key text `name+hhhhhhhh+base64`. Raises `Unreadable` or `Refused`."""
        name, _, rest = vkey.partition("+")
        identifier, _, encoded = rest.partition("+")  # base64 may hold '+': the first two only
        data = decode_base64(encoded)
        if not re.fullmatch(r"[0-9a-f]{8}", identifier) or not data:
            raise Unreadable("note.vkey", "not a verifier key")
        if data[0] != ED25519:
            raise Refused("note.key_type", f"signature type 0x{data[0]:02x} is not Ed25519")
        key = cls.of(name, data[1:])
        if key.key_id.hex() != identifier:
            raise Refused("note.key_id", "the key id is not that of this name and key")
        return key

    @property
    def vkey(self) -> str:
        return format_vkey(self.name, self.key_id, ED25519, self.raw)

    def verify(self, blob: bytes, text: bytes) -> None:
        """Return if `blob` is this key's signature over the text. Raises `Refused`."""
        try:
            self.public.verify(blob, text)
        except InvalidSignature:
            raise Refused("note.signature_invalid", f"the signature of {self.name} does not hold") from None


@dataclass(frozen=True, slots=True)
class NoteSigner:
    """A log's private Ed25519 key under its name. Only the holder of the log loads it."""

    key: NoteKey
    private: ed25519.Ed25519PrivateKey = field(repr=False, compare=False)

    @classmethod
    def of(cls, name: str, seed: bytes) -> Self:
        """From the 32-byte seed of RFC 8032 5.1.5. Raises `Unreadable`."""
        try:
            private = ed25519.Ed25519PrivateKey.from_private_bytes(seed)
        except ValueError:
            raise Unreadable("note.seed", "a note key's seed is 32 bytes") from None
        return cls(NoteKey.of(name, private.public_key().public_bytes_raw()), private)

    def sign(self, text: str) -> bytes:
        """A whole note: the text, an empty line, one signature line."""
        blob = self.private.sign(text.encode())
        return write(Note(text, (Signature(self.key.name, self.key.key_id, blob),)))


def key_id(name: str, kind: int, public: bytes) -> bytes:
    """First 4 bytes of SHA-256(name ‖ 0x0A ‖ type ‖ public key) (signed-note, Signatures)."""
    return sha256(name.encode(), b"\n", bytes([kind]), public)[:4]


def format_vkey(name: str, identifier: bytes, kind: int, public: bytes) -> str:
    """Verifier key text."""
    return f"{name}+{identifier.hex()}+{_base64(bytes([kind]) + public)}"


def ed25519_key(raw: bytes) -> ed25519.Ed25519PublicKey:
    """An Ed25519 public key fit to be registered. Raises `Refused`.

    Refuses what RFC 8032 5.1.3 calls undecodable, and points of small order: the library's
    verifier accepts some of them, and then every message verifies.
    """
    if len(raw) != 32:
        raise Refused("note.key_length", "an Ed25519 key is 32 bytes")
    y = int.from_bytes(raw, "little") & (2**255 - 1)
    if y >= _P or y in _SMALL_ORDER_Y:
        raise Refused("note.weak_key", "a key of small order or not in canonical form")
    try:
        return ed25519.Ed25519PublicKey.from_public_bytes(raw)
    except ValueError:
        raise Refused("note.weak_key", "not a point on the curve") from None


def check_name(name: str) -> str:
    """Return a key name that signed-note allows: not empty, no space, no plus. Raises `Unreadable`."""
    if not name or _NOT_IN_NAMES.search(name) or len(_utf8(name)) > MAX_NAME_BYTES:
        raise Unreadable("note.name", "a key name is not empty and holds neither blanks nor plus signs")
    return name


def read(data: bytes) -> Note:
    """Split a note at its last empty line and parse every line after it. Raises `Unreadable`."""
    if len(data) > MAX_NOTE_BYTES:
        raise Unreadable("note.too_long", f"{len(data)} bytes, at most {MAX_NOTE_BYTES}")
    try:
        whole = data.decode("utf-8")
    except UnicodeDecodeError:
        raise Unreadable("note.encoding", "not UTF-8") from None
    if _CONTROL.search(whole):
        raise Unreadable("note.control", "a control character")
    head, found, tail = whole.rpartition("\n\n")
    if not found or not tail.endswith("\n"):
        raise Unreadable("note.shape", "no text, empty line and signature lines")
    return Note(head + "\n", read_signatures(tail))


def read_signatures(tail: str) -> tuple[Signature, ...]:
    """Signature lines, each ending in a newline; at least one. Raises `Unreadable` on anything else."""
    lines = tail.removesuffix("\n").split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise Unreadable("note.signature_count", f"{len(lines)} signatures, at most {MAX_SIGNATURES}")
    return tuple(_signature(line) for line in lines)


def write(note: Note) -> bytes:
    """The note's bytes. Raises `Unreadable` for a text that could not be read back."""
    if not note.text.endswith("\n"):
        raise Unreadable("note.shape", "a note's text ends with a newline")
    return (note.text + "\n" + "".join(format_signature(line) for line in note.signatures)).encode()


def format_signature(signature: Signature) -> str:
    """One signature line with its newline."""
    return f"{_LEAD}{signature.name} {_base64(signature.key_id + signature.blob)}\n"


def verify(note: Note, keys: Iterable[NoteKey]) -> tuple[Signature, ...]:
    """The signatures that known keys made, at least one.

    Raises `Refused`: `note.signature_invalid` when a known key's line fails, `note.no_known_signer`.
    """
    known = {(key.name, key.key_id): key for key in keys}
    text = note.text.encode()
    held: list[Signature] = []
    for signature in note.signatures:
        key = known.get((signature.name, signature.key_id))
        if key is not None:
            key.verify(signature.blob, text)
            held.append(signature)
    return _some(held)


def _some(held: Sequence[Signature]) -> tuple[Signature, ...]:
    if not held:
        raise Refused("note.no_known_signer", "no known key signed this note")
    return tuple(held)


def _signature(line: str) -> Signature:
    name, space, encoded = line.removeprefix(_LEAD).partition(" ")
    if not line.startswith(_LEAD) or not space:
        raise Unreadable("note.signature_line", "a line after the empty line is no signature")
    data = decode_base64(encoded)
    if len(data) < 5:
        raise Unreadable("note.signature_line", "a signature line is too short")
    return Signature(check_name(name), data[:4], data[4:])


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise Unreadable("note.encoding", "a lone surrogate") from None


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
