"""Checkpoints (C2SP tlog-checkpoint): a log's signed word about its size and root."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from receipts import note
from receipts.merkle import EMPTY_ROOT, MAX_SIZE
from receipts.note import Note, NoteKey
from schemas.errors import Refused, Unreadable
from schemas.primitives import decode_base64

_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,18}")
MAX_EXTENSION_LINES: Final = 64  # lines of other people's logs; ours carry none


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log states: so many leaves, and this root over them."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The note text, newline included: the bytes that log and witnesses sign."""
        lines = [self.origin, str(self.size), base64.b64encode(self.root).decode("ascii"), *self.extensions]
        return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class SignedCheckpoint:
    """A checkpoint with the note that carries it."""

    checkpoint: Checkpoint
    note: Note


def parse_text(text: str) -> Checkpoint:
    """Read checkpoint text strictly. Raises `Unreadable`, or `Refused` for a state that cannot be."""
    if not text.endswith("\n"):
        raise Unreadable("checkpoint.shape", "a checkpoint ends with a newline")
    lines = text[:-1].split("\n")
    if len(lines) < 3 or not all(lines) or len(lines) > 3 + MAX_EXTENSION_LINES:
        raise Unreadable("checkpoint.shape", "a checkpoint has three or more lines, none empty")
    origin, size_text, root_text, *extensions = lines
    if not _SIZE.fullmatch(size_text):  # no sign, no blank, no leading zero
        raise Unreadable("checkpoint.size", "not a decimal size")
    size, root = int(size_text), decode_base64(root_text)
    if len(root) != 32:
        raise Unreadable("checkpoint.root", "a root is 32 bytes")
    return _possible(Checkpoint(origin, size, root, tuple(extensions)))


def _possible(checkpoint: Checkpoint) -> Checkpoint:
    if checkpoint.size > MAX_SIZE:
        raise Refused("checkpoint.size_range", "a size above 2^63−1")
    if checkpoint.size == 0 and checkpoint.root != EMPTY_ROOT:
        raise Refused("checkpoint.empty_root", "an empty tree has one root only")
    return checkpoint


def read(data: bytes) -> SignedCheckpoint:
    """Parse a signed checkpoint without judging its signatures. Raises `Unreadable` or `Refused`."""
    parsed = note.read(data)
    return SignedCheckpoint(parse_text(parsed.text), parsed)


def verify(data: bytes, keys: Iterable[NoteKey], *, origin: str) -> SignedCheckpoint:
    """A checkpoint of a log like ours, that a known key of `origin` signed.

    Raises `Unreadable`, or `Refused` (`checkpoint.extension`, as `verify_any`).
    """
    signed = verify_any(data, keys, origin=origin)
    if signed.checkpoint.extensions:
        raise Refused("checkpoint.extension", "our logs write no extension lines")
    return signed


def verify_any(data: bytes, keys: Iterable[NoteKey], *, origin: str) -> SignedCheckpoint:
    """A checkpoint of whatever log, extension lines included, that a known key of `origin` signed.

    Raises `Unreadable`, or `Refused` (`checkpoint.origin`, as `note.verify`).
    """
    signed = read(data)
    if signed.checkpoint.origin != origin:
        raise Refused("checkpoint.origin", f"of {signed.checkpoint.origin}, not of {origin}")
    note.verify(signed.note, [key for key in keys if key.name == origin])
    return signed
