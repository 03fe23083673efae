from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import merkle
from schemas.errors import Refused

LEAVES = st.lists(st.binary(max_size=8), min_size=1, max_size=70)


def naive_root(leaves: list[bytes]) -> bytes:
    """RFC 6962 2.1, level by level: an odd hash is carried up."""
    level = leaves
    while len(level) > 1:
        pairs = [level[at : at + 2] for at in range(0, len(level), 2)]
        level = [merkle.node_hash(*pair) if len(pair) == 2 else pair[0] for pair in pairs]
    return level[0]


@given(LEAVES, st.data())
def test_every_leaf_is_proved_and_nothing_else(records: list[bytes], data: st.DataObject) -> None:
    leaves = [merkle.leaf_hash(record) for record in records]
    root = merkle.root(leaves)
    assert root == naive_root(leaves)
    index = data.draw(st.integers(0, len(leaves) - 1))
    path = merkle.inclusion_path(leaves, index)
    assert merkle.verify_inclusion(leaves[index], index, len(leaves), path, root) == root
    wrong = data.draw(st.integers(0, len(leaves) + 1).filter(lambda other: other != index))
    if wrong >= len(leaves) or leaves[wrong] != leaves[index]:
        with pytest.raises(Refused):
            merkle.verify_inclusion(leaves[index], wrong, len(leaves), path, root)
    with pytest.raises(Refused):
        merkle.verify_inclusion(leaves[index], index, len(leaves), [*path, root], root)
    if path:
        with pytest.raises(Refused):
            merkle.verify_inclusion(leaves[index], index, len(leaves), path[:-1], root)


def test_the_empty_tree_and_the_known_answers() -> None:
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert merkle.root([]).hex() == empty
    # RFC 6962 test data of the reference implementation: the empty leaf, and a tree of two.
    assert merkle.leaf_hash(b"").hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    two = [merkle.leaf_hash(b""), merkle.leaf_hash(b"\0")]
    assert merkle.root(two).hex() == "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"


def test_an_index_outside_the_tree_is_the_callers_mistake() -> None:
    with pytest.raises(IndexError):
        merkle.inclusion_path([merkle.leaf_hash(b"")], 1)


def _bytes(text: str | None) -> bytes:
    return base64.b64decode(text or "")


def _verify(case: dict[str, Any]) -> bytes:
    path = [_bytes(part) for part in case["proof"] or []]
    leaf, root = _bytes(case["leafHash"]), _bytes(case["root"])
    return merkle.verify_inclusion(leaf, case["leafIdx"], case["treeSize"], path, root)


@pytest.mark.parametrize("folder", ["0", "1", "2"])
def test_inclusion_proofs_of_another_implementation(vectors: Path, folder: str) -> None:
    files = sorted((vectors / "merkle" / "inclusion" / folder).iterdir())
    assert len(files) >= 13
    for file in files:
        case = json.loads(file.read_bytes())
        if case["wantErr"]:
            with pytest.raises(Refused) as caught:
                _verify(case)
            assert caught.value.code.startswith("merkle."), file.name
        else:
            assert _verify(case) == _bytes(case["root"]), file.name
