"""A witness's judgement (C2SP tlog-witness, tlog-cosignature): pure; storing it is the caller's part.

`judge` answers one add-checkpoint request from what the witness last cosigned. A caller must store
the new state durably, in the same atomic step as the check, before the answer leaves: two requests
in flight must never roll it back (receipts.md 8.6).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from receipts import checkpoint, note
from receipts.checkpoint import Checkpoint, SignedCheckpoint
from receipts.cosignature import COSIGNATURE, MAX_TIME, Cosigner, CosignerKey, cosignature_message
from receipts.merkle import verify_consistency
from receipts.note import Note, NoteKey
from schemas.errors import ComityError, Refused, Unreadable
from schemas.primitives import decode_base64

__all__ = [
    "COSIGNATURE",
    "MAX_TIME",
    "Answer",
    "Cosigner",
    "CosignerKey",
    "Request",
    "check_continues",
    "cosignature_message",
    "judge",
    "read_request",
    "stated_origin",
]

MAX_HASHES: Final = 63  # consistency hashes in one request (tlog-witness)
MAX_REQUEST_BYTES: Final = note.MAX_NOTE_BYTES + 4096  # the note, and 63 hashes of 45 characters
SIZE_TYPE: Final = "text/x.tlog.size"
_OLD: Final = re.compile(r"old (0|[1-9][0-9]{0,18})")


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
    also: Sequence[Cosigner] = (),
) -> Answer:
    """Answer one request. `logs`: origin → trusted keys; `last`: origin → what was cosigned last;
    `also`: further keys of this witness, of other types, that sign beside `signer`.

    The order of the conditions is the protocol's (tlog-witness): 400, 404, 403, 400, 409, 422, 200.
    """
    try:
        request = read_request(body)
    except Unreadable as error:
        return _refusal(400, error)
    except Refused as error:
        return _impossible(body, logs, last, error)
    stated = request.signed.checkpoint
    if (refused := _unauthorised(stated.origin, request.signed.note, logs)) is not None:
        return refused
    before = last.get(stated.origin)
    if (refused := _out_of_step(request.old_size, stated.size, before)) is not None:
        return refused
    try:
        check_continues(before, stated, request.hashes)
    except Refused as error:
        return _refusal(422, error)
    text = request.signed.note.text
    # An ML-DSA cosignature does not cover extension lines (tlog-cosignature): it stays away from them.
    signers = (signer, *(each for each in also if not stated.extensions))
    lines = [note.format_signature(each.sign(text, time)) for each in signers]
    return Answer(200, "".join(lines).encode(), stated)


def _unauthorised(origin: str, signed: Note, logs: dict[str, Sequence[NoteKey]]) -> Answer | None:
    """404 for a log that nobody here knows, 403 for a note that its trusted keys did not sign."""
    if origin not in logs:
        return _refusal(404, Refused("witness.unknown_log", f"no log {origin} is known here"))
    try:
        note.verify(signed, logs[origin])
    except Refused as error:
        return _refusal(403, error)
    return None


def _out_of_step(old_size: int, size: int, before: Checkpoint | None) -> Answer | None:
    """400 for an old size beyond the new one, 409 for one that is not what was cosigned last."""
    if old_size > size:
        return _refusal(400, Refused("witness.old_size", "the old size exceeds the checkpoint's"))
    known = 0 if before is None else before.size
    if old_size != known:
        return Answer(409, f"{known}\n".encode(), None, SIZE_TYPE, "witness.conflict")
    return None


def _impossible(
    body: bytes, logs: dict[str, Sequence[NoteKey]], last: dict[str, Checkpoint], error: Refused
) -> Answer:
    """A checkpoint that no log can have: size 0 with another root is 422, where nothing before it fails."""
    if error.code != "checkpoint.empty_root":
        return _refusal(400, error)
    head, _, rest = body.partition(b"\n\n")
    signed, old_size = note.read(rest), int(head.partition(b"\n")[0].removeprefix(b"old "))
    origin = _origin(signed)
    refused = _unauthorised(origin, signed, logs) or _out_of_step(old_size, 0, last.get(origin))
    return refused or _refusal(422, error)


def stated_origin(body: bytes) -> str:
    """The log that a request is about; nothing of it is believed. Raises `Unreadable`."""
    return _origin(note.read(body.partition(b"\n\n")[2]))


def _origin(signed: Note) -> str:
    return signed.text.partition("\n")[0]


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
