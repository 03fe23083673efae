"""What the tree costs: proofs and their verification, its root, its bytes."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench.receipts.sample import Figure, seconds
from receipts import merkle, proof
from receipts.leaf import Kind
from receipts.log import Issued, LogKeys, TransparencyLog
from receipts.log.tiles import TileSource, Tree

MILLION: Final = 1_000_000


async def proofs(log: TransparencyLog, log_keys: LogKeys, issued: Sequence[Issued]) -> list[Figure]:
    await log.checkpoint()
    texts = [(one, await log.proof(one.receipt_id)) for one in issued]

    def verify() -> None:
        for one, text in texts:
            assert text is not None
            proof.verify(
                text, kind=Kind.PLACEMENT, receipt_digest=one.digest,
                issuer_thumbprint=log_keys.receipt.thumbprint, origin="clinic.de/log",
                keys=[log_keys.note.key],
            )  # fmt: skip

    return [Figure("verify a tlog-proof", f"{len(texts) / seconds(verify):,.0f}/s")]


def growth(database: Path, count: int) -> Figure:
    """Bytes a receipt in the tables that the log itself needs: leaves and tiles."""
    connection = sqlite3.connect(database)
    used = connection.execute("SELECT sum(length(record) + length(salt) + 12) FROM leaf").fetchone()[0]
    used += connection.execute(
        "SELECT coalesce(sum(length(hashes) + length(root) + 8), 0) FROM tile"
    ).fetchone()[0]
    connection.close()
    return Figure("log growth a receipt", f"{used / count:.0f} B", "", "≤ 200 B")


def large() -> list[Figure]:
    """A tree of a million leaves: its root, and proofs out of its tiles."""
    leaves = [merkle.leaf_hash(number.to_bytes(8)) for number in range(MILLION)]
    took = seconds(lambda: merkle.EMPTY_RANGE.append(leaves).root())
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE leaf (idx INTEGER PRIMARY KEY, record BLOB)")
    connection.execute("CREATE TABLE tile (level INT, n INT, hashes BLOB, root BLOB, PRIMARY KEY (level, n))")
    records = [(number, number.to_bytes(8)) for number in range(MILLION)]
    connection.executemany("INSERT INTO leaf VALUES (?, ?)", records)
    _, filled = Tree().append(leaves)
    connection.executemany(
        "INSERT INTO tile VALUES (?, ?, ?, ?)", [(t.level, t.n, t.hashes, t.root) for t in filled]
    )
    source = TileSource(connection)
    indexes = range(0, MILLION, 10)
    proving = seconds(lambda: [source.inclusion(index, MILLION) for index in indexes])
    return [
        Figure("root over 1 M leaves", f"{took:.2f} s", "", "≤ 4 s"),
        Figure("proofs at 1 M leaves, in order", f"{len(indexes) / proving:,.0f}/s", "", "≥ 20,000/s"),
    ]
