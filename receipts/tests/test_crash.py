"""Killed at any point, the log has everything that was answered and contradicts nothing it has shown.

`COMITY_CRASH_ROUNDS` makes the random part longer (a soak); every kill is followed by a full fsck.
"""

from __future__ import annotations

import functools
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from receipts.log import Recorded, TransparencyLog, fsck, store
from receipts.tests.world import CLINIC, Domain, drafts
from schemas.errors import ComityError, Undecided

ROOT = Path(__file__).parents[2]
SEED = "crash"
ROUNDS = int(os.environ.get("COMITY_CRASH_ROUNDS", "12"))
STATEMENTS = 120  # the first of a writer: opening, emptying what a crash left, several commits of each kind
STEP = 1 if ROUNDS > 100 else 5  # every fifth statement, before and after; a soak does them all


@dataclass
class Launcher:
    """Forks writers, and hears what they were answered."""

    process: subprocess.Popen[str]
    folder: Path
    heard: list[dict[str, Any]] = field(default_factory=list)

    @property
    def database(self) -> Path:
        return self.folder / f"{CLINIC}.db"

    def run(self, *, kill_at: int = 0, after: bool = False, kill_after_lines: int = 0) -> int:
        """One writer until its death; returns the signal that it died of."""
        order = {"folder": str(self.folder), "seed": SEED, "kill_at": kill_at, "after": after}
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        pid = 0
        for lines, line in enumerate(self.process.stdout, 1):
            said = json.loads(line)
            if "died" in said:
                return int(said["died"])
            pid = said.get("started", pid)
            self.heard.append(said)
            if pid and kill_after_lines and lines >= kill_after_lines:
                os.kill(pid, signal.SIGKILL)
                kill_after_lines = 0
        raise AssertionError("the launcher is gone")

    def check(self) -> None:
        """Everything that was answered is here; nothing contradicts what was shown."""
        findings = fsck.check(self.database, keys=[Domain.make(CLINIC, seed=SEED).keys.note.key])
        assert findings.wrong == []
        connection = sqlite3.connect(self.database)
        stored = {
            (receipt_id, digest.hex(), index)
            for receipt_id, digest, index in connection.execute(
                "SELECT receipt_id, digest, idx FROM statement"
            )
        }
        notes = {note.decode() for (note,) in connection.execute("SELECT note FROM checkpoint")}
        rows = dict(connection.execute("SELECT key, settled FROM ahead").fetchall())
        stated = {digest.hex() for (digest,) in connection.execute("SELECT digest FROM notice")}
        buried = {about for (about,) in connection.execute("SELECT about FROM notice WHERE kind = 5")}
        empty = {
            index
            for (index,) in connection.execute(
                "SELECT s.idx FROM statement s JOIN leaf l ON l.idx = s.idx"
                " WHERE s.envelope = x'' AND l.salt IS NULL"
            )
        }
        connection.close()
        assert {(s["receipt"], s["digest"], s["index"]) for s in self.heard if "receipt" in s} <= stored
        assert {said["checkpoint"] for said in self.heard if "checkpoint" in said} <= notes
        assert {said["recorded"] for said in self.heard if "recorded" in said} <= set(rows)
        assert all(rows[said["settled"]] for said in self.heard if "settled" in said)
        assert {said["stated"] for said in self.heard if "stated" in said} <= stated
        assert {said["erased"] for said in self.heard if "erased" in said} <= buried & empty
        assert buried <= empty, "a tombstone stands for what is gone"


def _is_a_log(database: Path) -> bool:
    with closing(store.connect(database)) as connection:
        return "origin" in store.read_meta(connection)


@pytest.fixture(scope="module")
def process() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "receipts.tests.crash_child"]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as started:
        yield started
        assert started.stdin is not None
        started.stdin.close()


@pytest.fixture
def launcher(process: subprocess.Popen[str], tmp_path: Path) -> Launcher:
    return Launcher(process, tmp_path)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_at_each_statement(launcher: Launcher, after: bool) -> None:
    """One database through all kills: each writer opens what the last one left."""
    for kill_at in range(1 + 2 * after, STATEMENTS, STEP):
        assert launcher.run(kill_at=kill_at, after=after) == signal.SIGKILL
        if launcher.database.exists() and _is_a_log(launcher.database):
            launcher.check()
    assert sum("receipt" in said for said in launcher.heard) > 20


def test_killed_at_any_moment(launcher: Launcher) -> None:
    chance = random.Random(20260601)
    for _ in range(ROUNDS):
        assert launcher.run(kill_after_lines=chance.randint(2, 40)) == signal.SIGKILL
        launcher.check()
    opened = [said["opened"] for said in launcher.heard if "opened" in said]
    assert opened == sorted(opened)
    assert opened[-1] > 0


class Faulty(sqlite3.Connection):
    """Fails at the n-th statement: before it took effect, or after."""

    countdown = 0
    after = False

    def execute(self, *arguments: Any) -> sqlite3.Cursor:
        return self._run(functools.partial(super().execute, *arguments))

    def executemany(self, *arguments: Any) -> sqlite3.Cursor:
        return self._run(functools.partial(super().executemany, *arguments))

    def _run(self, statement: functools.partial[sqlite3.Cursor]) -> sqlite3.Cursor:
        Faulty.countdown -= 1
        if Faulty.countdown == 0 and not Faulty.after:
            raise sqlite3.OperationalError("disk I/O error")
        cursor = statement()
        if Faulty.countdown == 0:
            raise sqlite3.OperationalError("disk I/O error")
        return cursor


async def test_a_log_that_cannot_be_read_is_undecided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    domain = Domain.make(CLINIC, seed=SEED)
    Faulty.countdown = 0
    monkeypatch.setattr(sqlite3, "connect", functools.partial(sqlite3.connect, factory=Faulty))
    log = await domain.open(tmp_path)
    Faulty.countdown, Faulty.after = 1, False
    with pytest.raises(Undecided, match=r"log\.cannot_read"):
        await log.issued("nobody's")
    assert await log.issued("nobody's") is None
    await log.close()


@pytest.mark.parametrize("after", [False, True], ids=["not-persisted", "persisted-but-error"])
async def test_an_error_at_each_statement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    """The crash matrix: whatever the disk says, an answer was durable and silence promises nothing."""
    domain = Domain.make(CLINIC, seed=SEED)
    connect = sqlite3.connect
    answered: set[str] = set()
    done = False
    for number in range(1 + after, 200, 1 if ROUNDS > 100 else 2):
        Faulty.countdown, Faulty.after = number, after
        monkeypatch.setattr(sqlite3, "connect", functools.partial(connect, factory=Faulty))
        done = await scenario(domain, tmp_path, answered)
        monkeypatch.setattr(sqlite3, "connect", connect)
        Faulty.countdown = 0
        log = await domain.open(tmp_path)
        for receipt_id in answered:
            assert await log.issued(receipt_id) is not None
        await log.close()
        assert fsck.check(tmp_path / f"{CLINIC}.db").wrong == []
        if done:
            break
    assert done
    assert number > 30


async def scenario(domain: Domain, folder: Path, answered: set[str]) -> bool:
    """Open, issue, record, checkpoint, close. True when no fault was met."""
    log: TransparencyLog | None = None
    try:
        log = await domain.open(folder)
        answered |= {one.receipt_id for one in await log.issue(drafts(1))}
        record = [Recorded("intent", f"{len(answered)}-{Faulty.countdown}", b"")]
        answered |= {one.receipt_id for one in await log.issue(drafts(2), record=record)}
        await log.checkpoint()
    except ComityError:
        return False
    finally:
        if log is not None:
            await log.close()
    return Faulty.countdown > 0
