"""Streams over a real server: whole, in order, at the reader's pace, and ended when someone leaves."""

from __future__ import annotations

import asyncio
import hashlib
import time

import pytest

from federation.connection import Bus
from federation.serving import Inbound
from federation.stream import Responder, open_stream, relay, serve_streams
from federation.streaming import frames
from federation.streaming.frames import WINDOW
from federation.streaming.requester import CREDIT_EVERY, RequesterDesk
from federation.tests.conftest import GENEROUS, MakeWorld, World, read_into, until
from schemas.errors import ConfigurationError, Refused, Undecided

EXECUTE = "fed.v1.neg.DOM_cloud_fr.*.execute"


async def pair(world: World) -> tuple[Bus, Bus]:
    return await world.bus("clinic.de"), await world.bus("cloud.fr")


async def count_up(inbound: Inbound, responder: Responder) -> None:
    """As many frames as the head says, each naming the stream and its place."""
    name, number = inbound.payload.split(b":")
    for place in range(int(number)):
        await responder.send(b"%b:%d" % (name, place))
    await responder.end()


async def read_all(bus: Bus, subject: str, head: bytes, body: list[bytes] | None = None) -> list[bytes]:
    async with open_stream(bus, subject, head, body or []) as stream:
        return [frame async for frame in stream]


async def test_a_stream_is_whole_and_in_order(world: World) -> None:
    asker, answerer = await pair(world)
    serving = await serve_streams(answerer, EXECUTE, count_up, limits=GENEROUS)
    await answerer.flush()
    for number in (0, 1, WINDOW - 1, WINDOW, WINDOW + 1, 500):
        got = await read_all(asker, "peer.cloud_fr.execute", b"a:%d" % number)
        assert got == [b"a:%d" % place for place in range(number)]
    await until(lambda: serving.running == 0)
    assert serving.counts["served"] == 6
    desk = await asker.part(RequesterDesk, RequesterDesk.make)
    assert desk.open == 0


async def test_a_hundred_streams_at_once_lose_and_mix_nothing(world: World) -> None:
    asker, answerer = await pair(world)
    await serve_streams(answerer, EXECUTE, count_up, limits=GENEROUS)
    await answerer.flush()
    started = time.monotonic()
    every = await asyncio.gather(
        *(read_all(asker, "peer.cloud_fr.execute", b"%d:200" % number) for number in range(100))
    )
    for number, got in enumerate(every):
        assert got == [b"%d:%d" % (number, place) for place in range(200)]
    assert time.monotonic() - started < 30
    assert not asker.errors
    assert not answerer.errors


@pytest.mark.parametrize("pieces", [0, 1, 2, 3, 66])
async def test_bodies_of_every_length_arrive_with_their_boundaries(world: World, pieces: int) -> None:
    asker, answerer = await pair(world)
    body = [hashlib.sha256(b"%d" % number).digest() * 2032 for number in range(pieces)]  # 65,024 bytes each
    assert pieces < 66 or sum(map(len, body)) > 4 * 1024 * 1024

    async def check(inbound: Inbound, responder: Responder) -> None:
        assert inbound.payload == b"the head"
        assert inbound.headers["traceparent"] == "00-1-2-01"
        for part in await responder.receive_body():
            await responder.send(hashlib.sha256(part).digest())
        await responder.end()

    await serve_streams(answerer, EXECUTE, check, limits=GENEROUS)
    await answerer.flush()
    headers = {"traceparent": "00-1-2-01"}
    async with open_stream(asker, "peer.cloud_fr.execute", b"the head", body, headers=headers) as stream:
        got = [frame async for frame in stream]
    assert got == [hashlib.sha256(part).digest() for part in body]


async def test_a_short_request_costs_no_message_beside_the_answer(world: World) -> None:
    """No extra round trip: one message there, OPENED, data and END back."""
    asker, answerer = await pair(world)
    await serve_streams(answerer, EXECUTE, count_up, limits=GENEROUS)
    await answerer.flush()
    await asker.flush()
    out, back = asker._client.stats["out_msgs"], asker._client.stats["in_msgs"]
    body = [bytes(60 * 1024)] * 3
    assert len(await read_all(asker, "peer.cloud_fr.execute", b"a:3", body)) == 3
    assert asker._client.stats["out_msgs"] - out == 1
    assert asker._client.stats["in_msgs"] - back == 5


async def test_a_slow_reader_slows_the_responder_and_loses_nothing(world: World) -> None:
    asker, answerer = await pair(world)
    sent = 0

    async def eager(inbound: Inbound, responder: Responder) -> None:
        nonlocal sent
        for place in range(400):
            await responder.send(b"%d" % place)
            sent += 1
        await responder.end()

    await serve_streams(answerer, EXECUTE, eager, limits=GENEROUS)
    await answerer.flush()
    async with open_stream(asker, "peer.cloud_fr.execute", b"") as stream:
        read = 0
        async for frame in stream:
            assert frame == b"%d" % read
            read += 1
            if read % 40 == 0:
                await asyncio.sleep(0.02)
            assert sent <= read + WINDOW
        assert read == 400
    assert WINDOW - CREDIT_EVERY > 0


async def test_leaving_early_cancels_the_responder(world: World) -> None:
    asker, answerer = await pair(world)
    ended: asyncio.Queue[Undecided] = asyncio.Queue()

    async def endless(inbound: Inbound, responder: Responder) -> None:
        try:
            while True:
                await responder.send(b"more")
        except Undecided as error:
            assert responder.cancelled.is_set()
            await ended.put(error)
            raise

    serving = await serve_streams(answerer, EXECUTE, endless, limits=GENEROUS)
    await answerer.flush()
    async with open_stream(asker, "peer.cloud_fr.execute", b"") as stream:
        async for _ in stream:
            break
    assert (await asyncio.wait_for(ended.get(), 5)).code == "stream.cancelled"
    # Before the responder has said where control goes: the cancellation follows as soon as it does.
    async with open_stream(asker, "peer.cloud_fr.execute", b""):
        pass
    assert (await asyncio.wait_for(ended.get(), 5)).code == "stream.cancelled"
    await until(lambda: serving.running == 0)
    desk = await asker.part(RequesterDesk, RequesterDesk.make)
    await until(lambda: desk.open == 0)


async def test_a_task_that_is_cancelled_cancels_its_stream(world: World) -> None:
    asker, answerer = await pair(world)
    running, gone = asyncio.Event(), asyncio.Event()

    async def waits(inbound: Inbound, responder: Responder) -> None:
        running.set()
        await responder.cancelled.wait()
        gone.set()

    await serve_streams(answerer, EXECUTE, waits, limits=GENEROUS)
    await answerer.flush()
    task = asyncio.create_task(read_all(asker, "peer.cloud_fr.execute", b""))
    await running.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(gone.wait(), 5)


async def test_a_border_relays_to_its_node_and_back(world: World) -> None:
    asker, border = await pair(world)
    node = await world.bus("cloud.fr", "node.g1")
    gone = asyncio.Event()

    async def on_node(inbound: Inbound, responder: Responder) -> None:
        assert inbound.sender == ""
        body = await responder.receive_body()
        number = int(inbound.payload)
        try:
            while number:
                await responder.send(b"%d of %d" % (number, sum(map(len, body))))
                number -= 1
            await responder.end()
        except Undecided:
            gone.set()
            raise

    async def on_border(inbound: Inbound, responder: Responder) -> None:
        body = await responder.receive_body()
        async with open_stream(border, "node.g1.in.execute", inbound.payload, body) as stream:
            await relay(responder, stream)

    node_serving = await serve_streams(node, "node.g1.in.execute", on_node, limits=GENEROUS)
    serving = await serve_streams(border, EXECUTE, on_border, limits=GENEROUS)
    await node.flush()
    await border.flush()
    body = [bytes(60_000)] * 10
    got = await read_all(asker, "peer.cloud_fr.execute", b"300", body)
    assert got == [b"%d of 600000" % number for number in range(300, 0, -1)]
    async with open_stream(asker, "peer.cloud_fr.execute", b"-1") as stream:
        async for _ in stream:
            break
    await asyncio.wait_for(gone.wait(), 5)
    await until(lambda: serving.running == node_serving.running == 0)
    await node_serving.stop()
    with pytest.raises(Undecided, match=r"bus\.absent"):
        await read_all(asker, "peer.cloud_fr.execute", b"1")
    assert not [bus.errors for bus in (asker, border, node) if bus.errors]


async def test_a_relay_that_waits_for_its_node_hears_the_reader_leave(world: World) -> None:
    asker, border = await pair(world)
    node = await world.bus("cloud.fr", "node.g1")
    silent, gone = asyncio.Event(), asyncio.Event()

    async def on_node(inbound: Inbound, responder: Responder) -> None:
        await responder.send(b"first")
        silent.set()
        await responder.cancelled.wait()
        gone.set()

    async def on_border(inbound: Inbound, responder: Responder) -> None:
        async with open_stream(border, "node.g1.in.execute", inbound.payload) as stream:
            await relay(responder, stream)

    await serve_streams(node, "node.g1.in.execute", on_node, limits=GENEROUS)
    await serve_streams(border, EXECUTE, on_border, limits=GENEROUS)
    await node.flush()
    await border.flush()
    async with open_stream(asker, "peer.cloud_fr.execute", b"") as stream:
        assert await anext(aiter(stream)) == b"first"
        await silent.wait()
    await asyncio.wait_for(gone.wait(), 5)


async def test_nobody_there_is_known_at_once(world: World) -> None:
    asker, _ = await pair(world)
    started = time.monotonic()
    for subject, body in (("peer.cloud_fr.execute", []), ("node.n1.in.execute", [bytes(100_000)] * 3)):
        with pytest.raises(Undecided, match=r"bus\.absent"):
            await read_all(asker, subject, b"", body)
    assert time.monotonic() - started < 2


async def test_a_responders_error_comes_after_what_it_sent(world: World) -> None:
    asker, answerer = await pair(world)

    async def fails(inbound: Inbound, responder: Responder) -> None:
        await responder.send(b"one")
        if inbound.payload == b"refuse":
            raise Refused("border.policy", "not for you")
        if inbound.payload == b"defect":
            raise ValueError("a secret")

    serving = await serve_streams(answerer, EXECUTE, fails, limits=GENEROUS)
    await answerer.flush()
    for head, kind, code in [
        (b"refuse", Refused, "border.policy"),
        (b"defect", Undecided, "bus.defect"),
        (b"stop", Undecided, "stream.unfinished"),
    ]:
        got: list[bytes] = []
        with pytest.raises(kind) as caught:
            await read_into(got, asker, "peer.cloud_fr.execute", head)
        assert (caught.value.code, got) == (code, [b"one"])
        assert "secret" not in str(caught.value)
    assert serving.counts["defects"] == 1


async def test_as_many_streams_as_may(world: World) -> None:
    asker, answerer = await pair(world)
    other = await world.bus("evil.test")
    go_on = asyncio.Event()

    async def waits(inbound: Inbound, responder: Responder) -> None:
        await go_on.wait()
        await responder.end()

    serving = await serve_streams(answerer, EXECUTE, waits, limits=GENEROUS, total=3, per_sender=2)
    await answerer.flush()
    first = [asyncio.create_task(read_all(asker, "peer.cloud_fr.execute", b"")) for _ in range(2)]
    await until(lambda: serving.running == 2)
    with pytest.raises(Undecided, match=r"stream\.busy"):
        await read_all(asker, "peer.cloud_fr.execute", b"")
    first.append(asyncio.create_task(read_all(other, "peer.cloud_fr.execute", b"")))
    await until(lambda: serving.running == 3)
    with pytest.raises(Undecided, match=r"stream\.busy"):
        await read_all(other, "peer.cloud_fr.execute", b"")
    go_on.set()
    assert await asyncio.gather(*first) == [[], [], []]


async def test_silence_beyond_the_servers_threshold_breaks_a_stream_and_only_that(
    make_world: MakeWorld,
) -> None:
    """The scaled-down test of a long silence: the same pause survives a higher threshold, and only it."""
    world = await make_world(response_threshold_s=0.4)
    asker, answerer = await pair(world)

    async def pauses(inbound: Inbound, responder: Responder) -> None:
        await responder.send(b"before")
        await asyncio.sleep(float(inbound.payload))
        await responder.send(b"after")
        await responder.end()

    await serve_streams(answerer, EXECUTE, pauses, limits=GENEROUS)
    await answerer.flush()
    assert await read_all(asker, "peer.cloud_fr.execute", b"0.1") == [b"before", b"after"]
    got: list[bytes] = []
    with pytest.raises(Undecided, match=r"stream\.stalled"):
        await read_into(got, asker, "peer.cloud_fr.execute", b"1.2", stall_s=2.0)
    assert got == [b"before"]
    await world.server.stop()
    text = world.folder.config.read_text()
    world.folder.config.write_text(text.replace('"400ms"', '"4000ms"'))
    await world.server.start()
    await asyncio.gather(asker.wait_connected(5), answerer.wait_connected(5))
    await answerer.flush()
    assert await read_all(asker, "peer.cloud_fr.execute", b"1.2") == [b"before", b"after"]


async def test_stopping_ends_streams_in_type(world: World) -> None:
    asker, answerer = await pair(world)
    running = asyncio.Event()

    async def waits(inbound: Inbound, responder: Responder) -> None:
        running.set()
        await responder.cancelled.wait()
        await responder.end()

    await serve_streams(answerer, EXECUTE, waits, limits=GENEROUS)
    await answerer.flush()
    task = asyncio.create_task(read_all(asker, "peer.cloud_fr.execute", b""))
    await running.wait()
    await answerer.close()
    with pytest.raises(Undecided, match=r"stream\.stopping"):
        await task


async def test_bounds_are_refused_before_anything_is_sent(world: World) -> None:
    asker, answerer = await pair(world)
    with pytest.raises(Refused, match=r"stream\.body_too_long"):
        await read_all(asker, "peer.cloud_fr.execute", bytes(frames.MAX_HEAD_BYTES + 1))

    async def too_long(inbound: Inbound, responder: Responder) -> None:
        await responder.send(bytes(frames.MAX_FRAME_BYTES + 1))

    await serve_streams(answerer, EXECUTE, too_long, limits=GENEROUS)
    await answerer.flush()
    with pytest.raises(Refused, match=r"stream\.frame_too_long"):
        await read_all(asker, "peer.cloud_fr.execute", b"")
    with pytest.raises(ConfigurationError, match=r"bus\.pattern"):
        await serve_streams(answerer, "fed.v1.neg.DOM_cloud_fr.*.*", too_long, limits=GENEROUS)
