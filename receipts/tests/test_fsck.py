"""`comity log fsck` finds what a crash could break and what somebody with the disk could change."""

from __future__ import annotations

from pathlib import Path

import pytest

from receipts.log import fsck as checker
from receipts.note import NoteSigner
from receipts.tests.conftest import code_of
from receipts.tests.stored import edit, stored
from receipts.tests.world import (
    CLINIC,
    Domain,
    drafts,
)

DAMAGE = {
    "DELETE FROM leaf WHERE idx = 2": "leaf 2 is missing",
    "UPDATE leaf SET record = zeroblob(66) WHERE idx = 2": "leaf 2: leaf.version",
    "UPDATE leaf SET salt = zeroblob(32) WHERE idx = 2": "leaf 2 is not its own",
    "DELETE FROM statement WHERE idx = 2": "number 3 to cloud.fr does not follow",
    "UPDATE statement SET seq = 9 WHERE idx = 2": "its row says something else",
    "UPDATE statement SET envelope = zeroblob(9) WHERE idx = 2": "json.syntax",
    "UPDATE chain SET seq = 4": "does not end where its receipts do",
    "DELETE FROM leaf WHERE idx = 4": "a checkpoint of 5 leaves was signed, 4 are here",
    "UPDATE checkpoint SET note = (SELECT note FROM checkpoint WHERE size = 0) WHERE size = 5":
        "signed over another tree",
    "UPDATE checkpoint SET note = zeroblob(9) WHERE size = 5": "note.control",
}  # fmt: skip


@pytest.mark.parametrize("statement", DAMAGE)
async def test_fsck_finds_damage(clinic: Domain, tmp_path: Path, statement: str) -> None:
    database = await stored(clinic, tmp_path)
    assert checker.check(database, keys=[clinic.keys.note.key]).wrong == []
    edit(database, statement)
    assert any(DAMAGE[statement] in text for text in checker.check(database).wrong)


async def test_fsck_finds_a_checkpoint_by_another_key(clinic: Domain, tmp_path: Path) -> None:
    database = await stored(clinic, tmp_path)
    other = NoteSigner.of(clinic.origin, bytes(32)).key
    assert any("note.no_known_signer" in text for text in checker.check(database, keys=[other]).wrong)


async def test_fsck_finds_an_altered_tile(clinic: Domain, tmp_path: Path) -> None:
    log = await clinic.open(tmp_path)
    await log.issue(drafts(256))
    await log.close()
    database = tmp_path / f"{CLINIC}.db"
    edit(database, "UPDATE tile SET root = zeroblob(32)")
    assert any("tile 0/0" in text for text in checker.check(database).wrong)


def test_fsck_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    edit(path, "CREATE TABLE theirs (x)")
    assert code_of(lambda: checker.check(path)) == "log.not_a_log"
