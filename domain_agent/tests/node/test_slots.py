"""Slots by scope: reuse, erasing, order and bounds."""

from __future__ import annotations

import asyncio

import pytest

from domain_agent.node.engine.slots import Scope, SlotTable
from domain_agent.tests.bench import until
from schemas.errors import Undecided

A, B = Scope("clinic.de", "tenant", "a"), Scope("clinic.de", "tenant", "b")


async def test_slots_go_to_their_own_scope_and_are_erased_for_all_others() -> None:
    erased: list[int] = []

    async def erase(slot: int) -> None:
        erased.append(slot)

    table = SlotTable(2, erase=erase)
    async with table.seat(A, retention_s=60) as first:
        assert not first.reuse
    async with table.seat(B, retention_s=60) as other:
        assert other.index != first.index
    async with table.seat(A, retention_s=60) as again:
        assert (again.index, again.reuse) == (first.index, True)
    async with table.seat(None) as empty:
        assert not empty.reuse
    await until(lambda: erased == [empty.index])
    async with table.seat(B if empty.index == other.index else A) as gone:
        assert not gone.reuse
    await table.close()


async def test_without_retention_nothing_is_kept() -> None:
    erased: list[int] = []

    async def erase(slot: int) -> None:
        erased.append(slot)

    table = SlotTable(1, erase=erase)
    async with table.seat(A, retention_s=0):
        pass
    async with table.seat(A, retention_s=0) as again:
        assert not again.reuse
    assert erased == [0]
    await table.close()


async def test_an_engine_that_cannot_erase_still_gives_nobody_anothers_state() -> None:
    async def erase(_: int) -> None:
        raise Undecided("engine.erase", "it failed")

    table = SlotTable(1, erase=erase)
    async with table.seat(A, retention_s=0):
        pass
    async with table.seat(A, retention_s=60) as again:
        assert not again.reuse
    await table.close()


async def test_retention_ends_by_clock() -> None:
    erased: list[int] = []

    async def erase(slot: int) -> None:
        erased.append(slot)

    table = SlotTable(1, erase=erase)
    async with table.seat(A, retention_s=1) as seat:
        pass
    await until(lambda: erased == [seat.index])
    await table.close()


async def test_waiting_is_in_order_and_bounded() -> None:
    table = SlotTable(1)
    order: list[int] = []
    holder = table.seat(None)
    await holder.__aenter__()

    async def wait(number: int) -> None:
        async with table.seat(None):
            order.append(number)

    tasks = [asyncio.create_task(wait(number)) for number in range(64)]
    await until(lambda: table.waiting == 64)
    with pytest.raises(Undecided, match=r"node\.busy"):
        await wait(64)
    tasks[0].cancel()
    await holder.__aexit__(None, None, None)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == list(range(1, 64))
    assert table.busy == 0


async def test_who_left_takes_nobodys_place_in_the_queue() -> None:
    """While one run goes on, any number may come, wait and leave again: the next one still may wait."""
    table = SlotTable(1)
    holder = table.seat(None)
    await holder.__aenter__()

    async def wait() -> None:
        async with table.seat(None):
            pass

    for _ in range(2):
        tasks = [asyncio.create_task(wait()) for _ in range(64)]
        await until(lambda: table.waiting == 64)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert table.waiting == 0
    await holder.__aexit__(None, None, None)
    await wait()
