"""Auditing: a whole log by `comity audit`, and one receipt of it."""

from __future__ import annotations

import os
import secrets
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

from bench.receipts.sample import Figure, interleaved, pinned
from receipts.audit.checking import check_all
from receipts.audit.findings import Audit
from receipts.audit.logfile import LogFile
from receipts.audit.many import in_threads
from receipts.audit.whole import audit_log, signers_of
from receipts.log import LogKeys
from schemas.keys import VerifyKey


def auditing(database: Path, log_keys: LogKeys) -> list[Figure]:
    """A whole log by `comity audit`, with every processor, against one thread that only verifies."""
    held = pinned(log_keys)
    signers = signers_of("clinic.de", held)
    public, payload = log_keys.receipt.public, secrets.token_bytes(2200)
    signature = log_keys.receipt.sign(payload)
    found: list[Audit] = []

    def audit() -> None:
        with LogFile(database) as log:
            found.append(audit_log(log, held))

    def receipts_alone() -> None:
        with LogFile(database) as log:
            assert all(each.prev for each in in_threads(log.rows(), signers))

    def one_thread() -> None:
        assert all(each.prev for each in check_all(rows, signers, whole=False))

    def verify_some() -> None:
        for _ in rows:
            public.verify(signature, payload)

    def verify() -> None:
        for _ in range(count):
            public.verify(signature, payload)

    with LogFile(database) as log:
        count = log.size
        rows = list(islice(log.rows(), 1024))
    alone = interleaved({"check": one_thread, "verify": verify_some}, time.thread_time)
    processors = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(processors, get_context("forkserver")) as pool:

        def verify_everywhere(each: int = count // processors) -> None:
            begun = [pool.submit(_verify, public.spki, signature, payload, each) for _ in range(processors)]
            assert sum(one.result() for one in begun) == each * processors

        verify_everywhere(1)  # starts the processes
        took = interleaved(
            {"audit": audit, "receipts": receipts_alone, "verify": verify, "everywhere": verify_everywhere},
            time.perf_counter,
        )
    if any(each.exit_code for each in found):
        raise RuntimeError("the log that was measured does not hold")
    rates = {name: count / value for name, value in took.items()}
    return [
        Figure(f"audit a log of {count:,}", f"{rates['audit']:,.0f}/s",
               f"{rates['audit'] / rates['verify']:.2f} of verify", "≥ 0.8"),
        Figure("one receipt of it, checked", f"{alone['check'] / len(rows) * 1e6:,.0f} µs of a processor",
               f"{alone['verify'] / alone['check']:.2f} of verify a processor"),
        Figure("its receipts, two threads", f"{rates['receipts']:,.0f}/s",
               f"{rates['receipts'] / rates['verify']:.2f} of verify"),
        Figure(f"raw verify, {processors} processors", f"{rates['everywhere']:,.0f}/s",
               f"{rates['everywhere'] / rates['verify']:.2f} of one"),
    ]  # fmt: skip


def _verify(spki: bytes, signature: bytes, payload: bytes, count: int) -> int:
    """In a process of its own: so many bare verifications."""
    public = VerifyKey.from_spki(spki)
    for _ in range(count):
        public.verify(signature, payload)
    return count
