"""tlog-proof text (C2SP tlog-proof v1): a leaf's place under a checkpoint, in one file (receipts.md 8.4)."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from receipts import checkpoint, leaf
from receipts.checkpoint import SignedCheckpoint
from receipts.merkle import verify_inclusion
from receipts.note import MAX_NOTE_BYTES, NoteKey
from schemas.errors import Unreadable
from schemas.primitives import decode_base64

HEADER: Final = "c2sp.org/tlog-proof@v1"
MAX_HASHES: Final = 63  # a tree of 2^63 − 1 leaves is 63 levels high
MAX_PROOF_BYTES: Final = MAX_NOTE_BYTES + 8 * 1024  # the note, and 63 hashes of 45 characters
_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,18}")


@dataclass(frozen=True, slots=True)
class Proof:
    """A parsed proof. Nothing in it is trusted until `verify`."""

    index: int
    path: tuple[bytes, ...]
    note: bytes
    extra: bytes | None = None
    """The leaf salt here; it counts only by reproducing the leaf."""


@dataclass(frozen=True, slots=True)
class Logged:
    """A receipt proven to be in a log."""

    index: int
    checkpoint: SignedCheckpoint


def write(proof: Proof) -> bytes:
    """The proof's text."""
    lines = [HEADER]
    if proof.extra is not None:
        lines.append(f"extra {_base64(proof.extra)}")
    lines += [f"index {proof.index}", *(_base64(part) for part in proof.path), "", ""]
    return "\n".join(lines).encode() + proof.note


def read(data: bytes) -> Proof:
    """Parse proof text. Raises `Unreadable`."""
    if len(data) > MAX_PROOF_BYTES:
        raise Unreadable("proof.too_long", f"{len(data)} bytes, at most {MAX_PROOF_BYTES}")
    head, found, note = data.partition(b"\n\n")
    try:
        lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError:
        raise Unreadable("proof.encoding", "not ASCII before the checkpoint") from None
    if not found or lines[0] != HEADER:
        raise Unreadable("proof.header", f"not a {HEADER}")
    extra, rest = _extra(lines[1:])
    if not rest or not rest[0].startswith("index ") or not _INDEX.fullmatch(rest[0][6:]):
        raise Unreadable("proof.index", "no index line")
    if len(rest) - 1 > MAX_HASHES:
        raise Unreadable("proof.length", f"more than {MAX_HASHES} hashes")
    return Proof(int(rest[0][6:]), tuple(_hash(line) for line in rest[1:]), note, extra)


def verify(
    data: bytes,
    *,
    kind: leaf.Kind,
    receipt_digest: bytes,
    issuer_thumbprint: str,
    origin: str,
    keys: Iterable[NoteKey],
) -> Logged:
    """Rebuild a receipt's leaf from its salt and follow its proof. Raises `Unreadable` or `Refused`."""
    proof = read(data)
    if proof.extra is None:
        raise Unreadable("proof.salt", "no extra line: without its salt the leaf cannot be rebuilt")
    record = leaf.make(kind, proof.extra, receipt_digest, issuer_thumbprint)
    return _follow(proof, record.hash, checkpoint.verify(proof.note, keys, origin=origin))


def verify_leaf(proof: Proof, leaf_hash: bytes, *, origin: str, keys: Iterable[NoteKey]) -> Logged:
    """Follow the proof of any leaf, of whatever log, to a checkpoint that the log signed.

    The tree size is the signed one, never one given elsewhere. Raises `Unreadable` or `Refused`.
    """
    return _follow(proof, leaf_hash, checkpoint.verify_any(proof.note, keys, origin=origin))


def _follow(proof: Proof, leaf_hash: bytes, signed: SignedCheckpoint) -> Logged:
    stated = signed.checkpoint
    verify_inclusion(leaf_hash, proof.index, stated.size, proof.path, stated.root)
    return Logged(proof.index, signed)


def _extra(lines: list[str]) -> tuple[bytes | None, list[str]]:
    if lines and lines[0].startswith("extra "):
        return decode_base64(lines[0][6:]), lines[1:]
    return None, lines


def _hash(line: str) -> bytes:
    data = decode_base64(line)
    if len(data) != 32:
        raise Unreadable("proof.hash", "a hash is 32 bytes")
    return data


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
