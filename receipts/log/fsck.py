"""Is a log's database what it was signed to be? Reads only; changes nothing.

Checks what a crash could break and what an attacker with the disk could change: leaves without
gaps, the tree under every checkpoint that was ever signed, stored tiles, each receipt under its
leaf, each peer's chain, the write-ahead rows.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from receipts import checkpoint, leaf
from receipts.log import store, tiles
from receipts.log.columns import check_columns
from receipts.log.tiles import WIDTH, Tree
from receipts.merkle import leaf_hash
from receipts.note import NoteKey
from receipts.statements import packed
from receipts.statements.receipt import FIRST, MODELS
from receipts.statements.statement import parse_receipt, receipt_kind
from schemas import envelope
from schemas.canonical import Json
from schemas.errors import ComityError, Unreadable
from schemas.keys import base64url

MAX_FINDINGS: Final = 100  # a broken log is broken; nobody reads the hundredth line
_BATCH: Final = 256  # leaves read at a time


@dataclass(slots=True)
class Findings:
    """What was counted, and what is wrong."""

    origin: str
    leaves: int = 0
    receipts: int = 0
    checkpoints: int = 0
    unsettled: int = 0
    """Points of no return whose outcome is open: normal after a crash, until the broker has asked."""
    wrong: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        if len(self.wrong) < MAX_FINDINGS:
            self.wrong.append(text)

    def as_json(self) -> dict[str, Json]:
        return {
            "origin": self.origin,
            "leaves": self.leaves,
            "receipts": self.receipts,
            "checkpoints": self.checkpoints,
            "unsettled": self.unsettled,
            "wrong": list(self.wrong),
            "exit": 1 if self.wrong else 0,
        }


def check(database: Path, *, keys: Sequence[NoteKey] = ()) -> Findings:
    """Read the whole log. `keys`: verify each checkpoint's signature under one of them too.

    1. the file itself; 2. leaves, tiles and the root under each checkpoint; 3. receipts and chains.
    Raises `Unreadable` (`log.not_a_log`, `log.damaged`) or `ConfigurationError`.
    """
    connection = store.connect(database, read_only=True)
    try:
        meta = store.read_meta(connection)
        if "origin" not in meta:
            raise Unreadable("log.not_a_log", f"{database} holds no transparency log")
        findings = Findings(meta["origin"])
        connection.execute("BEGIN")  # one state of the log, even while its holder goes on writing
        for (text,) in connection.execute("PRAGMA quick_check"):
            if text != "ok":
                findings.note(f"SQLite: {text}")
        check_columns(connection)
        check_tree(connection, findings, keys)
        _check_receipts(connection, findings)
        _check_notices(connection, findings)
        for index in alone(connection):
            findings.note(f"leaf {index} is there, its receipt is not")
        row = connection.execute("SELECT count(*) FROM ahead WHERE settled = 0").fetchone()
        findings.unsettled = row[0]
        return findings
    except sqlite3.Error as error:
        raise Unreadable("log.damaged", f"{database}: {error}") from None
    finally:
        connection.close()


def check_tree(connection: sqlite3.Connection, findings: Findings, keys: Sequence[NoteKey]) -> None:
    """Grow the tree from its records, comparing with each checkpoint and tile on the way."""
    signed = dict(connection.execute("SELECT size, note FROM checkpoint"))
    findings.checkpoints = len(signed)
    tree = Tree()
    _check_checkpoint(tree, signed.pop(0, None), findings, keys)
    pending: list[bytes] = []
    for expected, (index, record) in enumerate(_leaves(connection)):
        if index != expected:
            findings.note(f"leaf {_grown(connection, tree, pending, findings).size} is missing")
            return
        try:
            leaf.read(record)
        except Unreadable as error:
            findings.note(f"leaf {index}: {error}")
            return
        pending.append(leaf_hash(record))
        note = signed.pop(index + 1, None)
        if note is not None or len(pending) == WIDTH:
            tree = _grown(connection, tree, pending, findings)
            _check_checkpoint(tree, note, findings, keys)
    tree = _grown(connection, tree, pending, findings)
    findings.leaves = tree.size
    _check_cosignatures(connection, findings)
    for size in sorted(signed):
        findings.note(f"a checkpoint of {size} leaves was signed, {tree.size} are here")


def _leaves(connection: sqlite3.Connection) -> Iterator[tuple[int, bytes]]:
    yield from connection.execute("SELECT idx, record FROM leaf ORDER BY idx")


def _grown(connection: sqlite3.Connection, tree: Tree, pending: list[bytes], findings: Findings) -> Tree:
    """The tree with what is pending, after a look at the tiles that it fills."""
    grown, filled = tree.append(pending)
    for tile in filled:
        _check_tile(connection, tile, findings)
    pending.clear()
    return grown


def _check_tile(connection: sqlite3.Connection, tile: tiles.NewTile, findings: Findings) -> None:
    row = connection.execute(
        "SELECT hashes, root FROM tile WHERE level = ? AND n = ?", (tile.level, tile.n)
    ).fetchone()
    if row != (tile.hashes, tile.root):
        findings.note(f"tile {tile.level}/{tile.n} of {WIDTH} hashes is not what the leaves give")


def _check_checkpoint(tree: Tree, note: bytes | None, findings: Findings, keys: Sequence[NoteKey]) -> None:
    if note is None:
        return
    try:
        signed = checkpoint.verify(note, keys, origin=findings.origin) if keys else checkpoint.read(note)
    except ComityError as error:
        findings.note(f"checkpoint of {tree.size} leaves: {error}")
        return
    stated = signed.checkpoint
    if (stated.origin, stated.size, stated.root) != (findings.origin, tree.size, tree.root()):
        findings.note(f"the checkpoint of {tree.size} leaves was signed over another tree")


def _check_cosignatures(connection: sqlite3.Connection, findings: Findings) -> None:
    """Each stands under a checkpoint of ours; whose word it is, verification judges."""
    if connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'cosignature'").fetchone() is None:
        return  # a log of schema version 1, not opened since
    rows = connection.execute(
        "SELECT s.size, s.witness FROM cosignature s LEFT JOIN checkpoint c ON c.size = s.size"
        " WHERE c.size IS NULL"
    )
    for size, witness in rows:
        findings.note(f"{witness} cosigned {size} leaves, but no checkpoint of that size is here")


def alone(connection: sqlite3.Connection) -> list[int]:
    """Leaves behind which neither a receipt nor a notice stands; what was erased has kept its row."""
    known = connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'notice'").fetchone()
    listed = "statement UNION ALL SELECT idx FROM notice" if known else "statement"  # none up to version 3
    rows = connection.execute(
        f"SELECT idx FROM leaf WHERE idx NOT IN (SELECT idx FROM {listed}) ORDER BY idx"  # noqa: S608  # our own names
    )
    return [index for (index,) in rows]


def _check_receipts(connection: sqlite3.Connection, findings: Findings) -> None:
    """Each receipt is under its leaf, and each peer's sequence has neither gap nor fork."""
    heads: dict[str, tuple[int, bytes]] = {}
    rows = connection.execute(
        "SELECT s.idx, s.receipt_id, s.kind, s.peer, s.seq, s.digest, s.envelope, l.record, l.salt"
        " FROM statement s LEFT JOIN leaf l ON l.idx = s.idx ORDER BY s.idx"
    )
    for index, receipt_id, kind, peer, seq, digest, data, record, salt in rows:
        findings.receipts += 1
        if data == b"":  # erased: its number and digest still hold the chain together
            if (seq, salt) != (_expected(heads.get(peer))[0], None):
                findings.note(f"receipt {receipt_id}: erased, but its number or its salt says otherwise")
            heads[peer] = (seq, digest)
            continue
        try:
            parsed = packed.read(_stored(data))
            body = parse_receipt(parsed.payload, MODELS[receipt_kind(parsed.payload)])
        except (ComityError, KeyError) as error:
            findings.note(f"receipt {receipt_id}: {error}")
            continue
        if record is None:
            findings.note(f"receipt {receipt_id}: its leaf {index} is missing")
        elif salt is not None and not _under(record, kind, salt, parsed.digest):
            findings.note(f"receipt {receipt_id}: leaf {index} is not its own")
        if (parsed.digest, body.receipt_id, body.peer, body.seq) != (digest, receipt_id, peer, seq):
            findings.note(f"receipt {receipt_id}: its row says something else than it does")
        if (body.seq, body.prev) != _expected(heads.get(peer)):
            findings.note(f"receipt {receipt_id}: number {seq} to {peer} does not follow")
        heads[peer] = (body.seq, parsed.digest)
    _check_heads(connection, heads, findings)


def _check_notices(connection: sqlite3.Connection, findings: Findings) -> None:
    """Each tombstone, gap and accusation is under its leaf."""
    if connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'notice'").fetchone() is None:
        return  # a log of schema version 3, not opened since
    rows = connection.execute(
        "SELECT n.idx, n.kind, n.digest, n.envelope, l.record, l.salt FROM notice n"
        " LEFT JOIN leaf l ON l.idx = n.idx ORDER BY n.idx"
    )
    for index, kind, digest, data, record, salt in rows:
        try:
            named = envelope.read(_stored(data)).digest
        except ComityError as error:
            findings.note(f"notice at leaf {index}: {error}")
            continue
        if named != digest or record is None or salt is None or not _under(record, kind, salt, named):
            findings.note(f"notice at leaf {index}: the leaf is not its own")


def _under(record: bytes, kind: int, salt: bytes, digest: bytes) -> bool:
    """Whether the leaf is this receipt's, whoever's key it names."""
    try:
        issuer = base64url(leaf.read(record).issuer)
        return leaf.make(leaf.Kind(kind), salt, digest, issuer).write() == record
    except (ComityError, ValueError):
        return False


def _stored(value: object) -> bytes:
    """A column's bytes, also where somebody wrote text. Raises `Unreadable`."""
    if isinstance(value, str):
        return value.encode()
    if not isinstance(value, bytes):
        raise Unreadable("log.damaged", "no bytes stand there")
    return value


def _expected(head: tuple[int, bytes] | None) -> tuple[int, str]:
    return (0, FIRST) if head is None else (head[0] + 1, head[1].hex())


def _check_heads(
    connection: sqlite3.Connection, heads: dict[str, tuple[int, bytes]], findings: Findings
) -> None:
    stored = {
        row[0]: (row[1] - 1, row[2]) for row in connection.execute("SELECT peer, seq, digest FROM chain")
    }
    for peer in sorted(stored.keys() | heads.keys()):
        if stored.get(peer) != heads.get(peer):
            findings.note(f"the chain to {peer} does not end where its receipts do")
