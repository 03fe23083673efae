"""Does every column hold what it was declared to hold? SQLite itself lets anything into any of them.

Whoever reads a log that another wrote asks this first: one clear answer, instead of a surprise at whatever
row is read when. Not checked: what the values say.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from sqlalchemy import Table
from sqlalchemy.dialects import sqlite

from receipts.log.store import LogRow
from schemas.errors import Unreadable

_KINDS: Final = {"BLOB": "blob", "VARCHAR": "text", "INTEGER": "integer", "BOOLEAN": "integer"}
"""A column's declared type → what SQLite says of a value that belongs into it."""


def check_columns(connection: sqlite3.Connection) -> int:
    """How many tables of a log are there and hold values of their kinds.

    Raises `Unreadable`: `log.damaged`, or `log.not_a_log` where a column is missing.
    """
    present = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    tables = [table for table in LogRow.metadata.sorted_tables if table.name in present]
    for table in tables:
        wrong = " OR ".join(_is_wrong(table))
        try:
            found = connection.execute(f"SELECT 1 FROM {table.name} WHERE {wrong} LIMIT 1").fetchone()  # noqa: S608  # our own names
        except sqlite3.Error as error:
            raise Unreadable("log.not_a_log", f"{table.name}: {error}") from None
        if found is not None:
            raise Unreadable("log.damaged", f"a column of {table.name} holds what none can hold")
    return len(tables)


def _is_wrong(table: Table) -> list[str]:
    """One condition a column: its value is of no kind that was declared."""
    conditions = []
    for column in table.columns:
        kind = _KINDS[column.type.compile(sqlite.dialect())]
        allowed = f"'{kind}', 'null'" if column.nullable else f"'{kind}'"
        conditions.append(f"typeof({column.name}) NOT IN ({allowed})")
    return conditions
