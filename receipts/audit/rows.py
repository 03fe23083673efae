"""Receipts as they stand in a log's database: rows, of which nothing is believed yet."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from receipts.statements import packed
from schemas.errors import Unreadable

_ROWS: Final = (
    "SELECT s.idx, s.receipt_id, s.kind, s.peer, s.seq, s.digest, s.envelope, l.record, l.salt"
    " FROM statement s LEFT JOIN leaf l ON l.idx = s.idx"
)
_ORDER: Final = " ORDER BY s.idx"
_KINDS: Final = (int, int, int, str, bytes)  # of index, kind, number, peer and digest


class Row(NamedTuple):
    """One receipt of the log's own domain, as it is stored.

    A tuple, as all that an audit makes of each receipt: reading rows takes half the time so (measured).
    """

    leaf: int
    """Its index."""
    receipt_id: str
    kind: int
    peer: str
    seq: int
    digest: bytes
    packed: bytes | None
    """As `receipts.statements.packed` spells it; empty when it was erased, None where a process kept it."""
    record: bytes | None
    """The leaf; None when it is missing."""
    salt: bytes | None
    """None when it was erased."""

    @property
    def envelope(self) -> bytes | None:
        """The receipt as it was first given out; None when it was erased. Raises `Unreadable`."""
        return packed.written(self.packed) if self.packed else None


def every(connection: sqlite3.Connection, *, peer: str | None = None) -> Iterator[Row]:
    """All receipts in the order of the log; only those to one peer where it is given.

    Raises `Unreadable` (`log.damaged`) or `sqlite3.Error`.
    """
    where, values = ("", ()) if peer is None else (" WHERE s.peer = ?", (peer,))
    for values_of_row in connection.execute(f"{_ROWS}{where}{_ORDER}", values):
        yield read_row(values_of_row)


def between(connection: sqlite3.Connection, first: int, last: int) -> Iterator[Row]:
    """Those whose leaf index lies between the two, both included. Raises as `every`."""
    for values in connection.execute(f"{_ROWS} WHERE s.idx BETWEEN ? AND ?{_ORDER}", (first, last)):
        yield read_row(values)


def read_row(values: tuple[Any, ...]) -> Row:
    """A row with columns of the right kinds, whatever somebody wrote into the database."""
    index, receipt_id, kind, peer, seq, digest, data, record, salt = values
    kinds = type(index), type(kind), type(seq), type(peer), type(digest)
    if kinds != _KINDS or min(index, kind, seq) < 0:
        raise Unreadable("log.damaged", f"receipt {receipt_id!r:.80}: a column holds what none can hold")
    return Row(index, str(receipt_id), kind, peer, seq, digest, blob(data), blob(record), blob(salt))


def blob(value: object) -> bytes | None:
    """Bytes, also where somebody stored them as text."""
    return value.encode() if isinstance(value, str) else value if isinstance(value, bytes) else None


def open_read_only(path: Path) -> sqlite3.Connection:
    """A connection for a worker of its own. Raises `sqlite3.Error`."""
    return sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True, isolation_level=None)
