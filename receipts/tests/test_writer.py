"""The writer's thread never goes without a word: whatever ends it is what `failed` reports."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from receipts.log import Issued
from receipts.log.writing import writer
from receipts.log.writing.writer import Writer
from receipts.tests.conftest import refusal
from receipts.tests.world import Domain, drafts
from schemas.errors import Undecided


def no_thread(*_: object) -> None:
    """A limit of processes, as CPython says it."""
    raise RuntimeError("can't start new thread")


async def test_a_move_that_cannot_begin_ends_the_log(
    clinic: Domain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "ROWS_UNTIL_MOVED", 10)
    log = await clinic.open(tmp_path)
    monkeypatch.setattr(log._writer.signer.pool, "submit", no_thread)
    await log.issue(drafts(4))
    async with asyncio.timeout(10):
        failure = await log.failed()
        assert isinstance(failure, Undecided)
        assert failure.code == "log.defect"
        assert await refusal(log.issue(drafts(1))) == "log.defect"
        await log.close()
    async with asyncio.timeout(10):  # the role was given up, and what was answered is there
        again = await clinic.open(tmp_path)
        assert again.size == 4
        await again.close()


@pytest.mark.parametrize("name", ["_collect", "_transact", "_tidy", "_move"])
async def test_no_defect_leaves_callers_waiting(
    clinic: Domain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Wherever it strikes: the program hears that it must end, and whoever waits is answered."""
    monkeypatch.setattr(writer, "ROWS_UNTIL_MOVED", 1)
    log = await clinic.open(tmp_path)
    monkeypatch.setattr(Writer, name, once(getattr(Writer, name)))
    issuing: list[asyncio.Task[list[Issued]]] = []
    async with asyncio.timeout(10):
        failed = asyncio.create_task(log.failed())
        while not failed.done():
            issuing += [asyncio.create_task(log.issue(drafts(1))) for _ in range(3)]
            await asyncio.wait({failed, *issuing[-3:]}, return_when=asyncio.FIRST_COMPLETED)
        assert failed.result().code == "log.defect"
        await log.close()
        await asyncio.gather(*issuing, return_exceptions=True)


def once(method: Callable[..., object]) -> Callable[..., object]:
    """The same, but for the first time: then it does its work and fails in a way that nobody expects."""
    struck = False

    def striking(*arguments: object) -> object:
        nonlocal struck
        if struck:
            return method(*arguments)
        struck = True
        if method.__name__ == "_collect":
            method(*arguments)
        raise ValueError("nobody expects this")

    return striking
