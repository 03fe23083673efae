"""A whole log: clean, or touched by somebody who has the disk, each touch with its reason."""

from __future__ import annotations

import asyncio
import csv
import io
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from subprocess import PIPE

import pytest

from receipts.audit import many, whole
from receipts.audit.commands import main
from receipts.audit.findings import Audit, Finding
from receipts.audit.tests.conftest import Auditor, codes
from receipts.commands.log import main as log
from receipts.tests.world import CLINIC, CLOUD, NOW, Domain, Run, drafts
from schemas import envelope
from schemas.primitives import format_time


async def test_a_clean_log_holds(auditor: Auditor) -> None:
    await auditor.play(Run(), Run(), Run())
    code, report = auditor.log()
    assert (code, report["findings"]) == (0, [])
    counts = report["counts"]
    assert (counts["leaves"], counts["receipts"], counts["kinds"]) == (3, 3, {"placement": 3})
    assert counts["peers"] == {CLOUD: {"receipts": 3, "newest": 2, "gaps": 0}}
    assert report["limits"], "what an audit cannot show is said every time"
    assert auditor.log(CLOUD)[1]["counts"]["kinds"] == {"execution": 3}


FIRST = "SELECT envelope FROM statement WHERE seq = 0"
OLDER = "SELECT note FROM checkpoint WHERE size = 1"
CHANGED = "CAST(substr(envelope, 1, 900) || '?' || substr(envelope, 902) AS BLOB)"
"""One byte of the payload is another one."""
GONE = "DELETE FROM statement WHERE seq = 1"
TOUCHED = [
    (GONE, "audit.sequence_gap"),
    (f"UPDATE statement SET envelope = {CHANGED} WHERE seq = 1", None),
    (f"UPDATE statement SET envelope = ({FIRST}) WHERE seq = 1", "audit.leaf"),
    ("UPDATE statement SET receipt_id = 'other' WHERE seq = 1", "audit.row"),
    ("UPDATE statement SET seq = 7 WHERE seq = 2", "audit.row"),
    ("UPDATE leaf SET salt = zeroblob(32) WHERE idx = 1", "audit.leaf"),
    ("UPDATE leaf SET salt = NULL WHERE idx = 1", "audit.salt"),
    ("UPDATE leaf SET record = (SELECT record FROM leaf WHERE idx = 0) WHERE idx = 1", "audit.tree"),
    ("DELETE FROM leaf WHERE idx = 1", "audit.tree"),
    ("DELETE FROM leaf WHERE idx = 2", "audit.leaf"),
    (f"UPDATE checkpoint SET note = ({OLDER}) WHERE size = 3", "audit.tree"),
]  # fmt: skip


@pytest.mark.parametrize(("sql", "code"), TOUCHED)
async def test_every_touch_shows(auditor: Auditor, sql: str, code: str | None) -> None:
    await auditor.play(Run(), Run(), Run())
    auditor.change(CLINIC, sql)
    exit_code, report = auditor.log()
    assert exit_code == 1
    found = {each for _, each in codes(report)}
    assert code in found if code else found
    if sql == GONE:
        (gap,) = report["findings"]
        assert gap["text"] == "number 1 to cloud.fr not in the log"
        assert report["counts"]["peers"][CLOUD] == {"receipts": 2, "newest": 2, "gaps": 1}


NEWEST = "WHERE idx = (SELECT max(idx) FROM statement)"
FORGOTTEN = (
    "UPDATE chain SET seq = seq - 1, digest = (SELECT digest FROM statement WHERE seq = chain.seq - 2)"
)


async def test_the_newest_receipt_cannot_be_taken_away(auditor: Auditor) -> None:
    """No later number asks for it, and its place in the tree stays: a leaf that nothing stands for."""
    await auditor.play(Run(), Run(), Run())
    auditor.change(CLINIC, FORGOTTEN)
    auditor.change(CLINIC, f"DELETE FROM statement {NEWEST}")
    code, report = auditor.log()
    assert (code, codes(report)) == (1, [(CLINIC, "audit.receipt_gone")])
    assert "leaf 2" in report["findings"][0]["text"]
    assert log(["fsck", str(auditor.database(CLINIC))]) == 1
    assert "WRONG        leaf 2 is there, its receipt is not" in auditor.capture.readouterr().out


@pytest.mark.parametrize(("newest", "owed"), [(2, "1 leaf stands "), (0, "3 leaves stand ")])
async def test_what_was_never_signed_for_is_owed(auditor: Auditor, newest: int, owed: str) -> None:
    """Whoever takes the checkpoints away has a log that could still become anything."""
    await auditor.play(Run(), Run(), Run())
    auditor.change(CLINIC, "DELETE FROM checkpoint WHERE size > ?", newest)
    code, report = auditor.log()
    assert (code, codes(report)) == (1, [(CLINIC, "audit.no_checkpoint")])
    assert report["total"] == {"wrong": 0, "missing": 1, "note": 0}
    assert report["findings"][0]["text"].startswith(owed)
    started = auditor.run(str(auditor.database(CLINIC)), at=format_time(NOW))
    assert started[0] == 0, "within the merge delay nothing is owed yet"


async def test_a_receipt_by_a_stranger_s_key_shows(auditor: Auditor) -> None:
    """The same words under a key that clinic.de never registered."""
    await auditor.play(Run())
    row = auditor.runs[0].placed
    assert row is not None
    payload = envelope.read(row.envelope).payload
    forged = envelope.sign(envelope.STATEMENT, payload, Domain.make(CLINIC).keys.receipt)
    auditor.change(CLINIC, "UPDATE statement SET envelope = ? WHERE seq = 0", forged)
    assert codes(auditor.log()[1]) == [(CLINIC, "envelope.signature_invalid")]


async def test_a_log_under_no_manifest_is_nobody_s(auditor: Auditor) -> None:
    stranger = Domain.make("rogue.us")
    log = await stranger.open(auditor.folder)
    await log.issue(drafts(1))
    await log.close()
    code, report = auditor.log("rogue.us")
    assert (code, codes(report)) == (1, [("rogue.us", "audit.no_manifest")])


async def test_the_report_in_every_form(auditor: Auditor) -> None:
    await auditor.play(Run(), Run(), Run())
    auditor.change(CLINIC, GONE)
    table, page = auditor.folder / "found.csv", auditor.folder / "found.html"
    auditor.log(CLINIC, "--csv", str(table), "--html", str(page))
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [row["code"] for row in rows] == ["audit.sequence_gap"]
    html = page.read_text()
    assert "number 1 to cloud.fr not in the log" in html
    assert "<script" not in html
    assert "does not hold" in html


@pytest.mark.parametrize("terminal", [True, False])
async def test_progress_is_for_a_terminal(
    auditor: Auditor, monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    """A build that forces colours has no terminal for all that: its log gets no bar."""
    await auditor.play(Run())
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    more = ["--trust", str(auditor.folder / "trust.toml"), "--papers", str(auditor.folder / "papers")]
    assert main([str(auditor.database(CLINIC)), *more, "--json"]) == 0
    assert ("verifying receipts" in auditor.capture.readouterr().err) == terminal


def test_a_spreadsheet_gets_no_formula_and_a_browser_no_markup() -> None:
    audit = Audit("<b>log</b>")
    for text in ("=HYPERLINK(1)", "+1", "-1", "@x", "\tx", "<script>alert(1)</script>"):
        audit.add(Finding("a.b", "audit.x", "wrong", text))
    cells = [row["text"] for row in csv.DictReader(io.StringIO(audit.as_csv()))]
    assert cells[:5] == ["'=HYPERLINK(1)", "'+1", "'-1", "'@x", "'\tx"]
    assert "<script" not in audit.as_html()
    assert "<b>" not in audit.as_html()


@pytest.mark.parametrize("missing", ["papers", "log"])
async def test_what_cannot_be_read_is_said(auditor: Auditor, missing: str) -> None:
    await auditor.play(Run())
    if missing == "papers":
        for path in (auditor.folder / "papers").iterdir():
            path.unlink()
    else:
        auditor.remove(f"{CLINIC}.db-wal")
        auditor.database(CLINIC).write_bytes(b"no database")
    code, report = auditor.log()
    assert code == 2
    assert report["reason"] in ("audit.papers", "log.database", "log.not_a_log")


async def test_what_was_erased_is_neither_wrong_nor_there(auditor: Auditor) -> None:
    await auditor.play(Run(), Run(), Run())
    clinic = await auditor.federation.clinic.open(auditor.folder)
    await clinic.erase(auditor.runs[1].request.id, reason="gdpr-17", authority="dpo", at=NOW)
    await clinic.close()
    code, report = auditor.log()
    assert (code, report["counts"]["erased"]) == (0, 1)


@pytest.mark.parametrize(
    "touches",
    [
        [],
        [GONE, f"UPDATE statement SET envelope = ({FIRST}) WHERE seq = 2",
         "UPDATE leaf SET salt = NULL WHERE idx = 3",
         f"UPDATE statement SET envelope = {CHANGED} WHERE seq = 4"],
    ],
)  # fmt: skip
async def test_processes_find_what_threads_find(
    auditor: Auditor, monkeypatch: pytest.MonkeyPatch, touches: list[str]
) -> None:
    """Each process reads for itself; slices of two receipts, so that there are several."""
    await auditor.play(*(Run() for _ in range(5)))
    for sql in touches:
        auditor.change(CLINIC, sql)
    by_threads = auditor.log()
    monkeypatch.setattr(whole, "PROCESSES_FROM", 1)
    monkeypatch.setattr(many, "SLICE", 2)
    assert auditor.log() == by_threads
    assert by_threads[0] == (1 if touches else 0)


async def test_where_no_process_can_be_had_threads_do_it(
    auditor: Auditor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object, **__: object) -> None:
        raise OSError("no semaphores here")

    await auditor.play(Run(), Run())
    monkeypatch.setattr(whole, "PROCESSES_FROM", 1)
    monkeypatch.setattr(many, "ProcessPoolExecutor", none)
    assert auditor.log()[0] == 0


async def test_a_log_that_changes_while_it_is_read(auditor: Auditor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes read for themselves: what they miss is not passed over."""
    await auditor.play(Run(), Run(), Run())
    monkeypatch.setattr(whole, "PROCESSES_FROM", 1)
    monkeypatch.setattr(many, "_slices", lambda _: iter([(0, 1)]))
    code, report = auditor.log()
    assert (code, report["reason"]) == (2, "log.changed")


async def test_a_process_that_is_killed_decides_nothing(
    auditor: Auditor, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed:
        def result(self) -> None:
            raise BrokenProcessPool

    await auditor.play(Run())
    monkeypatch.setattr(whole, "PROCESSES_FROM", 1)
    monkeypatch.setattr(ProcessPoolExecutor, "submit", lambda *_, **__: Killed())
    code, report = auditor.log()
    assert (code, report["reason"]) == (3, "audit.process")


async def test_a_process_says_what_it_cannot_read(auditor: Auditor, monkeypatch: pytest.MonkeyPatch) -> None:
    await auditor.play(Run(), Run())
    auditor.change(CLINIC, "UPDATE statement SET kind = 'none' WHERE seq = 1")
    monkeypatch.setattr(whole, "PROCESSES_FROM", 1)
    code, report = auditor.log()
    assert (code, report["reason"]) == (2, "log.damaged")


KILLED = """
import sys, time
from pathlib import Path
from receipts.audit import many
from receipts.audit.checking import Signers

if __name__ == "__main__":
    with many.processes(Path(sys.argv[1]), Signers("clinic.de", "test", ())) as started:
        started.pool.submit(time.sleep, 0).result()
        print(*started.pool._processes, flush=True)
        time.sleep(60)
"""


async def test_a_killed_audit_leaves_no_process_behind(auditor: Auditor, tmp_path: Path) -> None:
    await auditor.play(Run())
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    audit = await asyncio.create_subprocess_exec(
        sys.executable, str(script), str(auditor.database(CLINIC)),
        stdout=PIPE, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )  # fmt: skip
    assert audit.stdout
    workers = [os.pidfd_open(int(pid)) for pid in (await audit.stdout.readline()).split()]
    assert workers
    audit.kill()
    await audit.wait()
    async with asyncio.timeout(20):
        for each in workers:
            await _ended(each)


async def _ended(process: int) -> None:
    """Return when the process that this descriptor stands for has ended (pidfd_open(2))."""
    loop, gone = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(process, gone.set)
    try:
        await gone.wait()
    finally:
        loop.remove_reader(process)
        os.close(process)
