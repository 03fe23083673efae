"""What was erased leaves the write-ahead log too, and whoever reads meanwhile holds up no receipt."""

from __future__ import annotations

import asyncio
import logging
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from receipts.log import store
from receipts.log.writing import writer
from receipts.tests.test_privacy import emptied, erase, issue, on_disk
from receipts.tests.world import CLINIC, Domain, drafts

SOON_S = store.BUSY_TIMEOUT_S / 2  # seconds; whoever waits for a reader takes twice as long


@contextmanager
def reading(database: Path) -> Iterator[None]:
    """Somebody reads the database as it stands, as `comity log fsck` does for as long as it runs."""
    reader = sqlite3.connect(f"file:{database}?mode=ro", uri=True, isolation_level=None)
    try:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM leaf").fetchone()
        yield
    finally:
        reader.close()


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / f"{CLINIC}.db"


@pytest.fixture
def tries(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """What each try to empty the write-ahead log came to."""
    made: list[bool] = []

    def counting(connection: sqlite3.Connection) -> bool:
        made.append(store.empty_journal(connection))
        return made[-1]

    monkeypatch.setattr(writer, "empty_journal", counting)
    return made


async def tried(tries: list[bool], count: int) -> None:
    """So many tries were made."""
    async with asyncio.timeout(10):
        while len(tries) < count:  # noqa: ASYNC110 - nobody announces one
            await asyncio.sleep(0.005)


async def test_a_reader_holds_up_neither_an_erasure_nor_receipts(
    clinic: Domain, tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "EMPTY_AGAIN_S", 0.01)
    log = await clinic.open(tmp_path)
    request, receipt_id = await issue(log)
    told = f"candidates {request}".encode()
    assert log.wal_emptied, "nothing was erased"
    with reading(database):
        async with asyncio.timeout(SOON_S):
            await erase(log, request)
            for _ in range(10):
                await log.issue(drafts(8))
        assert await log.issued(receipt_id) is None
        assert not log.wal_emptied
        assert on_disk(tmp_path, told), "the reader may still ask for it"
    await emptied(log)
    assert not on_disk(tmp_path, told)
    assert log._writer.failure is None
    await log.close()


async def test_an_idle_log_is_emptied_without_being_asked(
    clinic: Domain, tmp_path: Path, database: Path, tries: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No work comes that would wake the writer; once emptied, it sleeps until one does."""
    monkeypatch.setattr(writer, "EMPTY_AGAIN_S", 0.01)
    log = await clinic.open(tmp_path)
    request, _ = await issue(log)
    with reading(database):
        await erase(log, request)
        await log.checkpoint()
        await tried(tries, 3)
    await emptied(log)
    assert tries == [False] * (len(tries) - 1) + [True]
    assert log._writer._patience() is None
    await log.close()


async def test_it_is_tried_at_a_bounded_pace(
    clinic: Domain, tmp_path: Path, database: Path, tries: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each try may sync two files in the writer's thread: neither receipts nor erasures bring one about."""
    monkeypatch.setattr(writer, "EMPTY_AGAIN_S", 3600.0)
    log = await clinic.open(tmp_path)
    requests = [(await issue(log))[0] for _ in range(3)]
    with reading(database):
        await erase(log, requests[0])
        await tried(tries, 1)
        for request in requests[1:]:
            await erase(log, request)
            await log.issue(drafts(8))
        assert tries == [False]
    await log.close()
    assert tries == [False, True], "at the end once more, whatever the pace"


async def test_a_reader_who_stays_is_told_of_once(
    clinic: Domain,
    tmp_path: Path,
    database: Path,
    tries: list[bool],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(writer, "EMPTY_AGAIN_S", 0.01)
    monkeypatch.setattr(writer, "EMPTY_TOLD_S", 0.02)
    caplog.set_level(logging.INFO, writer.__name__)
    log = await clinic.open(tmp_path)
    request, _ = await issue(log)
    with reading(database):
        await erase(log, request)
        await tried(tries, 8)
    await emptied(log)
    assert [(each.levelname, each.message.partition(":")[0]) for each in caplog.records] == [
        ("WARNING", "what was erased may still stand in the write-ahead log"),
        ("INFO", "the write-ahead log is emptied"),
    ]
    await log.close()


async def test_the_next_holder_empties_what_a_crash_left(
    clinic: Domain, tmp_path: Path, database: Path
) -> None:
    """Erased, and then gone before the write-ahead log was empty: the folder as it stands at that moment."""
    log = await clinic.open(tmp_path)
    request, _ = await issue(log)
    told = f"candidates {request}".encode()
    left = tmp_path / "left"
    left.mkdir()
    with reading(database):
        await erase(log, request)
        for path in (database, database.with_name(database.name + "-wal")):
            shutil.copy(path, left)
    await log.close()
    assert on_disk(left, told)
    again = await clinic.open(left)
    await emptied(again)
    assert not on_disk(left, told)
    await again.close()


async def test_a_reader_at_the_end_leaves_it_to_the_next_holder(
    clinic: Domain, tmp_path: Path, database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = await clinic.open(tmp_path)
    request, _ = await issue(log)
    told = f"candidates {request}".encode()
    with reading(database):
        await erase(log, request)
        async with asyncio.timeout(SOON_S):
            await log.close()
        assert "what was erased may still stand in the write-ahead log" in caplog.text
    assert on_disk(tmp_path, told)
    again = await clinic.open(tmp_path)
    await emptied(again)
    assert not on_disk(tmp_path, told)
    await again.close()


async def test_a_restored_backup_leaves_nothing_in_the_write_ahead_log(
    clinic: Domain, tmp_path: Path, database: Path
) -> None:
    """What opening erases again is overwritten as well while the log is open, not when it is closed."""
    log = await clinic.open(tmp_path)
    request, _ = await issue(log)
    await log.close()
    shutil.copy(database, tmp_path / "backup")
    log = await clinic.open(tmp_path)
    await erase(log, request)
    await log.close()
    shutil.move(tmp_path / "backup", database)
    log = await clinic.open(tmp_path)
    await emptied(log)
    assert not on_disk(tmp_path, f"candidates {request}".encode())
    await log.close()
