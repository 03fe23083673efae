"""Many streams at once, slow readers, and streams whose engine or node dies under them."""

from __future__ import annotations

import asyncio
import socket
from functools import partial
from typing import Any

import httpx
import pytest
from aiohttp import web

from broker.providing import border
from federation.stream import open_stream
from federation_tests.conftest import MakeWorld
from federation_tests.engine import asked_for, die_after, echo, fail, finish, hang_after, hold_after, say
from federation_tests.plan import CLINIC, CLOUD, HYPER, Changes
from federation_tests.receipts import fetch, proved, verify
from federation_tests.sse import Streamed, lines, read, request
from federation_tests.world import World, settings, until

STREAMS = 100
CHUNKS = 50
FRANCE = {"data_class": "personal", "residency": ["FR"]}
HOME = {"data_class": "special-category"}
PAIR = Changes(domains=(CLINIC, CLOUD), nodes={CLINIC: (), CLOUD: ("paris-1", "paris-2")})
PROMPT = "one two three four five six seven eight"
BEGIN_AT_ONCE = 3  # requests that are negotiated at once: all domains share this test's one processor
PATIENT = {"call_ms": 10_000, "hold_ms": 10_000}  # ms for an offer, and to take it up
STALL_S = 1.0  # seconds of a node's silence that count as a loss here; 30 in production


async def test_a_hundred_streams_at_once_lose_and_mix_nothing(make_world: MakeWorld) -> None:
    """Each waits in mid-answer until all hundred do; they begin in groups, so that holds do not expire."""
    world = await make_world(Changes(slots=64), brokers={CLINIC: settings(negotiation=PATIENT)})
    all_open, begin, speaking = asyncio.Event(), asyncio.Semaphore(BEGIN_AT_ONCE), set[str]()

    async def script(response: web.StreamResponse, body: dict[str, Any]) -> None:
        name = asked_for(body)
        await say(response, f"{name}:0 ")
        speaking.add(name)
        if len(speaking) == STREAMS:
            all_open.set()
        await all_open.wait()
        for number in range(1, CHUNKS):
            await say(response, f"{name}:{number} ")
        await finish(response, tokens=CHUNKS)

    for engine in world.engines.values():
        engine.script = script
    http, policies = world.http(), ({"data_class": "public"}, FRANCE, HOME)

    async def one(n: int) -> Streamed:
        async with begin:
            reading = asyncio.create_task(read(http, request(f"stream-{n}", policy=policies[n % 3])))
            await until(lambda: f"stream-{n}" in speaking or reading.done(), within=60)
            if reading.done():  # it failed: let the others end, so that it shows
                all_open.set()
        return await reading

    found = await asyncio.gather(*map(one, range(STREAMS)))
    failed = {n: (stream.code, stream.error) for n, stream in enumerate(found) if not stream.complete}
    assert (len(speaking), failed) == (STREAMS, {})
    for n, stream in enumerate(found):
        assert stream.text == "".join(f"stream-{n}:{number} " for number in range(CHUNKS))
    assert {stream.comity["domain"] for stream in found} == {CLINIC, CLOUD, HYPER}
    await until(lambda: not any(_used(world).values()))


async def test_a_slow_reader_slows_the_engine_and_loses_nothing(make_world: MakeWorld) -> None:
    """The reader stops for a while: so does the engine, many chunks before its end."""
    chunks, word = 1250, "x" * 12_000
    world = await make_world(PAIR)
    said = 0

    async def script(response: web.StreamResponse, body: dict[str, Any]) -> None:
        nonlocal said
        for number in range(chunks):
            await say(response, f"{number}:{word} ")
            said = number + 1
        await finish(response, tokens=chunks)

    for engine in world.engines.values():
        engine.script = script
    found, small = Streamed(), [(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)]
    async with httpx.AsyncClient(
        base_url=world[CLINIC].broker.base_url,
        headers=world.http().headers,
        transport=httpx.AsyncHTTPTransport(socket_options=small),
        timeout=60.0,
    ) as http:
        body = request("long", policy=FRANCE, max_tokens=10_000)
        async with http.stream("POST", "/chat/completions", json=body) as response:
            events = lines(response)
            found.take(await anext(events))
            await _settled(lambda: said)
            held_at = said
            assert held_at < chunks, "the engine was not slowed"
            async for data in events:
                found.take(data)
    assert found.complete
    assert said == chunks
    assert found.text == "".join(f"{number}:{word} " for number in range(chunks))


async def _settled(count: Any, still: int = 20) -> None:
    """Return when a counter has stood still for `still` looks."""
    seen, unchanged = -1, 0
    async with asyncio.timeout(60):
        while unchanged < still:
            await asyncio.sleep(0.02)
            seen, unchanged = count(), unchanged + 1 if count() == seen else 0


@pytest.mark.parametrize("policy", [{"data_class": "public", "residency": ["FR"]}, FRANCE])
async def test_an_engine_that_dies_in_mid_stream_is_continued_with_the_same_model(
    make_world: MakeWorld, policy: dict[str, Any]
) -> None:
    """Plain text goes on where it broke, on another node; regulated data only once the first has ended."""
    world = await make_world(PAIR)
    (first, second) = world.engines["paris-1"], world.engines["paris-2"]
    dying = die_after("one ", "two ", "three ")
    seen: list[Any] = []

    async def die_once(response: web.StreamResponse, body: dict[str, Any]) -> None:
        for engine in (first, second):
            engine.script = go_on
        await dying(response, body)

    async def go_on(response: web.StreamResponse, body: dict[str, Any]) -> None:
        seen.append(body["messages"])
        await echo()(response, body)

    first.script = second.script = die_once
    stream = await read(world.http(), request(PROMPT, policy=policy))
    assert stream.complete, stream.error
    assert stream.text == PROMPT + " "
    (messages,) = seen
    assert messages[-1] == {"role": "assistant", "content": "one two three "}
    # The receipt of the second segment names the first; both ran the model that was ordered.
    found = await proved(world, world.http(), stream.comity["receipt"])
    assert found.failed == []
    assert found.verdicts("execution", "capability") == ["asserted-by(node)"] * len(
        found.claims("execution", "capability")
    )
    assert stream.comity["receipt"] != stream.headers["x-comity-receipt"]
    earlier = verify(world, await fetch(world.http(), stream.headers["x-comity-receipt"]))
    assert earlier.failed == []


async def test_a_node_that_dies_in_mid_stream_is_continued_elsewhere(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(border, "open_stream", partial(open_stream, stall_s=STALL_S))
    world = await make_world(PAIR)
    for engine in world.engines.values():
        engine.script = hang_after("one ", "two ")
    found = Streamed()
    async with world.http().stream(
        "POST",
        "/chat/completions",
        json=request(PROMPT, policy={"data_class": "public", "residency": ["FR"]}),
    ) as response:
        async for data in lines(response):
            found.take(data)
            if found.text == "one two ":
                (busy,) = [name for name, engine in world.engines.items() if _serves(engine)]
                world.engines["paris-2" if busy == "paris-1" else "paris-1"].script = echo()
                await world[CLOUD].nodes[busy].kill()
    assert found.complete, found.error
    assert found.text == PROMPT + " "


def _serves(engine: Any) -> bool:
    return any(asked_for(body) == PROMPT for body in engine.bodies)


@pytest.mark.parametrize("how", ["breaks off", "answers with an error", "says nothing that can be read"])
async def test_without_another_node_the_end_is_typed_and_never_done(calm: World, how: str) -> None:
    """Health data stays at home, where there is one node: its loss is the answer's end."""
    engine = calm.engines["ward-1"]
    codes = {
        "breaks off": "engine.lost",
        "answers with an error": "engine.failed",
        "says nothing that can be read": "engine.failed",
    }
    try:
        if how == "breaks off":
            engine.script = die_after("one ", "two ")
        elif how == "answers with an error":
            fail(500)(engine)
        else:
            engine.script = _garble
        stream = await read(calm.http(), request(PROMPT, policy=HOME))
    finally:
        engine.script, engine.status = echo(), 200
    assert stream.failed, stream.events
    assert stream.code == codes[how]
    assert stream.text in ("", "one two ")


async def _garble(response: web.StreamResponse, body: dict[str, Any]) -> None:
    await say(response, "one ")
    await say(response, "two ")
    await response.write(b"data: {not json\n\n")


def _used(world: World) -> dict[str, int]:
    """Places taken on each node, as the agents' books say."""
    return {
        f"{domain.name}/{node}": domain.agent.capacity.used(node, domain.agent.clock.steady())
        for domain in world.domains.values()
        for node in domain.nodes
    }


async def test_a_run_takes_no_longer_than_its_provider_allows(make_world: MakeWorld) -> None:
    """However long the consumer's order lets it, and however slowly it reads: the slot is free again."""
    world = await make_world(PAIR, brokers={CLOUD: settings(limits={"request_ms": 1000})})
    never = asyncio.Event()
    for engine in world.engines.values():
        engine.script = hold_after("first", until=never)
    streamed = await read(world.http(), request("too long", policy=FRANCE))
    never.set()
    assert not streamed.complete
    assert "run.too_long" in str(streamed.error)
    await until(lambda: not any(_used(world).values()))
