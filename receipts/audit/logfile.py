"""A log's database as an auditor reads it: read-only, row by row, in one state."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from receipts import proof
from receipts.audit.rows import Row, blob, every
from receipts.bundle import Disclosures
from receipts.log import store
from receipts.log.columns import check_columns
from receipts.log.reader import Reader
from receipts.merkle import inclusion_proof
from receipts.proof import Proof
from schemas.canonical import sha256
from schemas.errors import ConfigurationError, Unreadable


@dataclass(frozen=True, slots=True)
class NoticeRow:
    """A notice as it is stored; nothing of it is believed yet."""

    leaf: int
    """Its index."""
    kind: int
    envelope: bytes = field(repr=False)
    record: bytes | None
    salt: bytes | None


class LogFile:
    """An open log database. Use as a context manager."""

    def __init__(self, path: Path) -> None:
        """Raises `ConfigurationError`, or `Unreadable` (`log.not_a_log`)."""
        self.path = path
        self.connection = store.connect(path, read_only=True)
        meta = store.read_meta(self.connection)
        try:
            self.origin, self.domain, self.federation = (
                meta[name] for name in ("origin", "domain", "federation")
            )
        except KeyError:
            self.connection.close()
            raise Unreadable("log.not_a_log", f"{path} holds no transparency log") from None
        self._reader = Reader(self.connection, None)
        self._tiles = self._reader.tiles

    def __enter__(self) -> Self:
        """Raises `Unreadable` where a column holds what none can hold."""
        self.connection.execute("BEGIN")  # one state, even while its holder goes on writing
        try:
            check_columns(self.connection)
        except Unreadable:
            self.connection.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Raises `Unreadable` (`log.damaged`) in place of what SQLite says of pages that it cannot read."""
        self.connection.close()
        if isinstance(error, sqlite3.Error):
            raise Unreadable("log.damaged", f"{self.path}: {error}") from None

    def check_apart(self, *outputs: Path | None) -> None:
        """Nothing that is read out of the log is written over it. Raises `ConfigurationError`."""
        for out in outputs:
            if out is not None and os.path.exists(out) and os.path.samefile(out, self.path):
                raise ConfigurationError("log.output", f"{out}: this is the log itself; write elsewhere")

    @property
    def size(self) -> int:
        """Receipts in the log."""
        count: int = self.connection.execute("SELECT count(*) FROM statement").fetchone()[0]
        return count

    def rows(self, *, peer: str | None = None) -> Iterator[Row]:
        """Its receipts in the order of the log; only those to one peer where it is given."""
        try:
            yield from every(self.connection, peer=peer)
        except sqlite3.Error as error:
            raise Unreadable("log.damaged", f"{self.path}: {error}") from None

    def notices(self) -> Iterator[NoticeRow]:
        """Tombstones, gaps and accusations in the order of the log; none in a log from before them."""
        known = self.connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'notice'").fetchone()
        rows = (
            self.connection.execute(
                "SELECT n.idx, n.kind, n.envelope, l.record, l.salt FROM notice n"
                " LEFT JOIN leaf l ON l.idx = n.idx ORDER BY n.idx"
            )
            if known
            else ()
        )
        for index, kind, data, record, salt in rows:
            yield NoticeRow(index, kind, blob(data) or b"", blob(record), blob(salt))

    def foreign(self) -> Iterator[tuple[bytes, bytes, bytes | None]]:
        """(digest, envelope, proof) of statements of others that it keeps."""
        yield from self.connection.execute(
            "SELECT digest, envelope, proof FROM foreign_statement ORDER BY digest"
        )

    def kept(self, digest: bytes) -> bytes | None:
        """What the log keeps under this SHA-256; None for what is not there, or is something else."""
        row = self.connection.execute("SELECT data FROM blob WHERE digest = ?", (digest,)).fetchone()
        data = None if row is None else blob(row[0])
        return data if data is not None and sha256(data) == digest else None

    def disclosures(self, index: int) -> Disclosures | None:
        """What the domain discloses beside one of its receipts. Raises `Unreadable`."""
        row = self.connection.execute("SELECT disclosures FROM statement WHERE idx = ?", (index,)).fetchone()
        data = None if row is None else blob(row[0])
        return None if data is None else Disclosures.read(data)

    def checkpoint(self) -> bytes | None:
        """The newest signed checkpoint."""
        row = self.connection.execute("SELECT note FROM checkpoint ORDER BY size DESC LIMIT 1").fetchone()
        return None if row is None else bytes(row[0])

    def uncovered(self, before_ms: int) -> int:
        """Leaves from before this moment (POSIX milliseconds) that lie beyond the newest checkpoint."""
        found: int = self.connection.execute(
            "SELECT count(*) FROM leaf"
            " WHERE time_ms < ? AND idx >= (SELECT coalesce(max(size), 0) FROM checkpoint)",
            (before_ms,),
        ).fetchone()[0]
        return found

    def leaf(self, index: int) -> bytes | None:
        """A leaf's record; None where it is missing."""
        row = self.connection.execute("SELECT record FROM leaf WHERE idx = ?", (index,)).fetchone()
        return None if row is None else blob(row[0])

    def inclusion(self, index: int, size: int) -> list[bytes]:
        """Hashes that lead from a leaf to the root at a size, as the tiles have them. Raises `Refused`."""
        return self._tiles.inclusion(index, size)

    def root_at(self, size: int) -> bytes:
        """Root over the first `size` leaves, as the tiles have it. Raises `Refused` beyond the last."""
        return self._reader.root_at(size)

    def cosigned(self, limit: int) -> Iterator[bytes]:
        """The newest checkpoints that any witness signed, each with the lines of all that did."""
        sizes = self.connection.execute(
            "SELECT DISTINCT size FROM cosignature ORDER BY size DESC LIMIT ?", (limit,)
        ).fetchall()
        for (size,) in sizes:
            row = self.connection.execute("SELECT note FROM checkpoint WHERE size = ?", (size,)).fetchone()
            lines = self.connection.execute(
                "SELECT line FROM cosignature WHERE size = ? ORDER BY witness", (size,)
            ).fetchall()
            if row is not None:
                yield (blob(row[0]) or b"") + b"".join(blob(line) or b"" for (line,) in lines)

    def size_before(self, size: int) -> int:
        """The largest size below this one that the log had signed for; 0 where there is none."""
        found: int = self.connection.execute(
            "SELECT coalesce(max(size), 0) FROM checkpoint WHERE size < ?", (size,)
        ).fetchone()[0]
        return found

    def proof(self, row: Row) -> bytes | None:
        """tlog-proof text of a receipt under the newest checkpoint; None where none can be made."""
        newest = self.connection.execute(
            "SELECT size, note FROM checkpoint ORDER BY size DESC LIMIT 1"
        ).fetchone()
        if newest is None or row.leaf >= newest[0] or row.salt is None:
            return None
        path = inclusion_proof(row.leaf, newest[0], self._tiles.node)
        return proof.write(Proof(row.leaf, tuple(path), newest[1], row.salt))
