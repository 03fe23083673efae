"""A collateral bundle: one dated, signed index over pieces that are named by their SHA-256.

What vendors give for verifying evidence (certificates, CRLs, TCB documents, manifests, OCSP answers) travels
apart from the evidence, shared by every kind of TEE. The signature says which domain put the bundle together
and when; it makes no piece true. Each piece is still verified to its vendor's root, at the time of judgement.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import Field, model_validator

from schemas import envelope
from schemas.canonical import Wire, sha256
from schemas.errors import Refused, Unreadable
from schemas.keys import SigningKey, VerifyKey
from schemas.papers.manifest import Role
from schemas.primitives import Digest, DomainName, Seconds

COLLATERAL: Final = "application/vnd.comity.collateral.v1+json"
ROLE: Final[Role] = "attestation-verifier"
"""Whoever speaks for a domain about evidence speaks for what evidence is verified with."""
MAX_PIECES: Final = 256  # as many documents as one appraisal takes (attestation.gpu.documents)
MAX_PIECE_BYTES: Final = (
    180 * 1024
)  # one bus message; the largest real piece, TCB info of a platform, has 32 KiB
MAX_BUNDLE_BYTES: Final = 8 * 1024 * 1024  # all pieces together: held in memory by an agent
MAX_INDEX_BYTES: Final = 64 * 1024  # the envelope: some 130 bytes a piece
CLOCK_TOLERANCE: Final = timedelta(seconds=30)  # between the clocks of two domains

Signers: TypeAlias = Callable[[str, datetime], Iterable[VerifyKey]]
"""(domain, time) → keys under which that domain signs bundles then. Raises `Refused` for a stranger."""


class Piece(Wire):
    """One document, by its bytes."""

    sha256: Digest
    size: Annotated[int, Field(ge=1, le=MAX_PIECE_BYTES)]
    """Bytes."""


class CollateralIndex(Wire):
    """What a bundle holds: every piece once, and nothing else."""

    v: Literal[1] = 1
    issuer: DomainName
    made: Seconds
    pieces: Annotated[list[Piece], Field(min_length=1, max_length=MAX_PIECES)]

    @model_validator(mode="after")
    def _in_order(self) -> CollateralIndex:
        names = [piece.sha256 for piece in self.pieces]
        if any(one >= other for one, other in pairwise(names)):
            raise ValueError("pieces stand in rising order of their digests, each once")
        if sum(piece.size for piece in self.pieces) > MAX_BUNDLE_BYTES:
            raise ValueError(f"more than {MAX_BUNDLE_BYTES} bytes together")
        return self

    @staticmethod
    def over(documents: Iterable[bytes], *, issuer: str, at: datetime) -> CollateralIndex:
        """The index over these documents. Raises `Refused` for none, too many, or one that is too large."""
        sizes = {sha256(document).hex(): len(document) for document in documents}
        if not 1 <= len(sizes) <= MAX_PIECES:
            raise Refused("collateral.piece_count", f"{len(sizes)} pieces, not 1 to {MAX_PIECES}")
        for name, size in sizes.items():
            if not 1 <= size <= MAX_PIECE_BYTES:
                raise Refused("collateral.piece_size", f"{name} has {size} bytes, not 1 to {MAX_PIECE_BYTES}")
        if sum(sizes.values()) > MAX_BUNDLE_BYTES:
            raise Refused("collateral.piece_size", f"more than {MAX_BUNDLE_BYTES} bytes together")
        pieces = [Piece(sha256=name, size=sizes[name]) for name in sorted(sizes)]
        return CollateralIndex(issuer=issuer, made=int(at.timestamp()), pieces=pieces)


def sign_index(index: CollateralIndex, key: SigningKey) -> bytes:
    """The index in its envelope, under a key of the role `ROLE`."""
    return envelope.sign(COLLATERAL, index.write(), key)


def verify_index(data: bytes, signers: Signers, now: datetime) -> CollateralIndex:
    """The index, if its issuer signed it with a key that was good when it was made, and not in the future.

    Raises `Unreadable` when the bytes are no index; `Refused` (`collateral.future`, and as `signers` and
    `envelope.verify`). Its age is not judged: every piece has its own dates.
    """
    parsed = envelope.read(data, limit=MAX_INDEX_BYTES)
    if parsed.payload_type != COLLATERAL:
        raise Unreadable("collateral.index", "the envelope of something else")
    index = CollateralIndex.read(parsed.payload, limit=MAX_INDEX_BYTES)
    made = datetime.fromtimestamp(index.made, tz=now.tzinfo)
    if made > now + CLOCK_TOLERANCE:
        raise Refused("collateral.future", f"made at {made.isoformat()}, which is yet to come")
    envelope.verify(data, COLLATERAL, signers(index.issuer, made))
    return index


def verify_pieces(index: CollateralIndex, held: Mapping[str, bytes]) -> tuple[bytes, ...]:
    """Every piece that the index names, in its order. held: name → bytes, all that came with the index.

    Raises `Refused`: `collateral.piece_missing`, `collateral.piece_surplus`, `collateral.piece_altered`.
    """
    listed = {piece.sha256: piece for piece in index.pieces}
    if surplus := sorted(held.keys() - listed.keys()):
        raise Refused("collateral.piece_surplus", f"{surplus[0]:.80} is not in the signed index")
    if missing := sorted(listed.keys() - held.keys()):
        raise Refused("collateral.piece_missing", f"{missing[0]} is in the index and not in the bundle")
    return tuple(verify_piece(piece, held[piece.sha256]) for piece in index.pieces)


def verify_piece(piece: Piece, data: bytes) -> bytes:
    """The bytes, if they are this piece. Raises `Refused` (`collateral.piece_altered`)."""
    if len(data) != piece.size or sha256(data).hex() != piece.sha256:
        raise Refused("collateral.piece_altered", f"{piece.sha256} is not what its name says")
    return data
