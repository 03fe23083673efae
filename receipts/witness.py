"""A witness's judgement (C2SP tlog-witness, tlog-cosignature): pure; storing it is the caller's part.

`judge` answers one add-checkpoint request from what the witness last cosigned. A caller must store
the new state durably, in the same atomic step as the check, before the answer leaves: two requests
in flight must never roll it back (receipts.md 8.6).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Self

from cryptography.hazmat.primitives.asymmetric import ed25519

from receipts import checkpoint, note
from receipts.checkpoint import Checkpoint, SignedCheckpoint
from receipts.merkle import verify_consistency
from receipts.note import NoteKey, Signature
from schemas.errors import ComityError, Refused, Unreadable
from schemas.primitives import decode_base64

COSIGNATURE: Final = 0x04  # timestamped Ed25519 checkpoint cosignature
MAX_HASHES: Final = 63  # consistency hashes in one request (tlog-witness)
MAX_REQUEST_BYTES: Final = note.MAX_NOTE_BYTES + 4096  # the note, and 63 hashes of 45 characters
MAX_TIME: Final = 2**63 - 1  # POSIX seconds that a cosignature can state
SIZE_TYPE: Final = "text/x.tlog.size"
_OLD: Final = re.compile(r"old (0|[1-9][0-9]{0,18})")


@dataclass(frozen=True, slots=True)
class CosignerKey:
    """A witness's verifier key, type 0x04. Such a key belongs to one cosigner: its name is not signed."""

    name: str
    key_id: bytes
    raw: bytes
    public: ed25519.Ed25519PublicKey = field(repr=False, compare=False)

    @classmethod
    def of(cls, name: str, raw: bytes) -> Self:
        """Register a raw 32-byte key. Raises `Unreadable` or `Refused`."""
        note.check_name(name)
        return cls(name, note.key_id(name, COSIGNATURE, raw), raw, note.ed25519_key(raw))

    @property
    def vkey(self) -> str:
        return note.format_vkey(self.name, self.key_id, COSIGNATURE, self.raw)

    def verify(self, signature: Signature, text: str) -> int:
        """The time (POSIX seconds) at which this witness cosigned the checkpoint text. Raises `Refused`."""
        if (signature.name, signature.key_id) != (self.name, self.key_id):
            raise Refused("witness.other_key", "a signature line by another key")
        if len(signature.blob) != 8 + 64:
            raise Refused("witness.cosignature_length", "a cosignature is 8 + 64 bytes")
        time = int.from_bytes(signature.blob[:8])
        if not 0 < time <= MAX_TIME:
            raise Refused("witness.time", "a cosignature states a time from 1 to 2^63−1")
        key = NoteKey(self.name, self.key_id, self.raw, self.public)
        key.verify(signature.blob[8:], cosignature_message(text, time))
        return time


@dataclass(frozen=True, slots=True)
class Cosigner:
    """A witness's private key under its name."""

    key: CosignerKey
    private: ed25519.Ed25519PrivateKey = field(repr=False, compare=False)

    @classmethod
    def of(cls, name: str, seed: bytes) -> Self:
        """From a 32-byte seed. Raises `Unreadable`."""
        try:
            private = ed25519.Ed25519PrivateKey.from_private_bytes(seed)
        except ValueError:
            raise Unreadable("note.seed", "a note key's seed is 32 bytes") from None
        return cls(CosignerKey.of(name, private.public_key().public_bytes_raw()), private)

    def sign(self, text: str, time: int) -> Signature:
        """A cosignature over checkpoint text: at that time it was the largest consistent tree seen."""
        if not 0 < time <= MAX_TIME:
            raise Refused("witness.time", "a cosignature states a time from 1 to 2^63−1")
        blob = time.to_bytes(8) + self.private.sign(cosignature_message(text, time))
        return Signature(self.key.name, self.key.key_id, blob)


def cosignature_message(text: str, time: int) -> bytes:
    """What an Ed25519 cosignature signs (tlog-cosignature): a header, the time, the whole note text."""
    return f"cosignature/v1\ntime {time}\n{text}".encode()


@dataclass(frozen=True, slots=True)
class Request:
    """A parsed add-checkpoint request."""

    old_size: int
    hashes: tuple[bytes, ...]
    signed: SignedCheckpoint


def read_request(body: bytes) -> Request:
    """Parse an add-checkpoint body. Raises `Unreadable`, or `Refused` for a checkpoint that cannot be."""
    if len(body) > MAX_REQUEST_BYTES:
        raise Unreadable("witness.too_long", f"{len(body)} bytes, at most {MAX_REQUEST_BYTES}")
    head, found, rest = body.partition(b"\n\n")
    try:
        first, *lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError:
        raise Unreadable("witness.request", "not ASCII before the checkpoint") from None
    match = _OLD.fullmatch(first)
    if match is None or not found or len(lines) > MAX_HASHES:
        raise Unreadable("witness.request", "not an add-checkpoint request")
    return Request(int(match[1]), tuple(_hash(line) for line in lines), checkpoint.read(rest))


def _hash(line: str) -> bytes:
    data = decode_base64(line)
    if len(data) != 32:
        raise Unreadable("witness.hash", "a hash is 32 bytes")
    return data


@dataclass(frozen=True, slots=True)
class Answer:
    """What the witness says, and what it must have stored before it says so."""

    status: int
    body: bytes
    cosigned: Checkpoint | None = None
    """The new last checkpoint of this log; None where nothing changes."""
    content_type: str = "text/plain; charset=utf-8"
    reason: str | None = None
    """Code of the refusal, for the witness's own log. A refused checkpoint may be evidence: keep it."""


def judge(
    body: bytes,
    *,
    logs: dict[str, Sequence[NoteKey]],
    last: dict[str, Checkpoint],
    signer: Cosigner,
    time: int,
) -> Answer:
    """Answer one request. `logs`: origin → trusted keys; `last`: origin → what was cosigned last.

    The order of the conditions is the protocol's (tlog-witness): 400, 404, 403, 400, 409, 422, 200.
    """
    try:
        request = read_request(body)
    except Unreadable as error:
        return _refusal(400, error)
    except Refused as error:  # size 0 with a root that is not the empty one
        return _refusal(422, error)
    stated = request.signed.checkpoint
    if stated.origin not in logs:
        return _refusal(404, Refused("witness.unknown_log", f"no log {stated.origin} is known here"))
    try:
        note.verify(request.signed.note, logs[stated.origin])
    except Refused as error:
        return _refusal(403, error)
    if request.old_size > stated.size:
        return _refusal(400, Refused("witness.old_size", "the old size exceeds the checkpoint's"))
    before = last.get(stated.origin)
    known = 0 if before is None else before.size
    if request.old_size != known:
        return Answer(409, f"{known}\n".encode(), None, SIZE_TYPE, "witness.conflict")
    try:
        check_continues(before, stated, request.hashes)
    except Refused as error:
        return _refusal(422, error)
    line = note.format_signature(signer.sign(request.signed.note.text, time))
    return Answer(200, line.encode(), stated)


def check_continues(before: Checkpoint | None, stated: Checkpoint, hashes: Iterable[bytes]) -> Checkpoint:
    """Return the checkpoint if it continues what was cosigned before. Raises `Refused`."""
    proof = list(hashes)
    if before is None or before.size == 0:
        # A proof from size 0 says nothing, so it must be empty (receipts.md 7.2).
        if proof:
            raise Refused("merkle.proof_length", "no hash expected")
        return stated
    verify_consistency(before.size, stated.size, before.root, stated.root, proof)
    return stated


def _refusal(status: int, error: ComityError) -> Answer:
    return Answer(status, f"{error.text}\n".encode(), reason=error.code)
