"""Many receipts at once: threads for a small log, processes that read for themselves for a large one.

Processes are started by a server of their own, never forked out of this one: an open database and a
progress bar's lock do not survive a fork.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Final, TypeAlias

from receipts.audit import rows as stored
from receipts.audit.checking import Checked, Signers, check_all
from receipts.audit.rows import Row
from schemas.errors import Refused, Undecided, Unreadable

THREADS: Final = 2  # verifying frees the interpreter's lock; more threads wait for it in between
CHUNK: Final = 128  # receipts a thread takes at once
PROCESSES_FROM: Final = 8192  # receipts; below it, starting processes takes longer than they save
MAX_PROCESSES: Final = 16
SLICE: Final = 512  # receipts a process takes at once: some 50 ms of work
AHEAD: Final = 8  # slices a process may be ahead of the walk: bounds memory, some 250 KB a slice

_Told: TypeAlias = tuple[int, str, int, str, int, bytes, str | None, str | None, str | None]
"""Row without its bytes, `prev`, and code and text of an error: little to hand over."""


def in_threads(rows: Iterable[Row], signers: Signers, *, whole: bool = False) -> Iterator[Checked]:
    """Authenticate receipts, in their order. `whole` keeps what they say."""
    with ThreadPoolExecutor(THREADS, thread_name_prefix="comity-audit") as pool:
        waiting: list[Future[list[Checked]]] = []
        source = iter(rows)
        while chunk := list(islice(source, CHUNK)):
            waiting.append(pool.submit(check_all, chunk, signers, whole=whole))
            if len(waiting) > THREADS:
                yield from waiting.pop(0).result()
        for each in waiting:
            yield from each.result()


@dataclass(slots=True)
class Processes:
    """A started pool over one database."""

    pool: ProcessPoolExecutor
    count: int

    def check(self, connection: sqlite3.Connection) -> Iterator[Checked]:
        """All receipts that `connection` sees, in their order; one erased meanwhile counts as erased.

        Work begins at once. The iterator raises `Unreadable` when the database cannot be read, `Undecided`
        when a process was killed.
        """
        bounds = _slices(connection)
        begun = [self.pool.submit(_check_slice, *each) for each in islice(bounds, self.count * AHEAD)]
        return self._results(begun, bounds)

    def _results(
        self, waiting: list[Future[list[_Told] | str]], bounds: Iterator[tuple[int, int]]
    ) -> Iterator[Checked]:
        while waiting:
            try:
                told = waiting.pop(0).result()
            except BrokenProcessPool:
                raise Undecided("audit.process", "a process of this audit was ended from outside") from None
            waiting += [self.pool.submit(_check_slice, *each) for each in islice(bounds, 1)]
            if isinstance(told, str):
                raise Unreadable("log.damaged", told)
            for each in told:
                yield _checked(each)


@contextmanager
def processes(path: Path, signers: Signers) -> Iterator[Processes]:
    """A pool with one process for each processor that we may use. Raises `OSError` where none can be made."""
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    count = min(len(os.sched_getaffinity(0)), MAX_PROCESSES)
    pool = ProcessPoolExecutor(count, context, initializer=_start, initargs=(path, signers))
    try:
        yield Processes(pool, count)
    finally:
        pool.shutdown(cancel_futures=True)


def _slices(connection: sqlite3.Connection) -> Iterator[tuple[int, int]]:
    """First and last leaf index of each slice: what the numbers are is the database's word alone."""
    source = (index for (index,) in connection.execute("SELECT idx FROM statement ORDER BY idx"))
    while numbers := list(islice(source, SLICE)):
        yield numbers[0], numbers[-1]


@dataclass(slots=True)
class _Worker:
    """What a process holds for its whole life."""

    connection: sqlite3.Connection
    signers: Signers


_worker: list[_Worker] = []


def _start(path: Path, signers: Signers) -> None:
    threading.Thread(target=_end_with_the_audit, name="comity-audit-parent", daemon=True).start()
    _worker.append(_Worker(stored.open_read_only(path), signers))


def _end_with_the_audit() -> None:
    """A killed audit tells nobody: its processes would wait for work that never comes, for ever."""
    audit = parent_process()
    if audit is not None:
        audit.join()
        os._exit(1)


def _check_slice(first: int, last: int) -> list[_Told] | str:
    """In a process of its own; or why its rows cannot be read."""
    (worker,) = _worker
    try:
        rows = stored.between(worker.connection, first, last)
        return [_told(each) for each in check_all(rows, worker.signers, whole=False)]
    except (Unreadable, sqlite3.Error) as error:
        return error.text if isinstance(error, Unreadable) else str(error)


def _told(checked: Checked) -> _Told:
    row, error = checked.row, checked.error
    code, text = (error.code, error.text) if error else (None, None)
    return row.leaf, row.receipt_id, row.kind, row.peer, row.seq, row.digest, checked.prev, code, text


def _checked(told: _Told) -> Checked:
    index, receipt_id, kind, peer, seq, digest, prev, code, text = told
    error = None if code is None else Refused(code, text or "")
    return Checked(Row(index, receipt_id, kind, peer, seq, digest, None, None, None), prev, error)
