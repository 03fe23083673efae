"""Who may open a log: one holder, of the right log, that continues what was shown."""

from __future__ import annotations

import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from receipts.log import Documents, LogIdentity, LogKeys, TransparencyLog
from receipts.log import fsck as checker
from receipts.note import NoteSigner
from receipts.tests.conftest import refusal
from receipts.tests.stored import edit, stored
from receipts.tests.world import (
    CLINIC,
    FEDERATION,
    Domain,
    drafts,
)
from schemas.errors import ConfigurationError


async def test_a_second_holder_is_refused(log: TransparencyLog, clinic: Domain, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"log\.held: .*stop it, or open another database"):
        await clinic.open(tmp_path)
    await log.issue(drafts(1))


async def test_a_holder_that_was_replaced_must_not_write(
    log: TransparencyLog, clinic: Domain, tmp_path: Path
) -> None:
    """As after a lost lock file: the epoch in the database decides."""
    (tmp_path / f"{CLINIC}.db-holder").unlink()
    usurper = await clinic.open(tmp_path)
    assert await refusal(log.issue(drafts(1))) == "log.fenced"
    assert (await log.failed()).code == "log.fenced"
    assert await refusal(log.record("intent", "1", b"")) == "log.fenced"
    (issued,) = await usurper.issue(drafts(1))
    assert issued.index == 0
    await usurper.close()


@pytest.mark.parametrize("change", ["domain", "origin", "federation"])
async def test_a_database_belongs_to_one_log(clinic: Domain, tmp_path: Path, change: str) -> None:
    await (await clinic.open(tmp_path)).close()
    other = {"domain": "other.de", "origin": "other.de/log", "federation": "other"}[change]
    values = {"federation": FEDERATION, "domain": CLINIC, "origin": clinic.origin} | {change: other}
    keys = LogKeys(clinic.keys.receipt, clinic.keys.promise, NoteSigner.of(values["origin"], bytes(32)))
    identity = LogIdentity(**values, manifest=clinic.identity.manifest, documents=Documents())
    opening = TransparencyLog.open(tmp_path / f"{CLINIC}.db", identity=identity, keys=keys)
    assert await refusal(opening) == "log.identity"


async def test_the_note_key_carries_the_origin(clinic: Domain, tmp_path: Path) -> None:
    keys = LogKeys(clinic.keys.receipt, clinic.keys.promise, NoteSigner.of("someone/else", bytes(32)))
    opening = TransparencyLog.open(tmp_path / "log.db", identity=clinic.identity, keys=keys)
    assert await refusal(opening) == "log.keys"


@pytest.mark.parametrize("content", [b"no database", b""], ids=["text", "empty"])
async def test_a_file_that_is_no_database(clinic: Domain, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / f"{CLINIC}.db"
    path.write_bytes(content)
    if content:
        with pytest.raises(ConfigurationError):
            await clinic.open(tmp_path)
    else:
        await (await clinic.open(tmp_path)).close()


async def test_another_program_s_database_is_left_alone(clinic: Domain, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / f"{CLINIC}.db") as other:
        other.execute("CREATE TABLE theirs (x)")
    other.close()
    with pytest.raises(ConfigurationError) as refused:
        await clinic.open(tmp_path)
    assert refused.value.code == "log.schema"


async def test_a_read_only_database_is_refused_at_the_start(clinic: Domain, tmp_path: Path) -> None:
    (tmp_path / f"{CLINIC}.db").mkdir()
    with pytest.raises(ConfigurationError) as refused:
        await clinic.open(tmp_path)
    assert refused.value.code == "log.database"


async def test_a_log_that_was_set_back_does_not_sign(clinic: Domain, tmp_path: Path) -> None:
    database = await stored(clinic, tmp_path)
    edit(database, "DELETE FROM leaf WHERE idx = 4")
    assert await refusal(clinic.open(tmp_path)) == "log.rolled_back"


async def test_a_log_that_was_altered_does_not_sign(clinic: Domain, tmp_path: Path) -> None:
    database = await stored(clinic, tmp_path)
    edit(database, "UPDATE leaf SET record = (SELECT record FROM leaf WHERE idx = 1) WHERE idx = 2")
    assert await refusal(clinic.open(tmp_path)) == "log.contradicts_checkpoint"
    edit(database, "DELETE FROM leaf WHERE idx = 1")
    assert await refusal(clinic.open(tmp_path)) == "log.leaves_missing"


async def test_a_log_of_version_1_is_taken_over(clinic: Domain, tmp_path: Path) -> None:
    log = await clinic.open(tmp_path)
    await log.issue(drafts(2))
    await log.close()
    database = tmp_path / f"{clinic.name}.db"
    with closing(sqlite3.connect(database)) as older, older:
        older.execute("DROP TABLE cosignature")
        older.execute("UPDATE meta SET value = '1' WHERE name = 'schema'")
    assert checker.check(database).wrong == []
    again = await clinic.open(tmp_path)
    assert again.size == 2
    await again.close()
    with closing(sqlite3.connect(database)) as orphan, orphan:
        orphan.execute("INSERT INTO cosignature VALUES (7, 'a.b/witness', '')")
    (wrong,) = checker.check(database).wrong
    assert "7 leaves" in wrong


async def test_a_closed_log_is_one_file(clinic: Domain, tmp_path: Path) -> None:
    """Who copies the database for an auditor copies all of it: nothing is left beside it."""
    log = await clinic.open(tmp_path)
    await log.issue(drafts(3))
    await log.close()
    assert names(tmp_path) == ["clinic.de.db", "clinic.de.db-holder"]
    (tmp_path / "copy.db").write_bytes((tmp_path / "clinic.de.db").read_bytes())
    found = checker.check(tmp_path / "copy.db", keys=[clinic.keys.note.key])
    assert (found.receipts, found.wrong) == (3, [])


async def test_nobody_else_reads_what_a_log_writes(clinic: Domain, tmp_path: Path) -> None:
    """Receipts name tenants: database, write-ahead log and index are private while they are there at all."""
    (tmp_path / f"{CLINIC}.db").symlink_to(tmp_path / "elsewhere.db")
    log = await clinic.open(tmp_path)
    await log.issue(drafts(3))
    found = modes(tmp_path)
    await log.close()
    assert {"elsewhere.db", "elsewhere.db-wal", "elsewhere.db-shm"} <= found.keys()
    assert set(found.values()) == {0o600}


async def test_a_log_that_its_owner_showed_to_others_stays_so(clinic: Domain, tmp_path: Path) -> None:
    (await stored(clinic, tmp_path)).chmod(0o640)
    await (await clinic.open(tmp_path)).close()
    assert modes(tmp_path)[f"{CLINIC}.db"] == 0o640


def modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
