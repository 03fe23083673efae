"""A small log on disk, and how somebody with the disk edits it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from receipts.tests.world import Domain, drafts


async def stored(domain: Domain, folder: Path) -> Path:
    log = await domain.open(folder)
    await log.issue(drafts(5))
    await log.close()
    return folder / f"{domain.name}.db"


def edit(database: Path, statement: str) -> None:
    connection = sqlite3.connect(database)
    connection.execute(statement)
    connection.commit()
    connection.close()
