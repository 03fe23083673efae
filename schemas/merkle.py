"""Merkle trees as RFC 6962 hashes them: roots and inclusion proofs over bytes.

Used for the challenges that one quote answers (schemas/proof/binding.py), for candidate sets, and, with
consistency proofs and compact ranges added, for the logs (receipts/merkle.py).
"""

from __future__ import annotations

from collections.abc import Sequence

from schemas.canonical import sha256
from schemas.errors import Refused

EMPTY_ROOT = sha256(b"")


def leaf_hash(record: bytes) -> bytes:
    """SHA-256(0x00 ‖ record), RFC 6962 2.1."""
    return sha256(b"\0", record)


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 ‖ left ‖ right), RFC 6962 2.1."""
    return sha256(b"\1", left, right)


def _split(size: int) -> int:
    """The largest power of two smaller than `size`."""
    return 1 << ((size - 1).bit_length() - 1)


def root(leaves: Sequence[bytes]) -> bytes:
    """Root over leaf *hashes*; 32 bytes."""
    if not leaves:
        return EMPTY_ROOT
    if len(leaves) == 1:
        return leaves[0]
    cut = _split(len(leaves))
    return node_hash(root(leaves[:cut]), root(leaves[cut:]))


def inclusion_path(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """Sibling hashes from the leaf up (RFC 6962 2.1.1)."""
    if not 0 <= index < len(leaves):
        raise IndexError(index)
    if len(leaves) == 1:
        return []
    cut = _split(len(leaves))
    if index < cut:
        return [*inclusion_path(leaves[:cut], index), root(leaves[cut:])]
    return [*inclusion_path(leaves[cut:], index - cut), root(leaves[:cut])]


def root_from_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes:
    """The root that this proof leads to (RFC 9162 2.1.3.2). Raises `Refused` on any wrong shape.

    The number of hashes must be exactly inner + border; nothing is ignored.
    """
    if size < 1 or not 0 <= index < size:
        raise Refused("merkle.index", "the index is outside the tree")
    if any(len(part) != 32 for part in (leaf, *path)):
        raise Refused("merkle.hash_length", "a hash is 32 bytes")
    inner = (index ^ (size - 1)).bit_length()
    border = (index >> inner).bit_count()
    if len(path) != inner + border:
        raise Refused("merkle.proof_length", f"{inner + border} hashes expected, {len(path)} given")
    result = leaf
    for level, sibling in enumerate(path[:inner]):
        result = node_hash(sibling, result) if index >> level & 1 else node_hash(result, sibling)
    for sibling in path[inner:]:
        result = node_hash(sibling, result)
    return result


def verify_inclusion(
    leaf: bytes, index: int, size: int, path: Sequence[bytes], expected_root: bytes
) -> bytes:
    """Return the root when the proof leads to it. Raises `Refused`."""
    if root_from_inclusion(leaf, index, size, path) != expected_root:
        raise Refused("merkle.inclusion", "the proof does not lead to this root")
    return expected_root
