"""Proof that somebody said two things: kept, passed on, and checked with the accused's own key alone.

Six kinds convict (receipts.md 12): a log that signed two roots for one size; a log whose later
tree contains another earlier one than it had signed; a witness that cosigned both of such a pair;
an issuer that gave one number to two receipts; a log that put another leaf where it had promised one,
or none until after the promise's deadline (7.3). The last alone takes others' word beside the accused's
key: a quorum of witnesses says how late it was. A proof of consistency that merely fails convicts nobody,
and neither does a smaller tree that is consistent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Final, Literal

from pydantic import Field, ValidationError

from receipts import checkpoint, note
from receipts.checkpoint import Checkpoint, SignedCheckpoint
from receipts.cosignature import CosignerKey
from receipts.counted import counted
from receipts.merkle import roots_from_consistency, verify_consistency, verify_inclusion
from receipts.note import Note, NoteKey
from receipts.statements.fields import Camel
from receipts.statements.promise import InclusionPromise, parse_promise
from receipts.statements.receipt import MODELS
from receipts.statements.statement import parse_receipt, receipt_kind
from receipts.witnessing import quorum
from receipts.witnessing.quorum import Policy
from schemas import envelope
from schemas.canonical import sha256
from schemas.errors import Refused, Unreadable
from schemas.keys import VerifyKey
from schemas.primitives import Bytes64, format_time, parse_time

MAX_DOCUMENT_BYTES: Final = 2 * 1024 * 1024  # two notes of 512 KiB in base64, and 63 hashes
MAX_NOTE: Final = 700_000  # base64 characters of one note

Document = Annotated[Bytes64, Field(max_length=MAX_NOTE)]


class Equivocation(Camel):
    """The file `equivocation/v1`: two things that one party signed and that cannot both be true."""

    v: Literal[1] = 1
    kind: Literal["log-same-size", "log-histories", "witness", "issuer", "promise", "promise-late"]
    first: Document
    """A note (the smaller tree, where sizes differ), or the envelope of a receipt or a promise."""
    second: Document
    root: Bytes64 | None = None
    """What the second tree contains where the first document says otherwise: a root, or a promised leaf."""
    hashes: Annotated[list[Bytes64], Field(max_length=63)] = Field(default_factory=list)
    """Proof from `root` to the second note: of consistency from the first size, or of inclusion."""

    @property
    def digest(self) -> bytes:
        return sha256(self.write())


@dataclass(frozen=True, slots=True)
class Conviction:
    """What an equivocation shows."""

    accused: str
    """A log's origin, a witness's name, or an issuer's domain."""
    origin: str | None
    """The log that two trees are of."""
    from_size: int | None
    """Size of the smaller tree: what is proven under a checkpoint of this size or more is distrusted."""
    text: str


def read(data: bytes) -> Equivocation:
    """Parse a document. Raises `Unreadable`; convicts nobody."""
    return Equivocation.read(data, limit=MAX_DOCUMENT_BYTES)


def convict_log(document: Equivocation, keys: Iterable[NoteKey]) -> Conviction:
    """The log's own signatures stand under both trees. Raises `Refused` or `Unreadable`."""
    if document.kind not in ("log-same-size", "log-histories"):
        raise Refused("equivocation.kind", "no accusation of a log")
    first, second = (checkpoint.read(data) for data in (document.first, document.second))
    _conflict(document, first.checkpoint, second.checkpoint)
    origin = first.checkpoint.origin
    own = [key for key in keys if key.name == origin]
    for signed in (first, second):
        note.verify(signed.note, own)
    return _conviction(origin, first.checkpoint, second.checkpoint, f"log {origin}")


def convict_witness(document: Equivocation, key: CosignerKey) -> Conviction:
    """One witness cosigned both trees. Raises `Refused` or `Unreadable`."""
    if document.kind != "witness":
        raise Refused("equivocation.kind", "no accusation of a witness")
    first, second = (checkpoint.read(data) for data in (document.first, document.second))
    _conflict(document, first.checkpoint, second.checkpoint)
    for signed in (first, second):
        lines = [line for line in signed.note.signatures if line.key_id == key.key_id]
        if not lines:
            raise Refused("equivocation.unsigned", f"{key.name} did not cosign both")
        key.verify(lines[0], signed.note.text)
    return _conviction(key.name, first.checkpoint, second.checkpoint, f"witness {key.name}")


def convict_issuer(document: Equivocation, keys: Sequence[VerifyKey]) -> Conviction:
    """Two receipts with one number to one peer, both signed by the issuer. Raises as `envelope.verify`."""
    if document.kind != "issuer":
        raise Refused("equivocation.kind", "no accusation of an issuer")
    verified = [envelope.verify(each, envelope.STATEMENT, keys) for each in (document.first, document.second)]
    if verified[0].digest == verified[1].digest:
        # Another valid signature over the same words is the same receipt, not a second event.
        raise Refused("equivocation.same", "one receipt, twice")
    bodies = []
    for each in verified:
        if (model := MODELS.get(receipt_kind(each.payload))) is None:
            raise Refused("equivocation.kind", "not a receipt")
        bodies.append(parse_receipt(each.payload, model))
    names = {(body.issuer, body.peer, body.seq) for body in bodies}
    if len(names) != 1:
        raise Refused("equivocation.none", "two receipts with numbers of their own")
    issuer, peer, seq = names.pop()
    return Conviction(issuer, None, None, f"{issuer} gave number {seq} to {peer} to two receipts")


def convict_promise(
    document: Equivocation, promise_keys: Sequence[VerifyKey], log_keys: Iterable[NoteKey]
) -> Conviction:
    """The log promised one leaf and holds another in its place. Raises `Refused` or `Unreadable`."""
    if document.kind != "promise":
        raise Refused("equivocation.kind", "no accusation of a broken promise")
    promise, signed = _promised(document, promise_keys, log_keys)
    stated = signed.checkpoint
    if document.root is None or document.root.hex() == promise.leaf_hash:
        raise Refused("equivocation.none", "the promised leaf, or none at all")
    verify_inclusion(document.root, promise.index, stated.size, document.hashes, stated.root)
    text = f"log {stated.origin} holds another leaf at {promise.index} than it had promised"
    return Conviction(stated.origin, stated.origin, promise.index + 1, text)


def convict_late(
    document: Equivocation,
    promise_keys: Sequence[VerifyKey],
    log_keys: Iterable[NoteKey],
    policy: Callable[[], Policy],
    at: datetime,
) -> Conviction:
    """The log stood still past the deadline of its promise, too small for the leaf; a quorum saw it.

    `policy` says whose voices count over this log, its own operator's not among them; it is asked once
    the log's own signatures hold. `at`: the reader's clock. Raises `Refused` or `Unreadable`; `Undecided`
    (`quorum.*`) where too few that count saw it, or none were named.
    """
    if document.kind != "promise-late":
        raise Refused("equivocation.kind", "no accusation of a late promise")
    if document.root is not None or document.hashes:
        raise Refused("equivocation.shape", "what is not in a tree has no proof")
    promise, signed = _promised(document, promise_keys, log_keys)
    if signed.checkpoint.size > promise.index:
        raise Refused("equivocation.none", "the tree is large enough to hold the promised leaf")
    deadline = parse_time(promise.deadline)
    if at <= deadline:
        raise Refused("equivocation.not_due", f"promised until {promise.deadline}, which has not passed")
    # A cosignature with time t says: at t this was the largest tree that the witness had seen (C2SP
    # tlog-cosignature). So each voice by itself must lie past the deadline, and those alone must meet the
    # quorum: whichever of its members is honest then saw a tree without the leaf after the deadline. The
    # quorum time that dates a receipt would not do: it is the latest of the first k, and one lying witness
    # that states a late hour could accuse any log that its peers had cosigned in time.
    heard = policy()
    seen = quorum.cosigned(signed.note, heard.witnesses, at=at).latest
    past = {name: time for name, time in seen.items() if time > deadline.timestamp()}
    if not past:
        raise Refused("equivocation.none", "no witness that counts saw this tree past the deadline")
    moment = format_time(datetime.fromtimestamp(heard.until(past), UTC))
    text = f"log {promise.origin} did not hold at {moment} what it had promised until {promise.deadline}"
    return Conviction(promise.origin, promise.origin, promise.index + 1, text)


def _promised(
    document: Equivocation, promise_keys: Sequence[VerifyKey], log_keys: Iterable[NoteKey]
) -> tuple[InclusionPromise, SignedCheckpoint]:
    """The promise, and a checkpoint that the same log signed. Raises `Refused` or `Unreadable`."""
    promise = parse_promise(envelope.verify(document.first, envelope.STATEMENT, promise_keys).payload)
    signed = checkpoint.read(document.second)
    origin = signed.checkpoint.origin
    if origin != promise.origin:
        raise Refused("equivocation.origin", "another log than the one that promised")
    note.verify(signed.note, [key for key in log_keys if key.name == origin])
    return promise, signed


def _conflict(document: Equivocation, first: Checkpoint, second: Checkpoint) -> None:
    """Return if the two trees cannot be of one log. Raises `Refused` when they can."""
    if first.origin != second.origin:
        raise Refused("equivocation.origin", "two logs, not one")
    if first.size == second.size:
        if document.hashes or document.root is not None:
            raise Refused("equivocation.shape", "one size needs no proof")
        if first.root == second.root:
            raise Refused("equivocation.none", "the same tree twice")
        return
    if first.size > second.size or first.size == 0 or document.root is None:
        raise Refused("equivocation.shape", "two sizes, the smaller first and not empty, need a root")
    if document.root == first.root:
        raise Refused("equivocation.none", "the second tree continues the first")
    verify_consistency(first.size, second.size, document.root, second.root, document.hashes)


def _conviction(accused: str, first: Checkpoint, second: Checkpoint, who: str) -> Conviction:
    sizes = f"{first.size} and {counted(second.size, 'leaf', 'leaves')}"
    text = f"{who} signed two histories of {first.origin}, at {sizes}"
    return Conviction(accused, first.origin, first.size, text)


def between(first: bytes, second: bytes, hashes: Sequence[bytes] = ()) -> Equivocation | None:
    """The document that two notes of one log and a proof between them make; None where they make none.

    Signatures are not looked at: whoever receives the document checks them.
    """
    one, two = checkpoint.read(first).checkpoint, checkpoint.read(second).checkpoint
    if one.size == two.size:
        found = Equivocation(kind="log-same-size", first=first, second=second)
    else:
        if one.size > two.size:
            first, second, one, two = second, first, two, one
        root = _older_root(one.size, two, hashes)
        if root is None:
            return None
        found = Equivocation(kind="log-histories", first=first, second=second, root=root, hashes=list(hashes))
    try:
        _conflict(found, one, two)
    except Refused:
        return None
    return found


def late(promise: bytes, notes: Sequence[bytes]) -> Equivocation:
    """The document that a promise and one or more copies of a checkpoint make, cosignatures together.

    Each witness hands out its own line only (tlog-witness, monitoring), hence several copies. Raises
    `Unreadable`; `Refused` (`equivocation.shape`) for copies of different checkpoints. Signatures are not
    looked at: whoever receives the document checks them.
    """
    read = [note.read(each) for each in notes]
    if len({each.text for each in read}) != 1:
        raise Refused("equivocation.shape", "copies of one checkpoint are needed, not of several")
    lines = tuple(dict.fromkeys(line for each in read for line in each.signatures))
    merged = note.write(Note(read[0].text, lines))
    try:
        return Equivocation(kind="promise-late", first=promise, second=merged)
    except ValidationError:
        raise Unreadable(
            "equivocation.too_long", f"promise and note are at most {MAX_NOTE} bytes each"
        ) from None


def _older_root(size: int, second: Checkpoint, hashes: Sequence[bytes]) -> bytes | None:
    """The root at `size` that a consistency proof itself states; a power of two leaves it out."""
    if not 0 < size < second.size or size & (size - 1) == 0:
        return None
    try:
        old, new = roots_from_consistency(size, second.size, b"", hashes)
    except Refused:
        return None
    return old if new == second.root else None
