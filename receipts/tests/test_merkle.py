"""Trees against the definition, at every size that changes their shape."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receipts import merkle
from receipts.log.tiles import Edge, Tree, tile_path, tiles_at
from receipts.merkle import EMPTY_RANGE, EMPTY_ROOT, NodeAt
from schemas.canonical import sha256
from schemas.errors import Refused

LEAVES = [merkle.leaf_hash(bytes([number])) for number in range(40)]


def node_of(leaves: Sequence[bytes]) -> NodeAt:
    """The definition itself: the hash over 2^level leaves."""
    return lambda level, index: merkle.root(leaves[index << level : (index + 1) << level])


def test_known_answers() -> None:
    """RFC 6962's empty root, and a two-leaf tree computed by hand with sha256sum."""
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    left, right = sha256(b"\0a"), sha256(b"\0b")
    assert merkle.root([merkle.leaf_hash(b"a"), merkle.leaf_hash(b"b")]) == sha256(b"\1", left, right)
    assert merkle.root([merkle.leaf_hash(b"a")]).hex() == (
        "022a6979e6dab7aa5ae4c3e5e45f7e977112a7e63593820dbec1ec738a24f93c"
    )


@pytest.mark.parametrize("size", range(1, 40))
def test_every_inclusion_proof_of_every_small_tree(size: int) -> None:
    leaves, node = LEAVES[:size], node_of(LEAVES)
    root = merkle.root(leaves)
    for index in range(size):
        path = merkle.inclusion_proof(index, size, node)
        assert path == merkle.inclusion_path(leaves, index)
        assert merkle.verify_inclusion(leaves[index], index, size, path, root) == root


@pytest.mark.parametrize("second", range(1, 40))
def test_every_consistency_proof_of_every_small_tree(second: int) -> None:
    node, new = node_of(LEAVES), merkle.root(LEAVES[:second])
    for first in range(1, second + 1):
        old = merkle.root(LEAVES[:first])
        proof = merkle.consistency_proof(first, second, node)
        assert merkle.verify_consistency(first, second, old, new, proof) == new
        for at in range(len(proof)):
            wrong = [*proof[:at], sha256(proof[at]), *proof[at + 1 :]]
            with pytest.raises(Refused):
                merkle.verify_consistency(first, second, old, new, wrong)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 255, 256, 257, 1000])
def test_the_compact_range_has_the_tree_s_root(size: int) -> None:
    leaves = [merkle.leaf_hash(number.to_bytes(4)) for number in range(size)]
    grown = EMPTY_RANGE.append(leaves[: size // 2]).append(leaves[size // 2 :])
    assert (grown.size, grown.root()) == (size, merkle.root(leaves))
    assert len(grown.roots) == size.bit_count()


@pytest.mark.parametrize("size", [255, 256, 257, 65_535, 65_536, 65_537])
def test_tiles_across_their_boundaries(size: int) -> None:
    leaves = [merkle.leaf_hash(number.to_bytes(4)) for number in range(size)]
    tree, filled = Tree().append(leaves[: size // 3])
    tree, more = tree.append(leaves[size // 3 :])
    filled += more
    full = {(tile.level, tile.n): tile for tile in filled}
    for level, (count, width) in enumerate(tiles_at(size)):
        assert sum(1 for at in full if at[0] == level) == count
        edge = tree.edges[level] if level < len(tree.edges) else Edge()
        assert (edge.range.size, len(edge.hashes)) == (width, width * 32)
    assert all(len(tile.hashes) == 8192 for tile in filled)
    assert full[0, 0].root == merkle.root(leaves[:256]) if size >= 256 else not full
    assert (tree.size, tree.root()) == (size, EMPTY_RANGE.append(leaves).root())


def test_tile_paths() -> None:
    assert [tile_path(number) for number in (0, 999, 1000, 1_000_000)] == [
        "000", "999", "x001/000", "x001/x000/000",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("given_", "code"),
    [
        ((0, 5, sha256(b"x"), LEAVES[0], []), "merkle.empty_root"),
        ((0, 0, EMPTY_ROOT, LEAVES[0], []), "merkle.empty_root"),
        ((0, 5, EMPTY_ROOT, LEAVES[0], [LEAVES[1]]), "merkle.proof_length"),
        ((5, 4, LEAVES[0], LEAVES[0], []), "merkle.size"),
        ((3, 3, LEAVES[0], LEAVES[1], []), "merkle.consistency"),
        ((3, 3, LEAVES[0], LEAVES[0], [LEAVES[1]]), "merkle.proof_length"),
        ((3, 5, LEAVES[0], LEAVES[1], []), "merkle.proof_length"),
        ((3, 5, LEAVES[0], LEAVES[1], [b"short"]), "merkle.hash_length"),
        ((3, 2**63, LEAVES[0], LEAVES[1], []), "merkle.size"),
        ((-1, 2, LEAVES[0], LEAVES[1], []), "merkle.size"),
    ],
)
def test_impossible_consistency_is_refused(
    given_: tuple[int, int, bytes, bytes, list[bytes]], code: str
) -> None:
    with pytest.raises(Refused) as refused:
        merkle.verify_consistency(*given_)
    assert refused.value.code == code


def test_a_node_is_no_leaf() -> None:
    """Leaf/node confusion: the inner node of two leaves, offered as a leaf's record."""
    inner = LEAVES[0] + LEAVES[1]
    root = merkle.root(LEAVES[:2])
    assert merkle.node_hash(LEAVES[0], LEAVES[1]) == root
    with pytest.raises(Refused):
        merkle.verify_inclusion(merkle.leaf_hash(inner), 0, 1, [], root)


@pytest.mark.parametrize("wrong", ["index", "size", "extra", "missing", "length"])
def test_a_proof_for_another_place_is_refused(wrong: str) -> None:
    path = merkle.inclusion_path(LEAVES[:7], 3)
    root = merkle.root(LEAVES[:7])
    index, size = 3, 7
    match wrong:
        case "index":
            index = 2
        case "size":
            size = 9
        case "extra":
            path = [*path, path[-1]]
        case "missing":
            path = path[:-1]
        case "length":
            path = [path[0][:31], *path[1:]]
    with pytest.raises(Refused):
        merkle.verify_inclusion(LEAVES[3], index, size, path, root)


HASHES = st.binary(max_size=40)


@given(st.integers(-2, 2**64), st.integers(-2, 2**64), HASHES, HASHES, st.lists(HASHES, max_size=70))
def test_verifiers_only_ever_refuse(
    first: int, second: int, one: bytes, two: bytes, proof: list[bytes]
) -> None:
    with contextlib.suppress(Refused):
        merkle.verify_consistency(first, second, one, two, proof)
    with contextlib.suppress(Refused):
        merkle.verify_inclusion(one, first, second, proof, two)
