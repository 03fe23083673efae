"""One sender alone, with valid keys: what it announces, wants and says beyond its share."""

from __future__ import annotations

import asyncio

import pytest

from federation.connection import Bus
from federation.serving import Inbound
from federation.stream import Responder, open_stream, serve_streams
from federation.streaming import frames, responder
from federation.streaming.frames import OPENED, WANT, answer
from federation.streaming.requester import Ask, RequesterDesk, Stream
from federation.tests.conftest import GENEROUS, World, read_into, until
from schemas.errors import Refused, Unreadable

EXECUTE = "fed.v1.neg.DOM_cloud_fr.*.execute"
OPEN = answer(OPENED, 0, frames.opened("x-" + "0" * 32, bytes(16)))


async def test_a_responder_that_wants_what_there_is_not_keeps_nobody_waiting(world: World) -> None:
    """What it wants of a body comes as often as there are parts; more of it would look like life for ever."""
    asker, liar = await world.bus("clinic.de"), await world.bus("cloud.fr")

    async def tell(inbound: Inbound) -> None:
        for frame in (OPEN, answer(WANT, 1, bytes(4)), answer(WANT, 2, bytes(4))):
            await liar.publish(inbound.reply, frame)

    await liar.serve(EXECUTE, tell, limits=GENEROUS, concurrency=1)
    await liar.flush()
    with pytest.raises(Unreadable, match=r"stream\.frame"):
        await asyncio.wait_for(read_into([], asker, "peer.cloud_fr.execute", b""), 10)


async def test_one_sender_cannot_announce_all_the_room_there_is(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A head of some bytes announces megabytes that never come: others still find room for theirs."""
    part = 64 * 1024
    monkeypatch.setattr(responder, "MAX_HELD_BYTES", 8 * part)
    loud, quiet, server = [await world.bus(name) for name in ("evil.test", "clinic.de", "cloud.fr")]
    go_on = asyncio.Event()

    async def wait(inbound: Inbound, responder: Responder) -> None:
        await responder.receive_body()
        if inbound.sender == "evil.test":
            await go_on.wait()
        await responder.end()

    serving = await serve_streams(server, EXECUTE, wait, limits=GENEROUS)
    await server.flush()
    asks = [asyncio.create_task(_announce(loud, "peer.cloud_fr.execute", [bytes(part)])) for _ in range(16)]
    await until(lambda: serving.running + serving.counts["busy"] == 16)
    assert await _announce(quiet, "peer.cloud_fr.execute", [bytes(part)] * 3) == []
    go_on.set()
    refused = [each for each in await asyncio.gather(*asks, return_exceptions=True) if each != []]
    assert {getattr(each, "code", None) for each in refused} == {"stream.busy"}
    assert serving._announced.total() == 0


async def test_control_frames_without_end_end_their_stream_and_shut_their_sender_out(world: World) -> None:
    """No bucket counts those of a stream that runs; but what is not read needs no credit."""
    loud, server = await world.bus("evil.test"), await world.bus("cloud.fr")

    async def wait(inbound: Inbound, responder: Responder) -> None:
        await responder.cancelled.wait()
        await responder.send(b"")

    serving = await serve_streams(
        server, EXECUTE, wait, limits=GENEROUS, senders=lambda: ("evil.test", "clinic.de")
    )
    await server.flush()
    stream = Stream(
        await loud.part(RequesterDesk, RequesterDesk.make), Ask("peer.cloud_fr.execute", b"", (), None, 30.0)
    )
    async with stream:
        await until(lambda: stream._control is not None)
        for _ in range(10_000):
            await stream.grant()
        with pytest.raises(Refused, match=r"stream\.overrun"):
            await anext(aiter(stream))
        await until(lambda: serving._control is not None and "evil.test" in serving._control.shut)
    assert serving.running == 0


async def _announce(bus: Bus, subject: str, body: list[bytes]) -> list[bytes]:
    async with open_stream(bus, subject, b"", body) as stream:
        return [frame async for frame in stream]
