"""The one thread that writes the log: group commit without waiting (receipts.md 10, session.md 11).

What arrives while a commit is on its way to disk goes into the next one together; an idle writer
commits at once, so that no window ever delays a lone request. After a failure that leaves the disk
in doubt the writer is dead for good: its program must exit and open the log anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

from receipts.log.draft import Issued
from receipts.log.erasure import ledger_of
from receipts.log.store import connect, empty_journal
from receipts.log.writing import batch
from receipts.log.writing.batch import Work
from receipts.log.writing.holder import Holder
from receipts.log.writing.signing import Signer, State
from receipts.statements.notice import Notice
from schemas.errors import ComityError, Refused, Undecided

MAX_BATCH: Final = 256  # works in one transaction; a commit stays below some 20 ms
MAX_QUEUED: Final = 8192  # works waiting; beyond it callers are refused instead of piling up
SIGNER_THREADS: Final = 2  # two threads sign at close to twice the rate; more gain nothing on two cores
ROWS_UNTIL_MOVED: Final = 4000  # rows, 20 to 30 MB of write-ahead log, between moves into the database
EMPTY_AGAIN_S: Final = 1.0  # seconds between tries to empty it while one reads: each may sync two files
EMPTY_LOOK_S: Final = 0.01  # seconds between looks at a move that emptying waits for, while no work comes
EMPTY_TOLD_S: Final = 60.0  # seconds of trying until it is said: an fsck of a large log takes as long

_logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Job:
    """A work, who waits for it, and what came of it."""

    work: Work
    waiting: asyncio.Future[list[Issued]]
    outcome: list[Issued] | ComityError | None = None


@dataclass(slots=True)
class Writer:
    """Owns the connection, the state and the keys; nobody else touches them while it runs."""

    database: Path
    connection: sqlite3.Connection
    holder: Holder
    state: State
    signer: Signer
    clock: Callable[[], datetime]
    loop: asyncio.AbstractEventLoop
    """The loop that submits, and that is told what came of it."""
    on_failure: Callable[[ComityError], None]
    emptied: bool = True
    """Whether nothing that was erased stands in the write-ahead log; changed by the writer's thread alone."""
    failure: ComityError | None = None
    _queue: queue.SimpleQueue[_Job | None] = field(default_factory=queue.SimpleQueue)
    _thread: threading.Thread = field(init=False)
    _moved_at: int = 0
    """Rows ever written when the write-ahead log was last moved."""
    _moving: Future[None] | None = None
    _again_at: float = 0.0
    """Monotonic seconds: not before then is emptying tried again."""
    _trying_since: float | None = None
    """Monotonic seconds of the first try that a reader stood in the way of."""
    _told: bool = False

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="comity-log", daemon=True)
        self._thread.start()

    def submit(self, work: Work) -> asyncio.Future[list[Issued]]:
        """Queue a work, on the loop. The future ends after the commit, or with why there was none.

        A work whose future is cancelled before its turn does not happen.
        """
        if self.failure is not None:
            raise self.failure
        if self._queue.qsize() >= MAX_QUEUED:
            raise Refused("log.queue_full", "too many receipts are waiting to be written")
        job = _Job(work, self.loop.create_future())
        self._queue.put(job)
        return job.waiting

    def stop(self) -> None:
        """Finish what is queued, then end the thread and close the connection. Blocks."""
        self._queue.put(None)
        self._thread.join()

    def abandon(self) -> None:
        """Give up the role without having started."""
        self._close()

    def _run(self) -> None:
        """Until `stop`. Whatever goes wrong here ends the log, and its program hears of it."""
        going = True
        while going:
            jobs: list[_Job] = []
            with self._failing():
                going = self._collect(jobs)
                if jobs and self.failure is None:
                    self._transact(jobs)
            with self._failing():
                self._tell(jobs)
                self._tidy()
        with self._failing():
            self._tidy_at_last()
        with self._failing():
            self._close()

    def _collect(self, jobs: list[_Job]) -> bool:
        """Wait for a first work, then take what else is there already. False when no more will come.

        None at all come when the write-ahead log is to be looked after.
        """
        try:
            job = self._queue.get(timeout=self._patience())
        except queue.Empty:
            return True
        while job is not None:
            if not job.waiting.cancelled():
                jobs.append(job)
            if len(jobs) == MAX_BATCH or self._queue.empty():
                return True
            job = self._queue.get()
        return False

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        """What is raised inside becomes the log's failure: a thread that died of it would tell nobody."""
        try:
            yield
        except sqlite3.Error as error:
            self._fail(Undecided("log.cannot_commit", f"the log cannot be written: {error}"))
        except ComityError as error:
            self._fail(error)
        except Exception as error:
            _logger.exception("the log's writer failed")
            self._fail(Undecided("log.defect", f"the log's writer failed: {type(error).__name__}"))

    def _transact(self, jobs: Sequence[_Job]) -> None:
        """One transaction for all jobs; on success each has its outcome."""
        connection, now = self.connection, self.clock()
        connection.execute("BEGIN IMMEDIATE")
        self.holder.check(connection)
        after: list[Callable[[], None]] = []
        if any(job.work.checkpoint for job in jobs):
            signer = self.signer
            after.append(
                batch.sign_checkpoint(connection, self.state, signer.keys, signer.identity.origin, now)
            )
        notices: list[Notice] = []
        accepted = [job for job in jobs if self._prepare(job, now, notices)]
        drafts = [draft for job in accepted for draft in job.work.drafts]
        appended, committed = batch.append(connection, self.state, self.signer, drafts, now, notices)
        after.append(committed)
        connection.execute("COMMIT")  # synchronous=FULL: on disk when this returns
        for action in after:
            action()
        if any(job.work.erasures for job in accepted):
            # A crash from here on leaves the write-ahead log behind, and the next holder empties it.
            self.emptied = False
        _share_out(accepted, appended.issued(self.signer))

    def _prepare(self, job: _Job, now: datetime, notices: list[Notice]) -> bool:
        """Everything but what gets a leaf. A refusal concerns this job alone and leaves nothing of it."""
        work = job.work
        try:
            if work.drafts or work.notices:
                batch.check_clock(self.state, now)
            if work.has_more:
                key, ledger = self.signer.keys.receipt, ledger_of(self.database)
                notices += batch.write_more(self.connection, work, now, key, ledger)
            notices += work.notices
        except ComityError as error:
            job.outcome = error
            return False
        return True

    def _tell(self, jobs: Sequence[_Job]) -> None:
        """Hand all outcomes to the loop at once: waking it for each of them would cost more than the row."""
        if not jobs:
            return
        for job in jobs:
            if job.outcome is None:
                job.outcome = self.failure or Undecided("log.closed", "the log is closed")
        with contextlib.suppress(RuntimeError):  # the loop is gone, and with it who waited
            self.loop.call_soon_threadsafe(_end, jobs)

    def _fail(self, error: ComityError) -> None:
        """Whether the last commit is on disk is unknown: nothing of it may leave, nothing may follow."""
        self.failure = error
        with contextlib.suppress(sqlite3.Error):  # no transaction may be open any more
            self.connection.execute("ROLLBACK")
        with contextlib.suppress(RuntimeError):  # the loop is gone
            self.on_failure(error)

    def _tidy(self) -> None:
        """Have the write-ahead log moved into the database now and then, so that it starts over.

        The bulk is moved beside the commits; only the rest, between two of them, makes it start over:
        overwriting its old pages then takes a third less than extending the file (measured). After an
        erasure it is emptied instead: old pages hold what was erased.
        """
        if self.failure is not None:
            return
        if self._moving is None:
            written = self.connection.total_changes
            due = not self.emptied and time.monotonic() >= self._again_at
            if due or written - self._moved_at >= ROWS_UNTIL_MOVED:
                self._moved_at = written
                self._moving = self.signer.pool.submit(self._move)
        elif self._moving.done():
            moved, self._moving = self._moving, None
            try:
                moved.result()
                if self.emptied:
                    self.connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
                else:
                    self._empty()
            except (sqlite3.Error, ComityError) as error:
                self._fail(Undecided("log.cannot_commit", f"the log cannot be written: {error}"))

    def _patience(self) -> float | None:
        """Seconds until there is something to tidy though no work comes; None while there is not."""
        if self.emptied or self.failure is not None:
            return None
        return EMPTY_LOOK_S if self._moving else max(0.0, self._again_at - time.monotonic())

    def _empty(self) -> None:
        """Try to. A reader in the way is no failure: the broker goes on, and this is tried again."""
        now = time.monotonic()
        if empty_journal(self.connection):
            if self._told:
                _logger.info("the write-ahead log is emptied: what was erased is gone from it")
            self.emptied, self._trying_since, self._told = True, None, False
            return
        self._again_at = now + EMPTY_AGAIN_S
        self._trying_since = now if self._trying_since is None else self._trying_since
        if now - self._trying_since >= EMPTY_TOLD_S and not self._told:
            self._tell_of_reader()

    def _tell_of_reader(self) -> None:
        self._told = True
        _logger.warning(
            "what was erased may still stand in the write-ahead log: another program reads the database",
            extra={"database": str(self.database)},
        )

    def _tidy_at_last(self) -> None:
        """A last try. Who reads even now keeps the file from going with us: the next holder empties it."""
        self.signer.pool.shutdown()  # a move that is under way would be in the way
        if self.failure is None and not self.emptied:
            self._empty()
            if not self.emptied:
                self._tell_of_reader()

    def _move(self) -> None:
        """PASSIVE waits for nobody and holds nobody up (SQLite, wal_checkpoint)."""
        connection = connect(self.database)
        try:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        finally:
            connection.close()

    def _close(self) -> None:
        """Whatever fails on the way, the role is given up."""
        try:
            self.signer.pool.shutdown()
            self.connection.close()
        finally:
            self.holder.release()


def new_pool() -> ThreadPoolExecutor:
    """Threads that sign large batches."""
    return ThreadPoolExecutor(SIGNER_THREADS, thread_name_prefix="comity-log-sign")


def _share_out(jobs: Sequence[_Job], issued: Sequence[Issued]) -> None:
    at = 0
    for job in jobs:
        job.outcome = list(issued[at : at + len(job.work.drafts)])
        at += len(job.work.drafts)


def _end(jobs: Sequence[_Job]) -> None:
    """On the loop: whoever still waits goes on."""
    for job in jobs:
        if job.waiting.done():
            continue
        if isinstance(job.outcome, list):
            job.waiting.set_result(job.outcome)
        elif job.outcome is not None:
            job.waiting.set_exception(job.outcome)
