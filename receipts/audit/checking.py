"""One receipt alone: signature, strict reading, right to sign, leaf, and what its row says of it.

Files and keys come from the caller. Imports little: workers of an audit start with this.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

from receipts import leaf
from receipts.audit.rows import Row
from receipts.statements import packed
from receipts.statements.receipt import KINDS as RECEIPT_KINDS
from receipts.statements.receipt import MODELS, Receipt
from receipts.statements.statement import parse_receipt
from receipts.statements.written import Essence, read_written
from schemas import envelope
from schemas.envelope import Verified
from schemas.errors import ComityError, Refused
from schemas.keys import Jwk, VerifyKey
from schemas.primitives import parse_time

PREDICATES_BY_KIND: Final = {int(kind): name for name, kind in RECEIPT_KINDS.items()}


@dataclass(frozen=True, slots=True)
class Signer:
    """A receipt key of the log's domain, as its manifest registers it."""

    jwk: Jwk
    not_before: int
    """POSIX seconds."""
    not_after: int
    revoked: str | None
    """Why, where it was."""


@dataclass(frozen=True)
class Signers:
    """Who may sign receipts of one log."""

    domain: str
    federation: str
    signers: tuple[Signer, ...]

    @cached_property
    def keys(self) -> list[VerifyKey]:
        return [VerifyKey.from_jwk(each.jwk) for each in self.signers]

    @cached_property
    def by_thumbprint(self) -> dict[str, Signer]:
        return {key.thumbprint: each for key, each in zip(self.keys, self.signers, strict=True)}


class Checked(NamedTuple):
    """A receipt as far as it was believed."""

    row: Row
    prev: str | None = None
    """What it names as its predecessor; None when it was erased or not believed."""
    error: ComityError | None = None
    """Why it was not."""
    body: Receipt | None = None
    """All that it says, where that was asked for."""


def check_all(rows: Iterable[Row], signers: Signers, *, whole: bool) -> list[Checked]:
    """Authenticate receipts. What is wrong with one is in its result; `whole` keeps what it says, too.

    All signatures first, then all contents: in turns, each would find the processor's caches full of the
    other, which costs a fifth (measured).
    """
    opened = [(row, _opened(row, signers)) for row in rows]
    return [_judged(row, found, signers, whole=whole) for row, found in opened]


def _opened(row: Row, signers: Signers) -> Verified | ComityError | None:
    """What was signed, or why nothing was; None for an erased receipt."""
    if not row.packed:
        return None
    try:
        return envelope.verify_one(packed.read(row.packed), envelope.STATEMENT, signers.keys)
    except ComityError as error:
        return error


def _judged(row: Row, found: Verified | ComityError | None, signers: Signers, *, whole: bool) -> Checked:
    if found is None or isinstance(found, ComityError):
        return Checked(row, error=found)
    try:
        said, body = _check_content(row, found, signers, whole=whole)
    except ComityError as error:
        return Checked(row, error=error)
    return Checked(row, said.prev, body=body if whole else None)


def _check_content(
    row: Row, verified: Verified, signers: Signers, *, whole: bool
) -> tuple[Essence, Receipt | None]:
    """Strict reading, right to sign, leaf, and what the row says. Raises `Unreadable` or `Refused`."""
    if row.kind not in PREDICATES_BY_KIND:
        raise Refused("audit.kind", "not a receipt")
    said, body = _read(verified.payload, PREDICATES_BY_KIND[row.kind], whole=whole)
    if (said.issuer, said.federation) != (signers.domain, signers.federation):
        raise Refused("audit.issuer", f"issued by {said.issuer} in {said.federation}")
    _check_key(signers.by_thumbprint[verified.signer], said.issued)
    _check_leaf(row, verified.digest, verified.signer)
    if (verified.digest, said.receipt_id, said.peer, said.seq) != (
        row.digest, row.receipt_id, row.peer, row.seq,
    ):  # fmt: skip
        raise Refused("audit.row", "the database's row says something else than the receipt does")
    return said, body


def _read(payload: bytes, predicate_type: str, *, whole: bool) -> tuple[Essence, Receipt | None]:
    """The leaf's own kind says how to read it: another kind of receipt does not parse as this one."""
    short = None if whole else read_written(payload, predicate_type)
    if short is not None:
        return short, None
    body = parse_receipt(payload, MODELS[predicate_type])
    return Essence.of(body), body


def _check_key(key: Signer, issued: str) -> Signer:
    if not key.not_before <= int(parse_time(issued).timestamp()) < key.not_after:
        raise Refused("audit.key_time", "issued outside the key's time")
    if key.revoked is not None:
        # What was witnessed before the theft is judged with its cosignatures: `comity receipt verify`.
        raise Refused("audit.key_revoked", f"the key was revoked ({key.revoked})")
    return key


def _check_leaf(row: Row, digest: bytes, signer: str) -> bytes:
    """Return the leaf if it is this receipt's. Raises `Refused`."""
    if row.record is None:
        raise Refused("audit.leaf", f"leaf {row.leaf} is missing")
    if row.salt is None:
        raise Refused("audit.salt", "its salt is gone though the receipt is not")
    if leaf.make(leaf.Kind(row.kind), row.salt, digest, signer).write() != row.record:
        raise Refused("audit.leaf", f"leaf {row.leaf} is another receipt's")
    return row.record
