"""What a witness remembers: durable before it answers, and never set back.

One SQLite file. Check and store are one transaction, so that of two requests in flight the later
answer can never roll the state back (tlog-witness). What was refused although the log signed it is
kept: it may be evidence; what convicts is kept as a portable document.
"""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from receipts import checkpoint, note, private_file
from receipts.checkpoint import Checkpoint
from receipts.cosignature import Cosigner
from receipts.note import Note, NoteKey
from receipts.witness import Answer, judge, read_request, stated_origin
from receipts.witnessing import equivocation
from schemas.errors import ComityError, ConfigurationError, Undecided

MAX_REFUSED: Final = 256  # refused checkpoints kept for each log: evidence, not a dump for strangers
MAX_CONVICTIONS: Final = 16  # documents kept against one log: one alone convicts it
BUSY_S: Final = 5.0  # seconds to wait for another process's lock
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS latest (origin TEXT PRIMARY KEY, note BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS refused (
    digest BLOB PRIMARY KEY, origin TEXT NOT NULL, reason TEXT NOT NULL, time_s INTEGER NOT NULL,
    request BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS conviction (digest BLOB PRIMARY KEY, origin TEXT NOT NULL, document BLOB NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class Judged:
    """What the witness says to one request, and what it caught by it."""

    answer: Answer
    conviction: bytes | None = None
    """The document that this request brought about; None, too, for one that was kept before."""


class WitnessState:
    """A witness with its memory. Thread-safe: one request is judged at a time.

    Every call waits for its turn, and so for another's disk (seconds): an event loop makes it in a thread.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        logs: Mapping[str, Sequence[NoteKey]],
        signers: Sequence[Cosigner],
    ) -> None:
        """Use `open`."""
        self._connection = connection
        self._logs = dict(logs)
        self._signers = tuple(signers)
        self._turn = threading.Lock()
        self.remembering = asyncio.Lock()
        """Held by whoever writes into our own log what was caught here: what is new there is said once."""

    @classmethod
    def open(cls, path: Path, *, logs: Mapping[str, Sequence[NoteKey]], signers: Sequence[Cosigner]) -> Self:
        """`logs`: origin → keys that its checkpoints are believed under. Raises `ConfigurationError`."""
        if not signers:
            raise ConfigurationError("witness.keys", "a witness needs a key")
        try:
            private_file.make(path)
            connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=BUSY_S)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.executescript(_TABLES)
        except sqlite3.Error as error:
            raise ConfigurationError("witness.state", f"{path}: {error}") from None
        except OSError as error:
            raise ConfigurationError("witness.state", f"{path}: {error.strerror}") from None
        return cls(connection, logs, signers)

    def add_checkpoint(self, body: bytes, *, time: int) -> Answer:
        """As `judge_checkpoint`, for who only passes the answer on."""
        return self.judge_checkpoint(body, time=time).answer

    def judge_checkpoint(self, body: bytes, *, time: int) -> Judged:
        """Judge one request; what the answer says is on disk when this returns, what it caught as well.

        `time`: POSIX seconds, what the cosignature will state. Raises `Undecided` when the disk fails:
        then nothing was cosigned.
        """
        with self._turn:
            try:
                self._connection.execute("BEGIN IMMEDIATE")  # other processes with this file wait, too
                judged = self._judge(body, time)
                self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                self._undo()
                raise Undecided("witness.cannot_commit", f"the state cannot be written: {error}") from None
        return judged

    def latest(self, origin: str) -> bytes | None:
        """The note cosigned last, with the log's signatures and our own; None before the first.

        Raises `Undecided` when the disk fails.
        """
        try:
            with self._turn:
                row = self._connection.execute(
                    "SELECT note FROM latest WHERE origin = ?", (origin,)
                ).fetchone()
        except sqlite3.Error as error:
            raise Undecided("witness.cannot_read", f"the state cannot be read: {error}") from None
        return None if row is None else bytes(row[0])

    def latest_by_hash(self, name: str) -> bytes | None:
        """As `latest`, for the SHA-256 of an origin in hex (the monitoring path of tlog-witness)."""
        origins = [each for each in self._logs if hashlib.sha256(each.encode()).hexdigest() == name]
        return self.latest(origins[0]) if origins else None

    def convictions(self) -> list[bytes]:
        """Documents that convict a log of two histories, oldest first; anyone may have them."""
        with self._turn:
            rows = self._connection.execute("SELECT document FROM conviction ORDER BY rowid").fetchall()
        return [bytes(row[0]) for row in rows]

    @property
    def convicted(self) -> int:
        """How many convictions are kept."""
        with self._turn:
            (count,) = self._connection.execute("SELECT count(*) FROM conviction").fetchone()
        return int(count)

    def add_conviction(self, data: bytes) -> bool:
        """Keep a document that another sent, if it convicts a log known here; True when it is new.

        Raises `Unreadable` or `Refused`.
        """
        document = equivocation.read(data)
        origin = checkpoint.read(document.first).checkpoint.origin
        equivocation.convict_log(document, self._logs.get(origin, ()))
        with self._turn:
            return self._keep_conviction(origin, document) is not None

    def close(self) -> None:
        self._connection.close()

    def _judge(self, body: bytes, time: int) -> Judged:
        last = self._last(body)
        known = {} if last is None else {last[0].origin: last[0]}
        answer = judge(body, logs=self._logs, last=known, signer=self._signers[0], time=time,
                       also=self._signers[1:])  # fmt: skip
        if answer.cosigned is not None:
            self._advance(answer.cosigned, body, answer)
        elif answer.status in (409, 422):  # past 403: the log's own signature holds
            return Judged(answer, self._keep_refused(body, answer, last[1] if last else None, time))
        return Judged(answer)

    def _last(self, body: bytes) -> tuple[Checkpoint, bytes] | None:
        """What was cosigned last of the log that a request is about; None for noise and for newcomers."""
        try:
            origin = stated_origin(body)
        except ComityError:
            return None
        row = self._connection.execute("SELECT note FROM latest WHERE origin = ?", (origin,)).fetchone()
        return None if row is None else (checkpoint.read(row[0]).checkpoint, bytes(row[0]))

    def _advance(self, cosigned: Checkpoint, body: bytes, answer: Answer) -> None:
        """The new note, with the log's lines by keys known here and ours: strangers' lines stay out."""
        signed = read_request(body).signed.note
        keys = {(key.name, key.key_id) for key in self._logs[cosigned.origin]}
        own = [line for line in signed.signatures if (line.name, line.key_id) in keys]
        lines = (*own, *note.read_signatures(answer.body.decode()))
        self._connection.execute(
            "INSERT INTO latest VALUES (?, ?) ON CONFLICT (origin) DO UPDATE SET note = excluded.note",
            (cosigned.origin, note.write(Note(cosigned.text, lines))),
        )

    def _keep_refused(self, body: bytes, answer: Answer, before: bytes | None, time: int) -> bytes | None:
        """Keep what may be evidence; the document where it convicts the log, and none like it was kept."""
        try:
            request = read_request(body)
        except ComityError:
            return None  # size 0 with another root: nothing that was signed is worth keeping
        origin = request.signed.checkpoint.origin
        (kept,) = self._connection.execute(
            "SELECT count(*) FROM refused WHERE origin = ?", (origin,)
        ).fetchone()
        if kept < MAX_REFUSED and answer.status == 422:
            self._connection.execute(
                "INSERT OR IGNORE INTO refused VALUES (?, ?, ?, ?, ?)",
                (hashlib.sha256(body).digest(), origin, answer.reason or "", time, body),
            )
        stated = note.write(request.signed.note)
        if before is not None and (found := equivocation.between(before, stated, request.hashes)):
            return self._keep_conviction(origin, found)
        return None

    def _keep_conviction(self, origin: str, document: equivocation.Equivocation) -> bytes | None:
        """The document as it is kept from now on; None where it was before, or enough are."""
        (kept,) = self._connection.execute(
            "SELECT count(*) FROM conviction WHERE origin = ?", (origin,)
        ).fetchone()
        if kept >= MAX_CONVICTIONS:
            return None
        data = document.write()
        written = self._connection.execute(
            "INSERT OR IGNORE INTO conviction (digest, origin, document) VALUES (?, ?, ?)",
            (document.digest, origin, data),
        )
        return data if written.rowcount == 1 else None

    def _undo(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
