"""Streams over a bus and against a peer that lose, repeat, invent and fall silent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest
from nats.aio.msg import Msg

from federation.connection import Bus
from federation.serving import Inbound, new_token
from federation.stream import Responder, open_stream, serve_streams
from federation.streaming import frames, requester, responder
from federation.streaming.frames import BODY, CANCEL, CREDIT, DATA, END, ERROR, OPENED, WANT, WINDOW, answer
from federation.tests.conftest import GENEROUS, World, read_into, until
from schemas.errors import ComityError, Refused, Undecided, Unreadable

EXECUTE = "fed.v1.neg.DOM_cloud_fr.*.execute"
OPEN = answer(OPENED, 0, frames.opened("x-" + "0" * 32, bytes(16)))


def some(number: int) -> list[bytes]:
    return [answer(DATA, 1 + place, b"%d" % place) for place in range(number)]


LIES: dict[str, tuple[list[bytes], type[ComityError], str, int]] = {
    "lost": ([OPEN, *some(3)[:1], *some(3)[2:]], Undecided, "stream.gap", 1),
    "lost opening": (some(1), Undecided, "stream.gap", 0),
    "repeated": ([OPEN, *some(2), *some(2)[1:]], Refused, "stream.repeat", 2),
    "opened twice": ([OPEN, answer(OPENED, 1, OPEN[5:])], Unreadable, "stream.frame", 0),
    "never opened": ([answer(DATA, 0, b"x")], Unreadable, "stream.frame", 0),
    "unknown kind": ([OPEN, b"?" + bytes(4)], Unreadable, "stream.frame", 0),
    "cut off": ([OPEN, b"d\0\0"], Unreadable, "stream.frame", 0),
    "empty": ([b""], Unreadable, "stream.frame", 0),
    "opening leads elsewhere": ([answer(OPENED, 0, b"release/" + b"0" * 32)], Unreadable, "stream.opened", 0),
    "malformed want": ([OPEN, answer(WANT, 1, b"")], Unreadable, "stream.frame", 0),
    "error without reason": ([OPEN, *some(1), answer(ERROR, 2, b"\xff")], Undecided, "bus.defect", 1),
    "ends early": ([OPEN, answer(ERROR, 1, b"refused x.y z")], Refused, "x.y", 0),
}


async def test_a_responder_that_lies_ends_its_own_stream(world: World) -> None:
    asker, liar = await world.bus("clinic.de"), await world.bus("cloud.fr")

    async def tell(inbound: Inbound) -> None:
        opening = frames.read_opening(inbound.payload)
        for frame in LIES[opening.head.decode()][0]:
            await liar.publish(inbound.reply, frame)

    await liar.serve(EXECUTE, tell, limits=GENEROUS, concurrency=1)
    await liar.flush()
    for lie, (_, kind, code, before) in LIES.items():
        got: list[bytes] = []
        with pytest.raises(kind) as caught:
            await read_into(got, asker, "peer.cloud_fr.execute", lie.encode(), stall_s=5.0)
        assert (caught.value.code, len(got)) == (code, before), lie
    counted = asker.streams.keys() - {"asked", "failed"}
    assert counted <= requester.COUNTED, "a peer's codes make no new counters"


async def test_more_than_the_credit_ends_the_stream(world: World) -> None:
    asker, liar = await world.bus("clinic.de"), await world.bus("cloud.fr")

    async def tell(inbound: Inbound) -> None:
        for frame in (OPEN, *some(WINDOW + 1)):
            await liar.publish(inbound.reply, frame)

    await liar.serve(EXECUTE, tell, limits=GENEROUS, concurrency=1)
    await liar.flush()
    async with open_stream(asker, "peer.cloud_fr.execute", b"") as stream:
        await until(lambda: asker.streams["stream.overrun"] == 1)  # read nothing: no credit is given
        frames_read = [await anext(aiter(stream)) for _ in range(WINDOW)]
        with pytest.raises(Refused, match=r"stream\.overrun"):
            await anext(aiter(stream))
    assert frames_read == [b"%d" % place for place in range(WINDOW)]


async def test_nothing_after_the_end_is_read(world: World) -> None:
    asker, liar = await world.bus("clinic.de"), await world.bus("cloud.fr")

    async def tell(inbound: Inbound) -> None:
        for frame in (OPEN, *some(1), answer(END, 2), answer(DATA, 3, b"more"), b"junk"):
            await liar.publish(inbound.reply, frame)

    await liar.serve(EXECUTE, tell, limits=GENEROUS, concurrency=1)
    await liar.flush()
    async with open_stream(asker, "peer.cloud_fr.execute", b"") as stream:
        assert [frame async for frame in stream] == [b"0"]


async def test_silence_is_stalled(world: World) -> None:
    asker, silent = await world.bus("clinic.de"), await world.bus("cloud.fr")

    async def one(inbound: Inbound, responder: Responder) -> None:
        await responder.send(b"one")
        await responder.cancelled.wait()

    serving = await serve_streams(silent, EXECUTE, one, limits=GENEROUS)
    await silent.flush()
    started = time.monotonic()
    with pytest.raises(Undecided, match=r"stream\.stalled"):
        async with open_stream(asker, "peer.cloud_fr.execute", b"", stall_s=0.3) as stream:
            assert [frame async for frame in stream] == [b"one"]
    assert 0.3 <= time.monotonic() - started < 3
    await until(lambda: serving.running == 0)
    assert asker.streams["stream.stalled"] == 1


async def test_a_responder_that_is_gone_without_a_word_is_noticed_long_before_a_stall(world: World) -> None:
    asker, liar = await world.bus("clinic.de"), await world.bus("cloud.fr")

    async def tell(inbound: Inbound) -> None:
        for frame in (OPEN, *some(1)):  # nobody listens where this opening says, as after a SIGKILL
            await liar.publish(inbound.reply, frame)

    await liar.serve(EXECUTE, tell, limits=GENEROUS, concurrency=1)
    await liar.flush()
    started, got = time.monotonic(), list[bytes]()
    with pytest.raises(Undecided, match=r"stream\.lost"):
        await read_into(got, asker, "peer.cloud_fr.execute", b"")
    assert got == [b"0"]
    assert requester.PROBE_AFTER_S < time.monotonic() - started < requester.STALL_S / 2


async def test_a_responder_that_is_silent_for_long_is_not_mistaken_for_one_that_is_gone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requester, "PROBE_AFTER_S", 0.1)
    asker, slow = await world.bus("clinic.de"), await world.bus("cloud.fr")

    async def thinks(inbound: Inbound, responder: Responder) -> None:
        await responder.send(b"one")
        await asyncio.sleep(2.0)
        await responder.send(b"two")
        await responder.end()

    await serve_streams(slow, EXECUTE, thinks, limits=GENEROUS)
    await slow.flush()
    async with open_stream(asker, "peer.cloud_fr.execute", b"") as stream:
        assert [frame async for frame in stream] == [b"one", b"two"]


async def test_a_reader_that_does_not_read_is_not_mistaken_for_one_that_is_gone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requester, "CREDIT_EVERY_S", 0.2)
    monkeypatch.setattr(responder, "CREDIT_STALL_S", 1.0)
    asker, eager = await world.bus("clinic.de"), await world.bus("cloud.fr")

    async def send(inbound: Inbound, responder: Responder) -> None:
        for place in range(WINDOW + 5):
            await responder.send(b"%d" % place)
        await responder.end()

    await serve_streams(eager, EXECUTE, send, limits=GENEROUS)
    await eager.flush()
    async with open_stream(asker, "peer.cloud_fr.execute", b"", stall_s=0.5) as stream:
        first = await anext(aiter(stream))
        await asyncio.sleep(2.0)
        rest = [frame async for frame in stream]
    assert [first, *rest] == [b"%d" % place for place in range(WINDOW + 5)]


async def test_a_reader_that_is_gone_without_a_word_is_noticed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(responder, "CREDIT_STALL_S", 0.3)
    asker, eager = await world.bus("clinic.de"), await world.bus("cloud.fr")
    ended: asyncio.Queue[str] = asyncio.Queue()

    async def send(inbound: Inbound, responder: Responder) -> None:
        try:
            while True:
                await responder.send(b"")
        except Undecided as error:
            await ended.put(error.code)
            raise

    await serve_streams(eager, EXECUTE, send, limits=GENEROUS)
    await eager.flush()
    first, _ = frames.cut(b"", [])
    await asker.publish("peer.cloud_fr.execute", first, reply="_INBOX.broker.nobody")
    assert await asyncio.wait_for(ended.get(), 5) == "stream.stalled"


async def test_a_killed_server_ends_streams_soon_on_both_sides(world: World) -> None:
    asker, answerer = await world.bus("clinic.de"), await world.bus("cloud.fr")
    ended: asyncio.Queue[str] = asyncio.Queue()

    async def waits(inbound: Inbound, responder: Responder) -> None:
        await responder.send(b"one")
        await responder.cancelled.wait()
        try:
            await responder.send(b"two")
        except Undecided as error:
            await ended.put(error.code)
            raise

    serving = await serve_streams(answerer, EXECUTE, waits, limits=GENEROUS)
    await answerer.flush()
    async with open_stream(asker, "peer.cloud_fr.execute", b"") as stream:
        assert await anext(aiter(stream)) == b"one"
        await world.server.kill()
        killed = time.monotonic()
        assert await asyncio.wait_for(ended.get(), 1) == "stream.lost"
        await world.server.start()
        with pytest.raises(Undecided, match=r"stream\.lost"):
            await anext(aiter(stream))
    assert time.monotonic() - killed < 5
    await until(lambda: serving.running == 0)
    await asyncio.gather(asker.wait_connected(3), answerer.wait_connected(3))
    async with open_stream(asker, "peer.cloud_fr.execute", b"") as stream:
        assert await anext(aiter(stream)) == b"one"


async def test_closing_the_connection_ends_its_streams(world: World) -> None:
    asker, answerer = await world.bus("clinic.de"), await world.bus("cloud.fr")

    async def waits(inbound: Inbound, responder: Responder) -> None:
        await responder.send(b"one")
        await responder.cancelled.wait()

    await serve_streams(answerer, EXECUTE, waits, limits=GENEROUS)
    await answerer.flush()
    async with open_stream(asker, "peer.cloud_fr.execute", b"") as stream:
        assert await anext(aiter(stream)) == b"one"
        closing = asyncio.create_task(asker.close())
        with pytest.raises(Undecided, match=r"stream\.lost"):
            await asyncio.wait_for(anext(aiter(stream)), 5)
        await closing


Forge = Callable[[str, bytes], list[tuple[str, bytes]]]
FORGERIES: dict[str, tuple[Forge, str]] = {
    "gap": (lambda token, stream: [(token, frames.control(CREDIT, stream, 5, bytes(4)))], "stream.gap"),
    "repeat": (
        lambda token, stream: [(token, frames.control(CREDIT, stream, 0, bytes(4)))] * 2,
        "stream.gap",
    ),
    "malformed": (lambda token, stream: [(token, frames.control(CREDIT, stream, 0, b""))], "stream.frame"),
    "too much body": (
        lambda token, stream: [(token, frames.control(BODY, stream, 0, b"\0\0\0\1x"))],
        "stream.body_too_long",
    ),
}


async def opened_by_hand(asker: Bus, body: list[bytes]) -> tuple[str, bytes]:
    """Open a stream with bare messages; where its control goes, and its id."""
    loop = asyncio.get_running_loop()
    said: asyncio.Future[bytes] = loop.create_future()
    reply = f"_INBOX.broker.{new_token()}"

    def hear(message: Msg) -> None:
        if not said.done():
            said.set_result(message.data)

    await asker.subscribe(reply, hear)
    first, _ = frames.cut(b"", body)
    await asker.publish("peer.cloud_fr.execute", first, reply=reply)
    return frames.read_opened(frames.read_answer(await asyncio.wait_for(said, 5)).payload)


async def test_a_requester_that_lies_ends_its_own_stream(world: World) -> None:
    asker, answerer = await world.bus("clinic.de"), await world.bus("cloud.fr")
    ended: asyncio.Queue[str] = asyncio.Queue()

    async def waits(inbound: Inbound, responder: Responder) -> None:
        await responder.cancelled.wait()
        try:
            await responder.send(b"")
        except ComityError as error:
            await ended.put(error.code)
            raise

    await serve_streams(answerer, EXECUTE, waits, limits=GENEROUS)
    await answerer.flush()
    for forgery, (forge, code) in FORGERIES.items():
        token, stream = await opened_by_hand(asker, [])
        for where, frame in forge(token, stream):
            await asker.publish(f"peer.cloud_fr.{where}", frame)
        assert await asyncio.wait_for(ended.get(), 5) == code, forgery


async def test_a_credit_beyond_the_window_buys_no_more_than_the_window(world: World) -> None:
    asker, answerer = await world.bus("clinic.de"), await world.bus("cloud.fr")
    sent = 0

    async def eager(inbound: Inbound, responder: Responder) -> None:
        nonlocal sent
        for _ in range(10 * WINDOW):
            await responder.send(b"")
            sent += 1

    await serve_streams(answerer, EXECUTE, eager, limits=GENEROUS)
    await answerer.flush()
    token, stream = await opened_by_hand(asker, [])
    await until(lambda: sent == WINDOW)
    await asker.publish(f"peer.cloud_fr.{token}", frames.control(CREDIT, stream, 0, b"\xff\xff\xff\xff"))
    await until(lambda: sent == 2 * WINDOW)
    await answerer.flush()
    assert sent == 2 * WINDOW


async def test_another_domain_cannot_touch_a_stream_even_if_it_knows_its_id(world: World) -> None:
    asker, answerer = await world.bus("clinic.de"), await world.bus("cloud.fr")
    attacker = await world.attacker()

    async def waits(inbound: Inbound, responder: Responder) -> None:
        await responder.receive_body()
        await responder.send(b"still here")
        await responder.end()

    serving = await serve_streams(answerer, EXECUTE, waits, limits=GENEROUS)
    await answerer.flush()
    token, stream = await opened_by_hand(asker, [bytes(100_000), bytes(100_000)])
    await attacker.publish(f"peer.cloud_fr.{token}", frames.control(CANCEL, stream, 0))
    await attacker.publish(f"peer.cloud_fr.{token}", b"junk")
    await until(lambda: serving.counts["stray"] == 1 and serving.counts["malformed"] == 1)
    assert serving.running == 1
    rest = (100_000).to_bytes(4, "big") + bytes(100_000)
    await asker.publish(f"peer.cloud_fr.{token}", frames.control(BODY, stream, 0, rest))
    await until(lambda: serving.counts["served"] == 1)


async def test_openings_that_cannot_be_read_are_refused_and_adverts_open_nothing(world: World) -> None:
    asker, answerer = await world.bus("clinic.de"), await world.bus("cloud.fr")

    async def never(inbound: Inbound, responder: Responder) -> None:
        raise AssertionError("no stream was opened")

    serving = await serve_streams(answerer, EXECUTE, never, limits=GENEROUS)
    await answerer.flush()
    with pytest.raises(Unreadable, match=r"stream\.opening"):
        await asker.request("peer.cloud_fr.execute", b"not an opening", timeout=5)
    await asker.publish("peer.cloud_fr.execute", frames.cut(b"", [])[0])  # without a place for the answer
    await until(lambda: serving.serving is not None and serving.serving.counts["handled"] == 1)
    assert serving.running == 0
