"""The consumer's broker is killed: its Placements are on disk, and their Executions are still come for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from broker.providing.executions import COMMITMENT
from broker.shelf import INTENT
from federation_tests.engine import hold_after
from federation_tests.kills.town import FRANCE, HOME, WORKS_S, Town, until
from federation_tests.plan import CLINIC, CLOUD
from receipts.leaf import Kind

BROKER = f"{CLINIC}/broker"
PLACES = pytest.mark.parametrize("policy", [HOME, FRANCE], ids=["at home", "abroad"])


@PLACES
async def test_after_the_placement_and_before_anything_was_shown(here: Town, policy: dict[str, Any]) -> None:
    """The nodes stand still: the order is out, its Placement is durable, and nobody has answered."""
    before = here.issued(CLINIC, Kind.PLACEMENT)
    here.freeze(f"{CLINIC}/ward-1", f"{CLOUD}/paris-1", f"{CLOUD}/paris-2")
    said = here.ask("placed", policy)
    await until(lambda: here.unsettled(CLINIC, INTENT))
    if policy is FRANCE:
        await until(lambda: here.unsettled(CLOUD, COMMITMENT))
    await here.kill(BROKER)
    stream = await said.ended()
    assert (stream.status, stream.text) == (0, "")
    (placement,) = here.issued(CLINIC, Kind.PLACEMENT) - before
    here.thaw()
    await here.start(BROKER)
    await here.verified(placement)
    await here.whole()
    assert here.unsettled(CLINIC, INTENT) == []


@PLACES
async def test_in_mid_stream(here: Town, policy: dict[str, Any]) -> None:
    go_on = asyncio.Event()
    here.script(hold_after("one ", until=go_on, then=("two ",)))
    said = here.ask("broken off", policy)
    await said.shows("one ")
    await here.kill(BROKER)
    go_on.set()
    stream = await said.ended()
    assert (stream.text, stream.done) == ("one ", False)
    await here.start(BROKER)
    await here.verified(stream.headers["x-comity-receipt"])
    await here.whole()
    assert here.unsettled(CLINIC, INTENT) == []


async def test_while_it_drains(here: Town) -> None:
    """It was told to stop and waits for the stream that runs; then its machine loses power."""
    go_on = asyncio.Event()
    here.script(hold_after("one ", until=go_on))
    said = here.ask("draining", HOME)
    await said.shows("one ")
    await here.told_to_stop(BROKER)
    await here.kill(BROKER)
    go_on.set()
    stream = await said.ended()
    assert not stream.done
    await here.start(BROKER)
    await here.verified(stream.headers["x-comity-receipt"])
    await here.whole()


async def test_both_brokers_after_the_execution_was_written(here: Town) -> None:
    """The consumer stands still, so that the Execution is durable at the provider and with nobody else."""
    go_on = asyncio.Event()
    here.script(hold_after("one ", until=go_on))
    said = here.ask("written", FRANCE)
    await said.shows("one ")
    before = here.issued(CLOUD, Kind.EXECUTION)
    here.freeze(BROKER)
    go_on.set()
    await until(lambda: here.issued(CLOUD, Kind.EXECUTION) - before)
    await here.kill(BROKER, f"{CLOUD}/broker")
    stream = await said.ended()
    assert not stream.done
    await here.start(BROKER, f"{CLOUD}/broker")
    await here.verified(stream.headers["x-comity-receipt"])
    await here.whole()
    assert here.unsettled(CLINIC, INTENT) == []


async def test_an_execution_is_come_for_until_its_provider_is_back(here: Town) -> None:
    """Nobody asks for the receipt: the broker itself knows what it is owed."""
    go_on = asyncio.Event()
    here.script(hold_after("one ", until=go_on))
    said = here.ask("owed", FRANCE)
    await said.shows("one ")
    await here.kill(BROKER, f"{CLOUD}/broker")
    go_on.set()
    await said.ended()
    assert len(here.unsettled(CLINIC, INTENT)) == 1
    await here.federation.start(CLINIC, "broker")
    await here.federation.ready(CLINIC)
    assert len(here.unsettled(CLINIC, INTENT)) == 1  # there is nobody to give it
    await here.start(f"{CLOUD}/broker")
    await until(lambda: not here.unsettled(CLINIC, INTENT), within=2 * WORKS_S)
    await here.whole()
