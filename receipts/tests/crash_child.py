"""A process that writes a log and is killed: started by test_crash.py, forks one writer per order.

Order (one line of JSON on stdin): {"folder", "seed" of the domain's keys, "kill_at", "after"}.
The writer reports every answer it has been given, before it goes on; the launcher says when it died.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import signal
import sqlite3
import sys
from pathlib import Path
from typing import Any

from receipts.log import Keep, Recorded
from receipts.statements.notice import Gap
from receipts.tests.world import CLINIC, CLOUD, FEDERATION, NOW, Domain, drafts
from schemas.primitives import format_time


class Deadly(sqlite3.Connection):
    """Kills its process before or after the n-th statement that is run through it."""

    countdown = 0
    after = False

    def execute(self, *arguments: Any) -> sqlite3.Cursor:
        return self._run(functools.partial(super().execute, *arguments))

    def executemany(self, *arguments: Any) -> sqlite3.Cursor:
        return self._run(functools.partial(super().executemany, *arguments))

    def _run(self, statement: functools.partial[sqlite3.Cursor]) -> sqlite3.Cursor:
        Deadly.countdown -= 1
        if Deadly.countdown == 0 and not Deadly.after:
            os.kill(os.getpid(), signal.SIGKILL)
        cursor = statement()
        if Deadly.countdown == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return cursor


def say(**values: Any) -> None:
    os.write(1, (json.dumps(values) + "\n").encode())


async def write(domain: Domain, folder: Path) -> None:
    """A bit of everything; forever, unless the countdown ends it."""
    log = await domain.open(folder)
    await log.tell_of_erasures()
    say(opened=log.size)
    turn = 0
    while True:
        turn += 1
        key = f"{os.getpid()}-{turn}"
        record = [Recorded("intent", key, b"digests")]
        made = drafts(1 + turn % 3)
        issued = await log.issue(made, record=record, keep=Keep(key, evidence=[key.encode()]))
        for one in issued:
            say(receipt=one.receipt_id, digest=one.digest.hex(), index=one.index)
        say(recorded=key)
        if turn % 2:
            say(checkpoint=(await log.checkpoint()).decode())
        else:
            await log.settle("intent", key)
            say(settled=key)
        if turn % 3 == 1:
            await log.erase(made[0].body.request.id, reason="gdpr-17", authority="dpo", at=NOW)
            say(erased=issued[0].index)
        if turn % 3 == 2:
            say(stated=(await log.state(gap(turn))).digest.hex())


def gap(number: int) -> Gap:
    return Gap(
        federation=FEDERATION, issuer=CLINIC, peer=CLOUD, first=number, last=number, reason="test",
        time=format_time(NOW),
    )  # fmt: skip


def fork_writer(order: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    Deadly.countdown, Deadly.after = order["kill_at"], order["after"]
    if order["kill_at"]:
        sqlite3.connect = functools.partial(sqlite3.connect, factory=Deadly)  # type: ignore[assignment]
    try:
        asyncio.run(write(Domain.make(CLINIC, seed=order["seed"]), Path(order["folder"])))
    finally:
        os._exit(1)


def main() -> None:
    for line in sys.stdin:
        pid = fork_writer(json.loads(line))
        say(started=pid)
        _, status = os.waitpid(pid, 0)
        say(died=os.WTERMSIG(status) if os.WIFSIGNALED(status) else -os.WEXITSTATUS(status))


if __name__ == "__main__":
    main()
