"""A database in which somebody wrote what no column can hold: one clear error, whoever reads it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from receipts.audit.commands import main as audit
from receipts.audit.tests.conftest import Auditor
from receipts.commands.log import main as log
from receipts.commands.receipt import main as receipt
from receipts.log.columns import check_columns
from receipts.log.store import LogRow
from receipts.tests.world import CLINIC, Run
from schemas.errors import ConfigurationError, Unreadable

WRONG = {"BLOB": ("'text'", "7", "1.5"), "INTEGER": ("'text'", "x'00'", "1.5"), "VARCHAR": ("x'00'",)}
COLUMNS = [
    (table.name, column.name, value)
    for table in LogRow.metadata.sorted_tables
    for column in table.columns
    if not (column.primary_key and str(column.type) == "INTEGER")  # a rowid: SQLite itself refuses others
    for value in WRONG.get(str(column.type), ())
]


@pytest.fixture
async def played(auditor: Auditor) -> Auditor:
    await auditor.play(Run())
    return auditor


def spoil(auditor: Auditor, table: str, column: str, value: str) -> Path:
    """The first row of a table, or a new one where it has none, with this value in one column."""
    path = auditor.database(CLINIC)
    with closing(sqlite3.connect(path)) as connection, connection:
        if connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] == 0:
            _insert(connection, table)
        connection.execute(
            f"UPDATE {table} SET {column} = {value} WHERE rowid IN (SELECT rowid FROM {table} LIMIT 1)"
        ) if table not in _keyed(connection) else connection.execute(f"UPDATE {table} SET {column} = {value}")
    return path


def _keyed(connection: sqlite3.Connection) -> set[str]:
    """Tables without a rowid."""
    sql = "SELECT name FROM sqlite_schema WHERE sql LIKE '%WITHOUT ROWID%'"
    return {name for (name,) in connection.execute(sql)}


def _insert(connection: sqlite3.Connection, table: str) -> None:
    values = {"BLOB": "x'00'", "INTEGER": "0", "BOOLEAN": "0"}
    kinds = [row[2].upper() for row in connection.execute(f"PRAGMA table_info({table})")]
    connection.execute(
        f"INSERT INTO {table} VALUES ({', '.join(values.get(each, chr(39) * 2) for each in kinds)})"
    )


@pytest.mark.parametrize(("table", "column", "value"), COLUMNS)
async def test_no_column_is_forgotten(played: Auditor, table: str, column: str, value: str) -> None:
    path = spoil(played, table, column, value)
    with closing(sqlite3.connect(path)) as connection, pytest.raises(Unreadable, match=r"log\.damaged"):
        check_columns(connection)


def audited(auditor: Auditor, path: Path) -> int:
    del path
    return auditor.log()[0]


COMMANDS: dict[str, Callable[[Auditor, Path], int]] = {
    "audit": audited,
    "pair": lambda auditor, _: auditor.pair()[0],
    "fsck": lambda _, path: log(["fsck", str(path), "--json"]),
    "tiles": lambda auditor, path: log(["tiles", str(path), str(auditor.folder / "tiles")]),
    "export": lambda _, path: log(["export", str(path)]),
    "receipt": lambda auditor, path: receipt(
        ["export", str(path), "r", "--papers", str(auditor.folder / "papers"), "--out", "-"]
    ),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("table", "column", "value"),
    [("checkpoint", "note", "'text'"), ("foreign_statement", "envelope", "7"), ("leaf", "record", "'text'"),
     ("leaf", "salt", "7"), ("chain", "peer", "x'00'"), ("tile", "hashes", "'text'")],
)  # fmt: skip
async def test_every_command_says_so(
    played: Auditor, command: str, table: str, column: str, value: str
) -> None:
    """Exit code 2, by itself or through the front door; never a defect of ours."""
    path = spoil(played, table, column, value)
    assert _exit_code(lambda: COMMANDS[command](played, path)) == 2


HELD = ["--trust", "trust.toml", "--papers", "papers"]
OVER: dict[str, list[str]] = {
    "export": ["log", "export", "LOG", "--out", "LOG"],
    "csv": ["audit", "LOG", *HELD, "--csv", "LOG"],
    "html": ["audit", "LOG", *HELD, "--html", "LOG"],
    "pair": ["audit", "--pair", "cloud.fr.db", "LOG", *HELD, "--csv", "LOG"],
    "bundle": ["receipt", "export", "LOG", "ID", "--papers", "papers", "--out", "LOG"],
}


@pytest.mark.parametrize("how", OVER)
async def test_what_is_read_out_of_a_log_is_not_written_over_it(
    auditor: Auditor, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by another name of the same file: a slip at the prompt must not cost a log."""
    run = Run()
    await auditor.play(run)
    path = auditor.database(CLINIC)
    before, named = path.read_bytes(), {"LOG": str(path), "ID": run.request.id}
    (auditor.folder / "again.db").symlink_to(path)
    monkeypatch.chdir(auditor.folder)
    command, *words = [named.get(word, word) for word in OVER[how][:-1]]
    commands: dict[str, Callable[[list[str]], int]] = {"log": log, "audit": audit, "receipt": receipt}
    with pytest.raises(ConfigurationError, match="the log itself"):
        commands[command]([*words, "again.db"])
    assert path.read_bytes() == before


ODD = {
    "a receipt without its leaf": ("DELETE FROM leaf", "receipt"),
    "a digest that is none": ("UPDATE statement SET digest = zeroblob(5000)", "receipt"),
    "another's that is none": ("UPDATE OR IGNORE foreign_statement SET digest = x'00'", "receipt"),
    "a record that no entry bundle holds": ("UPDATE leaf SET record = zeroblob(70000)", "tiles"),
}


@pytest.mark.parametrize("how", ODD)
async def test_rows_that_no_log_has(auditor: Auditor, how: str) -> None:
    run = Run()
    await auditor.play(run)
    sql, command = ODD[how]
    auditor.change(CLINIC, sql)
    path, papers = str(auditor.database(CLINIC)), str(auditor.folder / "papers")
    words = ["export", path, run.request.id, "--papers", papers, "--out", str(auditor.folder / "one.receipt")]
    tiles = ["tiles", path, str(auditor.folder / "tiles")]
    assert _exit_code(lambda: receipt(words) if command == "receipt" else log(tiles)) == 2


PAGE = 4096  # bytes, as SQLite makes them by default


@pytest.mark.parametrize(("command", "wanted"), [("pair", 2), ("receipt", 2), ("fsck", 2), ("tiles", 0)])
async def test_a_page_that_the_disk_lost(auditor: Auditor, command: str, wanted: int) -> None:
    """Every index begins with a page of zeros: whoever needs one says so, whoever needs none goes on."""
    run = Run()
    await auditor.play(run)
    path = auditor.database(CLINIC)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
        pages = connection.execute("SELECT rootpage FROM sqlite_schema WHERE type = 'index'").fetchall()
    with path.open("r+b") as file:
        for (page,) in pages:
            file.seek((page - 1) * PAGE)
            file.write(bytes(PAGE))
    assert _exit_code(lambda: COMMANDS[command](auditor, path)) == wanted


def _exit_code(run: Callable[[], int]) -> int:
    """As `comity` itself has it."""
    try:
        return run()
    except Unreadable as error:
        return error.exit_code


def test_another_s_database_is_no_log(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "x.db")) as connection:
        connection.execute("CREATE TABLE leaf (idx INTEGER)")
        with pytest.raises(Unreadable, match=r"log\.not_a_log"):
            check_columns(connection)
