"""A folder of pieces that several processes may share: nobody meets half of a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from attestation.collateral.pieces import Pieces, put
from attestation.files import UNFINISHED, read_documents
from attestation.testing.forge import NOW, Forge

MILAN = Forge.of("Milan")


def test_two_who_write_one_file_at_once_both_write_it_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As two nodes' fetchers do that share a folder."""
    file, write = tmp_path / "piece", Path.write_bytes

    def interrupted(path: Path, data: bytes) -> int:
        written = write(path, data)
        if data == b"mine":
            put(file, b"another's")
            assert file.read_bytes() == b"another's"
        return written

    monkeypatch.setattr(Path, "write_bytes", interrupted)
    put(file, b"mine")
    assert file.read_bytes() == b"mine"
    assert list(tmp_path.iterdir()) == [file]


def test_what_is_just_being_written_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "whole.der").write_bytes(MILAN.leaf())
    (tmp_path / f"half.der{UNFINISHED}").write_bytes(MILAN.crl()[:99])
    assert read_documents(tmp_path) == [MILAN.leaf()]


def test_what_another_is_just_writing_is_no_kept_piece(tmp_path: Path) -> None:
    """It is gone as soon as it is whole."""
    pieces = Pieces(tmp_path)
    name = "tdx/qe_identity"
    piece = pieces.take(name, MILAN.leaf(), "der", 0, NOW.timestamp())
    unfinished = piece.rename(piece.with_name(f"{piece.name}.0{UNFINISHED}"))
    assert pieces.find(name) is None
    unfinished.rename(piece)
    assert pieces.find(name) == piece
