"""The tree on disk: C2SP tlog-tiles, 256 hashes a tile (receipts.md 9).

Full tiles are stored once and never change. The growing right edge lives in memory and is rebuilt
from leaf records and tile roots when the log opens.
"""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

from receipts.merkle import EMPTY_RANGE, CompactRange, inclusion_proof, leaf_hash, node_hash
from schemas.errors import Refused

WIDTH: Final = 256  # hashes in a full tile
_BITS: Final = 8  # levels of the tree in one tile
CACHED_TILES: Final = 512  # expanded full tiles of 511 hashes, about 32 kB each


@dataclass(frozen=True, slots=True)
class NewTile:
    """A tile that an append has filled."""

    level: int
    n: int
    hashes: bytes
    root: bytes


@dataclass(frozen=True, slots=True)
class Edge:
    """A tile that is not full yet: its hashes, and the roots of the perfect subtrees over them."""

    hashes: bytes = b""
    range: CompactRange = EMPTY_RANGE

    def grown(self, hashes: Sequence[bytes]) -> Edge:
        return Edge(self.hashes + b"".join(hashes), self.range.append(hashes))


@dataclass(frozen=True, slots=True)
class Tree:
    """The right edge of a tree that grows: one unfilled tile for each level of tiles."""

    edges: tuple[Edge, ...] = (Edge(),)

    @property
    def size(self) -> int:
        """Leaves of the tree."""
        return sum(edge.range.size << _BITS * level for level, edge in enumerate(self.edges))

    def root(self) -> bytes:
        """Root of the whole tree: what is full on one level stands in the edges above it."""
        roots = chain.from_iterable(edge.range.roots for edge in reversed(self.edges))
        return CompactRange(self.size, tuple(roots)).root()

    def append(self, leaves: Sequence[bytes]) -> tuple[Tree, list[NewTile]]:
        """The tree with these leaf hashes added, and the tiles that became full; one hash a leaf."""
        edges, filled, size, level = list(self.edges), list[NewTile](), self.size, 0
        while leaves:
            if level == len(edges):
                edges.append(Edge())
            edges[level], new = _fill(edges[level], leaves, level, size >> _BITS * (level + 1))
            filled += new
            leaves, level = [tile.root for tile in new], level + 1
        return Tree(tuple(edges)), filled


def _fill(edge: Edge, hashes: Sequence[bytes], level: int, number: int) -> tuple[Edge, list[NewTile]]:
    """Put hashes into the unfilled tile `number` of a level, and into those that follow it."""
    filled: list[NewTile] = []
    for begin in range(-edge.range.size, len(hashes), WIDTH):
        edge = edge.grown(hashes[max(begin, 0) : begin + WIDTH])
        if edge.range.size == WIDTH:
            (root,) = edge.range.roots
            filled.append(NewTile(level, number + len(filled), edge.hashes, root))
            edge = Edge()
    return edge, filled


def load(connection: sqlite3.Connection) -> Tree:
    """Rebuild the right edge from what is stored. Raises `Refused` when leaves are missing."""
    count, last = connection.execute("SELECT count(*), max(idx) FROM leaf").fetchone()
    if count and last != count - 1:
        raise Refused("log.leaves_missing", f"{count} leaves, but the last has index {last}")
    edges, source, width = list[Edge](), TileSource(connection), count
    while width or not edges:
        edges.append(Edge().grown(source.hashes(len(edges), width // WIDTH, width % WIDTH)))
        width //= WIDTH
    return Tree(tuple(edges))


def expand(hashes: list[bytes]) -> list[list[bytes]]:
    """All levels above a row of hashes, as far as pairs are whole: rows[k][i] covers 2^k of them."""
    rows = [hashes]
    while len(rows[-1]) > 1:
        row = rows[-1]
        rows.append([node_hash(row[i], row[i + 1]) for i in range(0, len(row) - 1, 2)])
    return rows


class TileSource:
    """Reads hashes of the stored tree: `node` serves proofs at any size up to the stored one."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._full: OrderedDict[tuple[int, int], list[list[bytes]]] = OrderedDict()
        self._upper: dict[tuple[int, int, int], list[bytes]] = {}
        self._edge: dict[int, tuple[int, int, list[list[bytes]]]] = {}

    def node(self, level: int, index: int) -> bytes:
        """Hash of the perfect subtree over leaves [index·2^level, (index+1)·2^level)."""
        tile_level, row = divmod(level, _BITS)
        number, at = divmod(index << row, WIDTH)
        rows = self._rows(tile_level, number, at + (1 << row))
        return rows[row][at >> row]

    def inclusion(self, index: int, size: int) -> list[bytes]:
        """As `merkle.inclusion_proof`, eight hashes at a time where the tile around the leaf is full."""
        siblings: list[bytes] = []
        level = 0
        while ((number := index >> _BITS * (level + 1)) + 1) << _BITS * (level + 1) <= size:
            rows = self._rows(level, number, WIDTH)
            at = index >> _BITS * level & WIDTH - 1
            siblings += [rows[row][at >> row ^ 1] for row in range(_BITS)]
            level += 1
        return siblings + self._above(level, index, size)

    def _above(self, level: int, index: int, size: int) -> list[bytes]:
        """The rest of a proof: the same for every leaf under one full tile, in a tree of one size."""
        key = (level, index >> _BITS * level, size)
        if (found := self._upper.get(key)) is None:
            if len(self._upper) >= CACHED_TILES:
                self._upper.clear()
            found = inclusion_proof(index, size, self.node, above=1 << _BITS * level)
            self._upper[key] = found
        return found

    def hashes(self, level: int, number: int, width: int) -> list[bytes]:
        """The first `width` hashes of a tile. Raises `Refused` when they are not all stored."""
        found = self._full_tile(level, number) if width == WIDTH else None
        if found is None:
            found = self._leaf_hashes(number, width) if level == 0 else self._roots(level, number, width)
        if len(found) != width:
            raise Refused("log.tile_missing", f"tile {level}/{number} has {len(found)} of {width} hashes")
        return found

    def _rows(self, level: int, number: int, needed: int) -> list[list[bytes]]:
        key = (level, number)
        if (rows := self._full.get(key)) is not None:
            self._full.move_to_end(key)
            return rows
        if (stored := self._full_tile(level, number)) is not None:
            rows = self._full[key] = expand(stored)
            if len(self._full) > CACHED_TILES:
                self._full.popitem(last=False)
            return rows
        return self._edge_rows(level, number, needed)

    def _edge_rows(self, level: int, number: int, needed: int) -> list[list[bytes]]:
        """The unfilled tile: kept until a wider one is asked for."""
        known = self._edge.get(level)
        if known is None or known[0] != number or known[1] < needed:
            rows = expand(self.hashes(level, number, needed))
            known = self._edge[level] = (number, needed, rows)
        return known[2]

    def _full_tile(self, level: int, number: int) -> list[bytes] | None:
        row = self._connection.execute(
            "SELECT hashes FROM tile WHERE level = ? AND n = ?", (level, number)
        ).fetchone()
        if row is None:
            return None
        return [row[0][at : at + 32] for at in range(0, WIDTH * 32, 32)]

    def _leaf_hashes(self, number: int, width: int) -> list[bytes]:
        first = number * WIDTH
        rows = self._connection.execute(
            "SELECT record FROM leaf WHERE idx >= ? AND idx < ? ORDER BY idx", (first, first + width)
        )
        return [leaf_hash(record) for (record,) in rows]

    def _roots(self, level: int, number: int, width: int) -> list[bytes]:
        first = number * WIDTH
        rows = self._connection.execute(
            "SELECT root FROM tile WHERE level = ? AND n >= ? AND n < ? ORDER BY n",
            (level - 1, first, first + width),
        )
        return [root for (root,) in rows]


def tile_path(number: int) -> str:
    """Path element of tile `number`: groups of three digits, all but the last marked with `x`."""
    groups = [f"{number % 1000:03d}"]
    while number := number // 1000:
        groups.append(f"x{number % 1000:03d}")
    return "/".join(reversed(groups))


def tiles_at(size: int) -> list[tuple[int, int]]:
    """Per tile level, (number of full tiles, width of the partial one) for a tree of `size` leaves."""
    levels: list[tuple[int, int]] = []
    while size:
        levels.append(divmod(size, WIDTH))
        size //= WIDTH
    return levels
