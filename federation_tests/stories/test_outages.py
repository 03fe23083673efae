"""The bus dies and comes back, a broker is told to stop: nothing hangs, nothing is half said."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from broker.starting.program import until_the_end
from federation_tests.conftest import MakeWorld
from federation_tests.engine import asked_for, hold_after
from federation_tests.plan import CLINIC, CLOUD, HYPER, Changes
from federation_tests.receipts import fetch, verify
from federation_tests.sse import Streamed, lines, read, request
from federation_tests.world import until
from schemas.errors import Undecided

BACK_S = 3.0  # seconds after the port is back within which requests work again (issue 2)
HOME = {"data_class": "special-category"}
FRANCE = {"data_class": "personal", "residency": ["FR"]}


async def test_after_the_bus_was_killed_requests_work_again_within_three_seconds(
    make_world: MakeWorld,
) -> None:
    world = await make_world(Changes())
    http = world.http()
    for policy, domain in ((HOME, CLINIC), (FRANCE, CLOUD)):
        stream = await read(http, request("before", policy=policy))
        assert stream.comity["domain"] == domain
    await world.server.kill()
    brokers = [domain.broker.parts.bus for domain in world.domains.values()]
    await until(lambda: not any(bus.connected for bus in brokers))
    assert (await http.get("../healthz")).status_code == 503
    during = await read(http, request("during", policy=HOME))
    assert during.error
    assert during.status in (502, 503)
    await world.server.start()
    back = time.monotonic()
    left: dict[str, dict[str, Any]] = {CLINIC: HOME, CLOUD: FRANCE, HYPER: {"data_class": "public"}}
    async with asyncio.timeout(BACK_S):
        while left:
            for domain, policy in list(left.items()):
                stream = await read(http, request("after", policy=policy))
                if stream.complete:
                    assert stream.comity["domain"] == domain
                    del left[domain]
            await asyncio.sleep(0.05)
    assert time.monotonic() - back < BACK_S
    # Adverts too: every directory hears of every domain again, newer than before.
    newest = {name: domain.agent.advertiser.latest().issued_at for name, domain in world.domains.items()}
    assert newest
    await world.ready()


async def test_an_answer_that_loses_the_bus_ends_in_type(make_world: MakeWorld) -> None:
    world = await make_world(Changes(domains=(CLINIC, CLOUD), nodes={CLINIC: (), CLOUD: ("paris-1",)}))
    never, found = asyncio.Event(), Streamed()
    world.engines["paris-1"].script = hold_after("one ", until=never)
    async with world.http().stream("POST", "/chat/completions", json=request("x", policy=FRANCE)) as response:
        async for data in lines(response):
            found.take(data)
            if found.text == "one ":
                await world.server.kill()
    assert found.failed
    assert found.text == "one "
    assert found.code in ("continue.unproved", "stream.lost", "bus.disconnected")
    await world.server.start()


async def test_a_draining_broker_finishes_what_runs_and_takes_nothing_new(make_world: MakeWorld) -> None:
    """What SIGTERM does (broker/starting/program.py): streams end whole, new requests go elsewhere."""
    world = await make_world(Changes(domains=(CLINIC,)))
    go_on, engine = asyncio.Event(), world.engines["ward-1"]
    engine.script = hold_after("one ", until=go_on, then=("two ",))
    http, client = world.http(), world.http()
    running = asyncio.create_task(read(http, request("slow", policy=HOME)))
    await until(lambda: "slow" in map(asked_for, engine.bodies))
    broker = world[CLINIC].broker
    assert (await client.get("../healthz")).status_code == 200
    stopping = asyncio.create_task(world[CLINIC].stop_broker())
    await until(lambda: broker.gate.draining)
    refused = await read(client, request("late", policy=HOME))
    assert (refused.status, refused.code) == (503, "broker.draining")
    assert (await client.get("../healthz")).json()["missing"] == "draining"
    go_on.set()
    stream = await running
    await stopping
    assert stream.complete
    assert stream.text == "one two "
    # Its receipts were written before the broker ended: the next start still has them.
    await world[CLINIC].start_broker()
    await world.ready()
    found = verify(world, await fetch(world.http(), stream.comity["receipt"]))
    assert found.exit_code == 0, found.report


async def test_a_drain_that_runs_out_of_time_ends_in_type(make_world: MakeWorld) -> None:
    from federation_tests.world import settings

    world = await make_world(Changes(domains=(CLINIC,)), brokers={CLINIC: settings(limits={"drain_ms": 200})})
    engine, never = world.engines["ward-1"], asyncio.Event()
    engine.script = hold_after("one ", until=never)
    running = asyncio.create_task(read(world.http(), request("slow", policy=HOME)))
    await until(lambda: "slow" in map(asked_for, engine.bodies))
    await world[CLINIC].stop_broker()
    stream = await running
    assert stream.failed
    assert (stream.text, stream.code) == ("one ", "broker.drained")
    await asyncio.wait_for(engine.left.wait(), 5)  # and the engine was told to stop


async def test_a_broker_that_the_bus_will_not_have_back_ends(make_world: MakeWorld) -> None:
    """Otherwise it would answer 503 for ever, and whoever watches over it would see a process that lives."""
    world = await make_world(Changes(domains=(CLINIC,), nodes={CLINIC: ()}))
    broker = world.domains[CLINIC].broker
    serving = asyncio.create_task(until_the_end(broker, asyncio.Event()))
    client = broker.parts.bus._client
    client._max_payload = 1 << 20  # a client that does not check: the server shuts it out
    await client.publish("agent.status", bytes(300 * 1024))
    with pytest.raises(Undecided, match=r"bus\.ended"):
        await asyncio.wait_for(serving, 20)


async def test_a_broker_that_is_told_to_stop_ends_well(make_world: MakeWorld) -> None:
    world = await make_world(Changes(domains=(CLINIC,), nodes={CLINIC: ()}))
    stop = asyncio.Event()
    serving = asyncio.create_task(until_the_end(world.domains[CLINIC].broker, stop))
    stop.set()
    assert await asyncio.wait_for(serving, 20) == 0
