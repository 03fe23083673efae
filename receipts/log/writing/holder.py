"""Who may append: one live process, fenced by an epoch (session.md 11).

The operating system's lock says who is alive and goes with the process, however it dies; the epoch
in the database says whose turn it is, and every transaction checks it. A holder whose epoch is
gone must not write again, whatever it believes.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from schemas.errors import ConfigurationError, Refused
from schemas.lock import lock


@dataclass(slots=True)
class Holder:
    """The role of the log's appender, held until `release` or the end of the process."""

    epoch: int
    _descriptor: int

    @classmethod
    def acquire(cls, database: Path, connection: sqlite3.Connection) -> Self:
        """Become the holder. Raises `ConfigurationError` (`log.held`) when another live process is."""
        descriptor = _lock(database.with_name(database.name + "-holder"))
        try:
            connection.execute("BEGIN IMMEDIATE")
            epoch: int = connection.execute("SELECT epoch FROM holder WHERE id = 1").fetchone()[0] + 1
            connection.execute("UPDATE holder SET epoch = ?, holder = ?", (epoch, secrets.token_hex(8)))
            connection.execute("COMMIT")
        except sqlite3.Error:
            os.close(descriptor)
            raise
        return cls(epoch, descriptor)

    def check(self, connection: sqlite3.Connection) -> None:
        """Inside a transaction: we still hold the role. Raises `Refused` (`log.fenced`)."""
        if connection.execute("SELECT epoch FROM holder WHERE id = 1").fetchone() != (self.epoch,):
            raise Refused("log.fenced", "another holder has taken over this log")

    def release(self) -> None:
        os.close(self._descriptor)


def _lock(path: Path) -> int:
    try:
        return lock(path)
    except BlockingIOError:
        text = f"{path}: another process holds this log; stop it, or open another database"
        raise ConfigurationError("log.held", text) from None
    except OSError as error:
        raise ConfigurationError("log.database", f"{path}: {error.strerror}") from None
