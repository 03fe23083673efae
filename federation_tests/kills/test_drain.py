"""SIGTERM instead of SIGKILL: what runs ends whole, nothing new begins, and the receipts are written."""

from __future__ import annotations

import asyncio
import signal

import httpx

from federation_tests.engine import hold_after
from federation_tests.kills.town import FRANCE, HOME, POINT_S, Town
from federation_tests.plan import CLINIC, CLOUD
from federation_tests.sse import request
from receipts.leaf import Kind

TEXT = "one two "


async def test_a_consumers_broker_ends_after_its_streams(here: Town) -> None:
    go_on = asyncio.Event()
    here.script(hold_after("one ", until=go_on, then=("two ",)))
    name = f"{CLINIC}/broker"
    running = [here.ask("at home", HOME), here.ask("abroad", FRANCE)]
    for said in running:
        await said.shows("one ")
    async with here.http() as late:
        await late.get("../healthz")  # a connection that is open before the door closes
        await here.told_to_stop(name)
        refused = await late.post("/chat/completions", json=request("late", policy=HOME))
    assert refused.status_code == httpx.codes.SERVICE_UNAVAILABLE
    assert refused.json()["error"]["comity"]["code"] == "broker.draining"
    go_on.set()
    streams = [await said.ended() for said in running]
    assert [(stream.complete, stream.text) for stream in streams] == [(True, TEXT)] * 2
    assert await _exit_code(here, name) == 0
    assert {stream.comity["receipt"] for stream in streams} <= here.issued(CLINIC, Kind.PLACEMENT)
    await here.start(name)
    await here.whole()


async def test_a_providers_broker_ends_after_its_peers_streams(here: Town) -> None:
    """A peer's run is work like any other: it is finished, and its Execution says so."""
    go_on = asyncio.Event()
    here.script(hold_after("one ", until=go_on, then=("two ",)))
    name = f"{CLOUD}/broker"
    said = here.ask("abroad", FRANCE)
    await said.shows("one ")
    before = here.issued(CLOUD, Kind.EXECUTION)
    await here.told_to_stop(name)
    go_on.set()
    stream = await said.ended()
    assert (stream.complete, stream.text) == (True, TEXT)
    assert await _exit_code(here, name) == 0
    assert len(here.issued(CLOUD, Kind.EXECUTION) - before) == 1
    await here.start(name)
    await here.whole()


async def test_a_node_ends_after_its_runs(here: Town) -> None:
    go_on = asyncio.Event()
    here.script(hold_after("one ", until=go_on, then=("two ",)))
    name = f"{CLINIC}/ward-1"
    said = here.ask("at home", HOME)
    await said.shows("one ")
    here.federation.programs[name].process.send_signal(signal.SIGTERM)
    go_on.set()
    stream = await said.ended()
    assert (stream.complete, stream.text) == (True, TEXT)
    assert await _exit_code(here, name) == 0
    await here.start(name)
    await here.whole()


async def _exit_code(here: Town, name: str) -> int:
    async with asyncio.timeout(POINT_S):
        return await here.federation.programs[name].process.wait()
