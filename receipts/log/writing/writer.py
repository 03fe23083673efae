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
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

from receipts.log.draft import Issued
from receipts.log.erasure import ledger_of
from receipts.log.store import connect
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
    failure: ComityError | None = None
    _queue: queue.SimpleQueue[_Job | None] = field(default_factory=queue.SimpleQueue)
    _thread: threading.Thread = field(init=False)
    _moved_at: int = 0
    """Rows ever written when the write-ahead log was last moved."""
    _moving: Future[None] | None = None

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
        going = True
        while going:
            jobs, going = self._collect()
            if jobs and self.failure is None:
                self._commit(jobs)
            self._tell(jobs)
            self._tidy()
        self._close()

    def _collect(self) -> tuple[list[_Job], bool]:
        """Wait for a first work, then take what else is there already."""
        jobs: list[_Job] = []
        job = self._queue.get()
        while job is not None:
            if not job.waiting.cancelled():
                jobs.append(job)
            if len(jobs) == MAX_BATCH or self._queue.empty():
                return jobs, True
            job = self._queue.get()
        return jobs, False

    def _commit(self, jobs: Sequence[_Job]) -> None:
        """One transaction for all jobs; on success each has its outcome."""
        try:
            self._transact(jobs)
        except sqlite3.Error as error:
            self._fail(Undecided("log.cannot_commit", f"the log cannot be written: {error}"))
        except ComityError as error:
            self._fail(error)
        except Exception as error:
            _logger.exception("the log's writer failed")
            self._fail(Undecided("log.defect", f"the log's writer failed: {type(error).__name__}"))

    def _transact(self, jobs: Sequence[_Job]) -> None:
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
        self.on_failure(error)

    def _tidy(self) -> None:
        """Have the write-ahead log moved into the database now and then, so that it starts over.

        The bulk is moved beside the commits; only the rest, between two of them, makes it start over:
        overwriting its old pages then takes a third less than extending the file (measured).
        """
        if self._moving is None:
            written = self.connection.total_changes
            if written - self._moved_at >= ROWS_UNTIL_MOVED and self.failure is None:
                self._moved_at = written
                self._moving = self.signer.pool.submit(self._move)
        elif self._moving.done():
            try:
                self._moving.result()
                self.connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
            except (sqlite3.Error, ComityError) as error:
                self._fail(Undecided("log.cannot_commit", f"the log cannot be written: {error}"))
            self._moving = None

    def _move(self) -> None:
        """PASSIVE waits for nobody and holds nobody up (SQLite, wal_checkpoint)."""
        connection = connect(self.database)
        try:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        finally:
            connection.close()

    def _close(self) -> None:
        self.signer.pool.shutdown()
        self.connection.close()
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
