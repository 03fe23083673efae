"""A collateral bundle as a folder: the signed index, and beside it every piece under its SHA-256.

`comity attest fetch --bundle` writes it, `comity attest verify --bundle` reads it, agents serve it by hash.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Final

from attestation.collateral.pieces import put
from schemas.canonical import sha256
from schemas.errors import ConfigurationError, Refused, Unreadable
from schemas.keys import SigningKey
from schemas.proof.collateral import (
    MAX_INDEX_BYTES,
    MAX_PIECE_BYTES,
    MAX_PIECES,
    CollateralIndex,
    Signers,
    sign_index,
    verify_index,
    verify_pieces,
)

INDEX: Final = "index.json"


def write_bundle(
    folder: Path, documents: Iterable[bytes], *, issuer: str, key: SigningKey, at: datetime
) -> list[Path]:
    """Write the bundle, its index last; what an earlier one held and this does not is removed after that.

    A reader meets the old bundle, the new one, or one clear refusal: never a mixture that passes. Raises
    `Refused` where the documents make no bundle, `ConfigurationError` where the folder cannot be written.
    """
    listed = list(documents)
    index = CollateralIndex.over(listed, issuer=issuer, at=at)
    try:
        files = [put(folder / sha256(document).hex(), document) for document in listed]
        files = [*sorted(set(files)), put(folder / INDEX, sign_index(index, key))]
        for old in folder.iterdir():
            if old not in files and old.is_file():
                old.unlink()
    except OSError as error:
        raise ConfigurationError("collateral.bundle", f"{error.filename}: {error.strerror}") from None
    return files


def read_bundle(folder: Path) -> tuple[bytes, dict[str, bytes]]:
    """Index and pieces as they lie there, by file name; nothing is verified.

    Raises `ConfigurationError` for a folder without an index, `Refused` for one with too much in it.
    """
    pieces: dict[str, bytes] = {}
    try:
        index = _get(folder / INDEX, MAX_INDEX_BYTES)
        for file in sorted(folder.iterdir()):
            if file.name == INDEX:
                continue
            if not file.is_file():
                raise Refused("collateral.piece_surplus", f"{file} is no piece")
            if len(pieces) >= MAX_PIECES:
                raise Refused("collateral.piece_surplus", f"{folder}: more than {MAX_PIECES} pieces")
            pieces[file.name] = _get(file, MAX_PIECE_BYTES)
    except OSError as error:
        raise ConfigurationError(
            "collateral.bundle",
            f"{error.filename}: {error.strerror}; make one with comity attest fetch --bundle",
        ) from None
    return index, pieces


def load_bundle(folder: Path, signers: Signers, now: datetime) -> tuple[CollateralIndex, tuple[bytes, ...]]:
    """The verified index and its pieces. Raises as `read_bundle`, `verify_index` and `verify_pieces`."""
    data, pieces = read_bundle(folder)
    index = verify_index(data, signers, now)
    return index, verify_pieces(index, pieces)


def _get(file: Path, limit: int) -> bytes:
    with file.open("rb") as opened:
        data = opened.read(limit + 1)
    if len(data) > limit:
        raise Unreadable("collateral.bundle", f"{file}: more than {limit} bytes")
    return data
