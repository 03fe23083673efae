"""What one transaction of the log does: number, sign, append, keep, record (receipts.md 10).

Everything here runs in the writer's thread, inside one transaction. State in memory changes only
after the commit: a failed batch gives its numbers back and leaves no hole.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial
from pathlib import Path
from typing import Final

from receipts import leaf
from receipts.checkpoint import Checkpoint
from receipts.log.draft import Issued, Keep, LogKeys, Prepared, Recorded
from receipts.log.erasure import Order, erase
from receipts.log.writing.signing import Numbered, Signer, State
from receipts.merkle import leaf_hash
from receipts.statements.notice import Notice
from schemas import envelope
from schemas.canonical import sha256
from schemas.errors import ComityError, Refused
from schemas.keys import SigningKey

LARGE_BYTES: Final = 32 * 1024  # of a blob; digesting so much takes longer than finding that it is known
LARGE_DIGESTS: Final = 32  # nodes with GPUs that are in use at a time; the brokers hold their evidence anyway
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MAX_STEP_BACK_S: Final = 30  # seconds the clock may fall behind the last leaf before we refuse to sign


@dataclass(frozen=True, slots=True)
class Work:
    """One caller's wish; all of it happens in one transaction, or none of it."""

    drafts: Sequence[Prepared] = ()
    keep: Keep | None = None
    records: Sequence[Recorded] = ()
    settled: Sequence[tuple[str, str]] = ()
    commitment_keys: Sequence[tuple[bytes, bytes]] = ()
    cosignatures: Sequence[tuple[int, str, str]] = ()
    """(size, witness, note line) of checkpoints that others have cosigned."""
    erasures: Sequence[Order] = ()
    notices: Sequence[Notice] = ()
    checkpoint: bool = False

    @property
    def has_more(self) -> bool:
        """Whether there is anything beside receipts and a checkpoint."""
        kept = self.keep or self.commitment_keys or self.cosignatures
        return bool(kept or self.records or self.settled or self.erasures)


@dataclass(frozen=True, slots=True)
class Appended:
    """Receipts that are in the transaction but not yet committed."""

    numbered: Sequence[Numbered]
    stored: Sequence[bytes] = field(repr=False)
    """Each as its row holds it (receipts.statements.packed)."""

    def issued(self, signer: Signer) -> list[Issued]:
        """What the callers get, once the commit has returned and not before."""
        return [
            Issued(one.prepared.receipt_id, one.digest, one.index, data, partial(signer.promise_of, one))
            for one, data in zip(self.numbered, self.stored, strict=True)
        ]


def append(
    connection: sqlite3.Connection,
    state: State,
    signer: Signer,
    drafts: Sequence[Prepared],
    at: datetime,
    notices: Sequence[Notice] = (),
) -> tuple[Appended, Callable[[], None]]:
    """Sign and insert; returns the receipts and what to do to `state` once the commit has returned.

    Notices, which are signed already, stand behind the receipts.
    """
    time_ms = milliseconds(at)
    numbered = signer.number(drafts, state, at)
    appended = Appended(numbered, signer.receipts(numbered))
    leaves = [(one.index, one.record, one.salt, time_ms) for one in numbered]
    noticed = _noticed(
        connection, notices, state.tree.size + len(numbered), signer.keys.receipt.thumbprint, time_ms
    )
    hashes = [one.leaf_hash for one in numbered] + [leaf_hash(record) for _, record, _, _ in noticed]
    tree, filled = state.tree.append(hashes)
    connection.executemany(
        "INSERT INTO leaf (idx, record, salt, time_ms) VALUES (?, ?, ?, ?)",
        leaves + noticed,
    )
    connection.executemany(
        "INSERT INTO statement (idx, receipt_id, kind, peer, seq, digest, request_id, envelope, disclosures)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [_statement_row(one, data) for one, data in zip(numbered, appended.stored, strict=True)],
    )
    heads = {one.prepared.peer: (one.seq + 1, one.digest) for one in numbered}
    connection.executemany(
        "INSERT INTO chain (peer, seq, digest) VALUES (?, ?, ?)"
        " ON CONFLICT (peer) DO UPDATE SET seq = excluded.seq, digest = excluded.digest",
        [(peer, seq, digest) for peer, (seq, digest) in heads.items()],
    )
    if filled:
        connection.executemany(
            "INSERT INTO tile (level, n, hashes, root) VALUES (?, ?, ?, ?)",
            [(tile.level, tile.n, tile.hashes, tile.root) for tile in filled],
        )

    def committed() -> None:
        state.tree, state.last_ms = tree, max(state.last_ms, time_ms)
        state.chains.update(heads)

    return appended, committed


def _noticed(
    connection: sqlite3.Connection, notices: Sequence[Notice], first: int, thumbprint: str, time_ms: int
) -> list[tuple[int, bytes, bytes, int]]:
    """Insert notices; returns their leaves."""
    leaves: list[tuple[int, bytes, bytes, int]] = []
    for index, notice in enumerate(notices, first):
        salt = secrets.token_bytes(leaf.SALT_BYTES)
        record = leaf.make(notice.kind, salt, notice.digest, thumbprint).write()
        leaves.append((index, record, salt, time_ms))
        connection.execute(
            "INSERT INTO notice (idx, kind, digest, envelope, about) VALUES (?, ?, ?, ?, ?)",
            (index, int(notice.kind), notice.digest, notice.envelope, notice.about),
        )
    return leaves


def _statement_row(one: Numbered, data: bytes) -> tuple[object, ...]:
    prepared = one.prepared
    return (
        one.index, prepared.receipt_id, int(prepared.kind), prepared.peer, one.seq, one.digest,
        prepared.request_id, data, prepared.disclosures,
    )  # fmt: skip


def milliseconds(at: datetime) -> int:
    """POSIX milliseconds, exact."""
    return (at - _EPOCH) // timedelta(milliseconds=1)


def moment(time_ms: int) -> datetime:
    """The inverse of `milliseconds`."""
    return _EPOCH + timedelta(milliseconds=time_ms)


def check_clock(state: State, at: datetime) -> int:
    """Milliseconds of `at`. Raises `Refused` when the clock has jumped back behind the newest leaf."""
    time_ms = milliseconds(at)
    if time_ms < state.last_ms - MAX_STEP_BACK_S * 1000:
        raise Refused("log.clock", "the clock stands before the newest receipt; set it right and try again")
    return time_ms


def sign_checkpoint(
    connection: sqlite3.Connection, state: State, keys: LogKeys, origin: str, at: datetime
) -> Callable[[], None]:
    """Sign the committed state and store the note; nothing to do when that size was signed before."""
    if state.checkpoint[0] == state.tree.size:
        return lambda: None
    size = state.tree.size
    note = keys.sign(Checkpoint(origin, size, state.tree.root()).text, at)
    connection.execute(
        "INSERT INTO checkpoint (size, note, time_ms) VALUES (?, ?, ?)",
        (size, note, milliseconds(at)),
    )

    def committed() -> None:
        state.checkpoint = (size, note)

    return committed


def write_more(
    connection: sqlite3.Connection, work: Work, at: datetime, key: SigningKey, ledger: Path
) -> list[Notice]:
    """Everything of a work but its receipts, or nothing of it; returns the tombstones of its erasures.

    Raises `Refused` or `Unreadable`.
    """
    connection.execute("SAVEPOINT work")
    try:
        record(connection, work.records, at)
        settle(connection, work.settled)
        if work.keep is not None:
            keep(connection, work.keep)
        keep_commitment_keys(connection, work.commitment_keys)
        keep_cosignatures(connection, work.cosignatures)
        stones = [stone for order in work.erasures for stone in erase(connection, order, key, ledger)]
    except ComityError:
        connection.execute("ROLLBACK TO work")
        connection.execute("RELEASE work")
        raise
    connection.execute("RELEASE work")
    return stones


def keep(connection: sqlite3.Connection, kept: Keep) -> None:
    """Store foreign statements, their proofs, and blobs. The same again changes nothing."""
    connection.executemany(
        "INSERT OR IGNORE INTO foreign_statement (digest, request_id, envelope) VALUES (?, ?, ?)",
        [(envelope.read(data).digest, kept.request_id, data) for data in kept.envelopes],
    )
    connection.executemany(
        "UPDATE foreign_statement SET proof = ? WHERE digest = ?",
        [(proof, digest) for digest, proof in kept.proofs.items()],
    )
    keep_blobs(connection, kept.evidence)


def keep_blobs(connection: sqlite3.Connection, blobs: Sequence[bytes]) -> None:
    connection.executemany(
        "INSERT OR IGNORE INTO blob (digest, data) VALUES (?, ?)", [(_name(data), data) for data in blobs]
    )


def _name(data: bytes) -> bytes:
    """A blob's digest. Evidence is large and the same for every request of an epoch: digested once."""
    return _digest(data) if len(data) >= LARGE_BYTES else sha256(data)


@lru_cache(maxsize=LARGE_DIGESTS)
def _digest(data: bytes) -> bytes:
    return sha256(data)


def keep_commitment_keys(connection: sqlite3.Connection, keys: Sequence[tuple[bytes, bytes]]) -> None:
    """(commitment, key) pairs, apart from the statements that hold the commitments (receipts.md 14)."""
    connection.executemany("INSERT OR IGNORE INTO commitment_key (commitment, key) VALUES (?, ?)", keys)


def keep_cosignatures(connection: sqlite3.Connection, lines: Sequence[tuple[int, str, str]]) -> None:
    """The earliest word of a witness on a size stays: a later one shows nothing more."""
    connection.executemany("INSERT OR IGNORE INTO cosignature (size, witness, line) VALUES (?, ?, ?)", lines)


def record(connection: sqlite3.Connection, rows: Sequence[Recorded], at: datetime) -> None:
    """Write-ahead rows. Raises `Refused` (`log.recorded`) when the point was passed before."""
    for row in rows:
        written = connection.execute(
            "INSERT OR IGNORE INTO ahead (kind, key, data, time_ms, settled) VALUES (?, ?, ?, ?, 0)",
            (row.kind, row.key, row.data, milliseconds(at)),
        )
        if written.rowcount == 0:
            raise Refused("log.recorded", f"{row.kind} {row.key} was recorded before")


def settle(connection: sqlite3.Connection, keys: Sequence[tuple[str, str]]) -> None:
    """Mark write-ahead rows as done. The rows stay for a day: they still refuse a second run."""
    connection.executemany("UPDATE ahead SET settled = 1 WHERE kind = ? AND key = ?", keys)
