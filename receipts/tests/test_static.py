"""Static tiles: a stranger with nothing but the resources finds the signed root again."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receipts import checkpoint, merkle
from receipts.commands.log import main
from receipts.log import static, store
from receipts.log.tiles import WIDTH, TileSource, Tree
from receipts.tests.conftest import code_of
from receipts.tests.world import CLINIC, Domain, drafts
from schemas.errors import ComityError, Refused, Unreadable


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 600])
async def test_the_resources_are_the_log(clinic: Domain, tmp_path: Path, size: int) -> None:
    log = await clinic.open(tmp_path)
    if size:
        await log.issue(drafts(size))
    await log.close()
    connection = store.connect(tmp_path / f"{CLINIC}.db", read_only=True)
    found = dict(static.resources(connection))
    stated = checkpoint.verify(found["checkpoint"], [clinic.keys.note.key], origin=clinic.origin).checkpoint
    leaves: list[bytes] = []
    for name in sorted(found):
        if name.startswith("tile/entries/"):
            hashes = [merkle.leaf_hash(record) for record in static.read_entry_bundle(found[name])]
            assert found[name.replace("entries", "0")] == b"".join(hashes)
            leaves += hashes
    assert (len(leaves), merkle.root(leaves)) == (stated.size, stated.root) == (size, stated.root)
    uppers = [found[name] for name in sorted(found) if name.startswith("tile/1/")]
    roots = [merkle.root(leaves[at : at + WIDTH]) for at in range(0, size - size % WIDTH, WIDTH)]
    assert b"".join(uppers) == b"".join(roots)
    connection.close()


async def test_only_what_a_checkpoint_implies_is_here(clinic: Domain, tmp_path: Path) -> None:
    log = await clinic.open(tmp_path)
    await log.issue(drafts(257))
    await log.close()
    connection = store.connect(tmp_path / f"{CLINIC}.db", read_only=True)
    for path in ("tile/0/000", "tile/0/001.p/1", "tile/1/000.p/1", "tile/entries/000", "checkpoint"):
        assert static.resource(connection, path)
    for path in ("tile/0/000.p/7", "tile/0/001", "tile/0/001.p/2", "tile/2/000.p/1", "tile/0/002.p/1"):
        assert code_of(lambda path=path: static.resource(connection, path)) == "static.not_here"  # type: ignore[misc]
    connection.close()


def test_a_log_without_checkpoints_has_nothing_to_show() -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE checkpoint (size, note)")
    assert code_of(lambda: static.resource(connection, "checkpoint")) == "static.not_here"
    connection.close()


@pytest.mark.parametrize(
    "path",
    [
        "", "tile", "tile/0/", "tile/0/0", "tile/0/1000", "tile/0/x000/001", "tile/64/000", "tile/-1/000",
        "tile/00/000", "tile/0/000.p/0", "tile/0/000.p/256", "tile/0/000.p/", "tile/0/001/x000",
        "tile/0/../checkpoint", "checkpoint/", "tile/entries/000\n",
    ],
)  # fmt: skip
def test_paths_that_are_none(path: str) -> None:
    assert code_of(lambda: static.read_path(path)) == "static.path"


def test_a_long_path() -> None:
    assert static.read_path("tile/3/x001/x234/067.p/9") == (3, 1_234_067, 9)
    assert static.read_path("tile/entries/000") == (-1, 0, WIDTH)


@pytest.mark.parametrize(
    "data", [b"\0", b"\0\1", b"\0\2x", b"\0\1xy", static.entry_bundle([b"x"] * (WIDTH + 1))]
)
def test_entry_bundles_that_are_none(data: bytes) -> None:
    assert code_of(lambda: static.read_entry_bundle(data)) == "static.entries"


@given(st.lists(st.binary(max_size=80), max_size=5), st.binary(max_size=40))
def test_entry_bundles(records: list[bytes], noise: bytes) -> None:
    assert static.read_entry_bundle(static.entry_bundle(records)) == records
    try:
        static.read_entry_bundle(noise)
    except (Unreadable, Refused) as error:
        assert error.code == "static.entries"  # noqa: PT017


async def test_the_log_as_files(clinic: Domain, tmp_path: Path) -> None:
    """Written by `comity log tiles`, read back by their paths alone, and they give the signed root."""
    log = await clinic.open(tmp_path)
    await log.issue(drafts(3))
    await log.close()
    folder = tmp_path / "static"
    assert main(["tiles", str(tmp_path / f"{clinic.name}.db"), str(folder)]) == 0
    signed = checkpoint.verify(read(folder, "checkpoint"), [clinic.keys.note.key], origin=clinic.origin)
    records = static.read_entry_bundle(read(folder, "tile/entries/000.p/3"))
    assert merkle.root([merkle.leaf_hash(record) for record in records]) == signed.checkpoint.root
    with pytest.raises(ComityError):
        main(["tiles", str(tmp_path / "absent.db"), str(folder)])


def read(folder: Path, name: str) -> bytes:
    return (folder / name).read_bytes()


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 511, 512, 513, 600])
async def test_proofs_from_whole_tiles_are_the_same(clinic: Domain, tmp_path: Path, size: int) -> None:
    """Eight hashes at a time or one by one: the proof is one and leads to the root."""
    log = await clinic.open(tmp_path)
    await log.issue(drafts(600))
    await log.close()
    with closing(store.connect(tmp_path / f"{CLINIC}.db", read_only=True)) as connection:
        source = TileSource(connection)
        root = merkle.range_root(0, size, source.node)
        for index in {each for each in (0, 1, size // 2, size - 1, 255, 256) if each < size}:
            path = source.inclusion(index, size)
            assert path == merkle.inclusion_proof(index, size, source.node)
            assert merkle.verify_inclusion(source.node(0, index), index, size, path, root) == root
        with pytest.raises(Refused):
            source.inclusion(size, size)


def test_proofs_across_the_second_level_of_tiles() -> None:
    """65,536 leaves fill a tile of tiles; beside it begins the next."""
    leaves = [merkle.leaf_hash(number.to_bytes(4)) for number in range(65_537 + 300)]
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE leaf (idx INTEGER PRIMARY KEY, record BLOB)")
        connection.execute(
            "CREATE TABLE tile (level INT, n INT, hashes BLOB, root BLOB, PRIMARY KEY (level, n))"
        )
        connection.executemany(
            "INSERT INTO leaf VALUES (?, ?)", [(n, n.to_bytes(4)) for n in range(len(leaves))]
        )
        _, filled = Tree().append(leaves)
        connection.executemany(
            "INSERT INTO tile VALUES (?, ?, ?, ?)",
            [(tile.level, tile.n, tile.hashes, tile.root) for tile in filled],
        )
        source = TileSource(connection)
        for size in (65_535, 65_536, 65_537, len(leaves)):
            for index in (0, 255, 256, 65_279, 65_280, 65_534, size - 1):
                path = source.inclusion(index, size)
                assert path == merkle.inclusion_proof(index, size, source.node)
