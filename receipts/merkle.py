"""Merkle trees of the log: inclusion, consistency, and the compact right edge (RFC 6962, RFC 9162).

Hashing, roots and inclusion come from `schemas.merkle`, which the whole house shares. Here are the
proofs that one tree continues another, and the few hashes that let a log append without rereading.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from schemas.errors import Refused
from schemas.merkle import (
    EMPTY_ROOT,
    inclusion_path,
    leaf_hash,
    node_hash,
    root,
    root_from_inclusion,
    verify_inclusion,
)

__all__ = [
    "EMPTY_RANGE",
    "EMPTY_ROOT",
    "MAX_SIZE",
    "CompactRange",
    "NodeAt",
    "consistency_proof",
    "inclusion_path",
    "inclusion_proof",
    "leaf_hash",
    "node_hash",
    "range_root",
    "root",
    "root_from_inclusion",
    "roots_from_consistency",
    "verify_consistency",
    "verify_inclusion",
]

MAX_SIZE: Final = 2**63 - 1  # leaves; the checkpoint format's own limit (tlog-checkpoint)

NodeAt: TypeAlias = Callable[[int, int], bytes]
"""(level, index) → hash of the perfect subtree over leaves [index·2^level, (index+1)·2^level)."""


@dataclass(frozen=True, slots=True)
class CompactRange:
    """The roots of the perfect subtrees along a tree's right edge, largest first: at most 63 hashes."""

    size: int
    roots: tuple[bytes, ...]

    def append(self, leaves: Iterable[bytes]) -> CompactRange:
        """The range with these leaf hashes added; amortised one hash a leaf."""
        size, roots = self.size, list(self.roots)
        for leaf in leaves:
            node, carry = leaf, size
            while carry & 1:
                node = node_hash(roots.pop(), node)
                carry >>= 1
            roots.append(node)
            size += 1
        return CompactRange(size, tuple(roots))

    def root(self) -> bytes:
        """Root of the tree; `EMPTY_ROOT` for none."""
        if not self.roots:
            return EMPTY_ROOT
        *rest, result = self.roots
        for node in reversed(rest):
            result = node_hash(node, result)
        return result


EMPTY_RANGE: Final = CompactRange(0, ())


def range_root(begin: int, end: int, node: NodeAt) -> bytes:
    """Hash over leaves [begin, end) of any tree that `node` can read; `begin` aligned as RFC 6962 cuts."""
    size = end - begin
    level = size.bit_length() - 1
    if size == 1 << level:
        return node(level, begin >> level)
    cut = begin + (1 << level)
    return node_hash(range_root(begin, cut, node), range_root(cut, end, node))


def inclusion_proof(index: int, size: int, node: NodeAt, *, above: int = 1) -> list[bytes]:
    """Sibling hashes from the leaf up (RFC 6962 2.1.1). Raises `Refused` outside the tree.

    `above`: only those above the perfect subtree of so many leaves that the leaf stands in.
    """
    if not 0 <= index < size:
        raise Refused("merkle.index", "the index is outside the tree")
    begin, end, siblings = 0, size, list[bytes]()
    while end - begin > above:
        cut = begin + (1 << ((end - begin - 1).bit_length() - 1))
        if index < cut:
            siblings.append(range_root(cut, end, node))
            end = cut
        else:
            siblings.append(range_root(begin, cut, node))
            begin = cut
    return siblings[::-1]


def consistency_proof(first: int, second: int, node: NodeAt) -> list[bytes]:
    """Hashes that show the tree of `first` leaves inside that of `second` (RFC 6962 2.1.2)."""
    if not 0 <= first <= second:
        raise Refused("merkle.size", "the first tree is larger than the second")
    if first in (0, second):
        return []
    begin, end, hashes, whole = 0, second, list[bytes](), True
    while first != end:
        cut = begin + (1 << ((end - begin - 1).bit_length() - 1))
        if first <= cut:
            hashes.append(range_root(cut, end, node))
            end = cut
        else:
            hashes.append(range_root(begin, cut, node))
            begin, whole = cut, False
    if not whole:
        hashes.append(range_root(begin, end, node))
    return hashes[::-1]


def verify_consistency(
    first: int, second: int, first_root: bytes, second_root: bytes, proof: Sequence[bytes]
) -> bytes:
    """Return the second root when the proof shows that it continues the first (RFC 9162 2.1.4.2).

    From size 0 it returns as well, but such a proof says nothing about the larger tree: a caller
    must not build a `proved` on it. Raises `Refused`.
    """
    if not 0 <= first <= second <= MAX_SIZE:
        raise Refused("merkle.size", "the first tree is larger than the second")
    if any(len(part) != 32 for part in (first_root, second_root, *proof)):
        raise Refused("merkle.hash_length", "a hash is 32 bytes")
    for size, claimed in ((first, first_root), (second, second_root)):
        if size == 0 and claimed != EMPTY_ROOT:
            raise Refused("merkle.empty_root", "an empty tree has one root only")
    if first in (0, second):
        return _verify_trivial(first, first_root, second_root, proof)
    old, new = roots_from_consistency(first, second, first_root, proof)
    if (old, new) != (first_root, second_root):
        raise Refused("merkle.consistency", "the proof does not lead to these roots")
    return second_root


def _verify_trivial(first: int, first_root: bytes, second_root: bytes, proof: Sequence[bytes]) -> bytes:
    if proof:
        raise Refused("merkle.proof_length", "no hash expected")
    if first and first_root != second_root:
        raise Refused("merkle.consistency", "equal sizes with different roots")
    return second_root


def roots_from_consistency(
    first: int, second: int, first_root: bytes, proof: Sequence[bytes]
) -> tuple[bytes, bytes]:
    """The two roots that the hashes lead to (RFC 9162 2.1.4.2, steps 2 to 7)."""
    hashes = list(proof)
    if first & (first - 1) == 0:
        hashes.insert(0, first_root)
    node, last = first - 1, second - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    if not hashes:
        raise Refused("merkle.proof_length", "the proof is empty")
    old = new = hashes[0]
    for part in hashes[1:]:
        if last == 0:
            raise Refused("merkle.proof_length", "the proof has hashes left over")
        if node & 1 or node == last:
            old, new = node_hash(part, old), node_hash(part, new)
            while node and not node & 1:
                node, last = node >> 1, last >> 1
        else:
            new = node_hash(new, part)
        node, last = node >> 1, last >> 1
    if last != 0:
        raise Refused("merkle.proof_length", "the proof is too short")
    return old, new
