"""The log's tables. The writer speaks plain SQL to them; nothing else writes.

What a crash leaves behind: SQLite in WAL mode with `synchronous=FULL` keeps a transaction whole or
not at all, and a commit that returned is on disk.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path
from typing import ClassVar, Final

from sqlalchemy.orm import registry
from sqlalchemy.schema import CreateIndex, CreateTable
from sqlmodel import Field, SQLModel

from receipts import private_file
from schemas.errors import ConfigurationError

SCHEMA_VERSION: Final = 5
BUSY_TIMEOUT_S: Final = 5.0  # seconds to wait for another's lock: while tables are made, before a commit
WRITER_CACHE_KIB: Final = 32 * 1024
"""KiB of pages that the writer keeps. Receipts have random names, so that a batch touches pages all over the
indexes: at SQLite's own 2,000 KiB they are read again each time, and written to make room (measured)."""


class LogRow(SQLModel, registry=registry()):
    """Tables of the log have their own registry: other rooms' tables stay out of this database."""


class MetaRow(LogRow, table=True):
    """Whose log this is."""

    __tablename__: ClassVar[str] = "meta"
    name: str = Field(primary_key=True)
    value: str


class HolderRow(LogRow, table=True):
    """Who may append: one row, whose epoch is checked in every transaction (session.md 11)."""

    __tablename__: ClassVar[str] = "holder"
    id: int = Field(primary_key=True)
    epoch: int
    holder: str


class LeafRow(LogRow, table=True):
    """What the tree is made of. The salt may be erased, the record never."""

    __tablename__: ClassVar[str] = "leaf"
    idx: int = Field(primary_key=True)
    record: bytes
    salt: bytes | None = None
    time_ms: int
    """When it was appended; the promise's time."""


class StatementRow(LogRow, table=True):
    """Our own receipts."""

    __tablename__: ClassVar[str] = "statement"
    idx: int = Field(primary_key=True)
    receipt_id: str = Field(unique=True)
    kind: int
    peer: str
    seq: int
    digest: bytes
    request_id: str = Field(index=True)
    envelope: bytes
    """As `receipts.statements.packed` spells it; empty when the receipt was erased."""
    disclosures: bytes | None = None


class ChainRow(LogRow, table=True):
    """Where the sequence with each peer stands."""

    __tablename__: ClassVar[str] = "chain"
    peer: str = Field(primary_key=True)
    seq: int
    """The next number."""
    digest: bytes
    """Receipt digest of the last one."""


class TileRow(LogRow, table=True):
    """A full tile of 256 hashes, and the hash that it becomes one level up."""

    __tablename__: ClassVar[str] = "tile"
    level: int = Field(primary_key=True)
    n: int = Field(primary_key=True)
    hashes: bytes
    root: bytes


class CheckpointRow(LogRow, table=True):
    """Every checkpoint that was ever signed, stored before it was shown."""

    __tablename__: ClassVar[str] = "checkpoint"
    size: int = Field(primary_key=True)
    note: bytes
    time_ms: int


class CosignatureRow(LogRow, table=True):
    """What other domains' witnesses said of our checkpoints: one note line each, newline included."""

    __tablename__: ClassVar[str] = "cosignature"
    size: int = Field(primary_key=True)
    witness: str = Field(primary_key=True)
    line: str


class ForeignRow(LogRow, table=True):
    """Statements of others."""

    __tablename__: ClassVar[str] = "foreign_statement"
    digest: bytes = Field(primary_key=True)
    request_id: str = Field(index=True)
    envelope: bytes
    proof: bytes | None = None


class BlobRow(LogRow, table=True):
    """Evidence, collateral and trust documents, by SHA-256."""

    __tablename__: ClassVar[str] = "blob"
    digest: bytes = Field(primary_key=True)
    data: bytes


class CommitmentKeyRow(LogRow, table=True):
    """Keys of commitments, apart from the statements that hold the commitments."""

    __tablename__: ClassVar[str] = "commitment_key"
    commitment: bytes = Field(primary_key=True)
    key: bytes


class TombstoneRow(LogRow, table=True):
    """Signed word of who had a receipt erased, and why."""

    __tablename__: ClassVar[str] = "tombstone"
    idx: int = Field(primary_key=True)
    envelope: bytes


class NoticeRow(LogRow, table=True):
    """What we said of logs beside receipts: tombstones, gaps, accusations, convictions; under leaves."""

    __tablename__: ClassVar[str] = "notice"
    idx: int = Field(primary_key=True)
    kind: int
    digest: bytes
    envelope: bytes
    about: int | None = None
    """The leaf that a tombstone speaks of."""


class AheadRow(LogRow, table=True):
    """Points of no return that were passed, and whether their outcome is known."""

    __tablename__: ClassVar[str] = "ahead"
    kind: str = Field(primary_key=True)
    key: str = Field(primary_key=True)
    data: bytes
    time_ms: int
    settled: bool


def connect(database: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """A connection in autocommit mode; a file that is made for it is private. Raises `ConfigurationError`."""
    mode = "ro" if read_only else "rw"
    try:
        if not read_only:
            private_file.make(database)
        connection = sqlite3.connect(
            f"file:{_quoted(database)}?mode={mode}",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            timeout=BUSY_TIMEOUT_S,
        )
        with contextlib.ExitStack() as undo:
            undo.callback(connection.close)
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            undo.pop_all()
    except sqlite3.Error as error:
        raise ConfigurationError("log.database", f"{database}: {error}") from None
    except OSError as error:
        raise ConfigurationError("log.database", f"{database}: {error.strerror}") from None
    return connection


def prepare_for_writing(connection: sqlite3.Connection, database: Path) -> None:
    """Durability settings and tables. Raises `ConfigurationError`, or `sqlite3.Error`."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA wal_autocheckpoint=0")  # the writer does it, between commits
    connection.execute("PRAGMA secure_delete=ON")  # what is erased is overwritten (receipts.log.erasure)
    connection.execute(f"PRAGMA cache_size=-{WRITER_CACHE_KIB}")
    if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0:
        _create(connection)
    elif read_meta(connection).get("schema") in ("1", "2", "3", "4"):
        _add_missing(connection)
    if read_meta(connection).get("schema") != str(SCHEMA_VERSION):
        raise ConfigurationError("log.schema", f"{database}: not a log of schema version {SCHEMA_VERSION}")


def has_journal(database: Path) -> bool:
    """Whether a write-ahead log lies beside it: a crash, or a reader who stayed longer than the writer."""
    file = Path(os.path.realpath(database))  # as SQLite names it
    try:
        return file.with_name(file.name + "-wal").stat().st_size > 0
    except OSError:  # none is there; what else is wrong with the place, opening the database tells
        return False


def empty_journal(connection: sqlite3.Connection) -> bool:
    """Move the write-ahead log into the database and cut it off; False, and nothing cut, while one reads it.

    Waits for nobody: SQLite would hold its write lock meanwhile, and no receipt could be written. By the
    writer's thread, outside a transaction. Raises `sqlite3.Error`.
    """
    connection.execute("PRAGMA busy_timeout=0")
    try:
        (busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    finally:
        connection.execute(f"PRAGMA busy_timeout={int(BUSY_TIMEOUT_S * 1000)}")
    return not busy


def read_meta(connection: sqlite3.Connection) -> dict[str, str]:
    """Name → value; empty when this is no log."""
    try:
        return dict(connection.execute("SELECT name, value FROM meta").fetchall())
    except sqlite3.Error:
        return {}


def _create(connection: sqlite3.Connection) -> None:
    from sqlalchemy.dialects import sqlite

    connection.execute("BEGIN IMMEDIATE")
    for table in LogRow.metadata.sorted_tables:
        connection.execute(str(CreateTable(table).compile(dialect=sqlite.dialect())))
        for index in table.indexes:
            connection.execute(str(CreateIndex(index).compile(dialect=sqlite.dialect())))
    connection.execute("INSERT INTO meta VALUES ('schema', ?)", (str(SCHEMA_VERSION),))
    connection.execute("INSERT INTO holder VALUES (1, 0, '')")
    connection.execute("COMMIT")


def _add_missing(connection: sqlite3.Connection) -> None:
    """From older versions: tables were added; receipts are spelled shorter now, and each tells how it is."""
    from sqlalchemy.dialects import sqlite

    connection.execute("BEGIN IMMEDIATE")
    for table in LogRow.metadata.sorted_tables:
        create = CreateTable(table, if_not_exists=True)
        connection.execute(str(create.compile(dialect=sqlite.dialect())))
    connection.execute("UPDATE meta SET value = ? WHERE name = 'schema'", (str(SCHEMA_VERSION),))
    connection.execute("COMMIT")


def _quoted(path: Path) -> str:
    return str(path.absolute()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
