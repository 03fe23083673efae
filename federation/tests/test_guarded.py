"""What a stranger, or a slow server, can make the client library trip over; and the library itself."""

from __future__ import annotations

import asyncio
import importlib.metadata
import inspect
import os
import signal
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from nats.protocol import parser

from federation import connection
from federation.client.guarded import GuardedClient
from federation.connection import MAX_REFUSALS, Bus
from federation.flood import FloodLimits
from federation.serving import Inbound
from federation.stream import Responder, open_stream, serve_streams
from federation.tests.conftest import GENEROUS, World, until
from schemas.errors import Refused, Undecided, Unreadable

CALL = "fed.v1.neg.DOM_cloud_fr.*.call"
EXECUTE = "fed.v1.neg.DOM_cloud_fr.*.execute"
AT_ONCE_S = 10  # s in which a connection that is read answers, however busy the machine; others take 20 to 30
UNREADABLE = "UnreadableMessage"
SIGNATURES = {
    "_process_msg": "(self, sid, subject, reply, data, headers)",
    "_process_pong": "(self)",
    "force_reconnect": "(self)",
}
"""What of the library's the guard replaces or relies on, and how it is called."""


def with_headers(subject: str, headers: bytes) -> bytes:
    return b"HPUB %s %d %d\r\n%s\r\n" % (subject.encode(), len(headers), len(headers), headers)


def with_reply(subject: str, reply: bytes) -> bytes:
    return b"PUB %s %s 1\r\nx\r\n" % (subject.encode(), reply)


async def say(bus: Bus, *lines: bytes) -> None:
    """Send what no client would, and wait until the server has taken it."""
    for line in lines:
        await bus._client._send_command(line)
    await bus.flush()


async def echo(inbound: Inbound) -> bytes:
    return inbound.sender.encode()


def no_utf8_headers(subject: str) -> bytes:
    return with_headers(subject, b"NATS/1.0 \xff\xff\xff\r\n\r\n")


def no_utf8_description(subject: str) -> bytes:
    return with_headers(subject, b"NATS/1.0 503 \xff\r\nA: b\r\n\r\n")


def no_utf8_reply(subject: str) -> bytes:
    return with_reply(subject, b"\xff\xfe")


def vertical_tab(subject: str) -> bytes:
    return with_reply(subject, b"a\x0bb")


def form_feed(subject: str) -> bytes:
    return with_reply(subject, b"a\x0cb")


def vertical_tab_and_headers(subject: str) -> bytes:
    headers = b"NATS/1.0\r\nA: b\r\n\r\n"
    return b"HPUB %s a\x0bb %d %d\r\n%s\r\n" % (subject.encode(), len(headers), len(headers), headers)


@pytest.mark.parametrize("spoil", [no_utf8_headers, no_utf8_description])
async def test_a_peers_message_that_cannot_be_read_costs_that_message_alone(
    world: World, spoil: Callable[[str], bytes]
) -> None:
    evil, honest = await world.bus("evil.test"), await world.bus("clinic.de")
    victim, agent = await world.bus("cloud.fr"), await world.bus("cloud.fr", "agent")
    calls = await victim.serve(CALL, echo, limits=GENEROUS, concurrency=1)
    adverts = await agent.serve("fed.v1.neg.DOM_cloud_fr.*.advert", echo, limits=GENEROUS, concurrency=1)
    await agent.serve("agent.status", echo, limits=GENEROUS, concurrency=1)
    await victim.flush()
    await agent.flush()
    await say(evil, spoil("peer.cloud_fr.call"), spoil("peer.cloud_fr.advert"))
    await until(lambda: bool(victim.errors[UNREADABLE] and agent.errors[UNREADABLE]))
    assert await honest.request("peer.cloud_fr.call", b"", timeout=AT_ONCE_S) == b"clinic.de"
    assert await victim.request("agent.status", b"", timeout=AT_ONCE_S) == b""
    assert (calls.counts["malformed"], adverts.counts["malformed"]) == (1, 1)
    assert (calls.gate.total.accepted, adverts.gate.total.accepted) == (1, 0)
    assert (victim.reconnects, agent.reconnects) == (0, 0)


async def test_a_nodes_reply_subject_that_cannot_be_read_costs_that_message_alone(world: World) -> None:
    node, broker, agent = [await world.bus("clinic.de", user) for user in ("node.n1", "broker", "agent")]
    states = await agent.serve("node.*.out.state", echo, limits=GENEROUS, concurrency=1)
    await agent.serve("agent.status", echo, limits=GENEROUS, concurrency=1)
    await agent.flush()
    await say(node, no_utf8_reply("node.n1.out.state"))
    await until(lambda: states.counts["malformed"] == 1)
    assert await broker.request("agent.status", b"", timeout=AT_ONCE_S) == b""
    assert agent.reconnects == 0


@pytest.mark.parametrize("spoil", [vertical_tab, form_feed, vertical_tab_and_headers])
async def test_a_reply_subject_with_odd_space_in_it_is_one_subject(
    world: World, spoil: Callable[[str], bytes]
) -> None:
    node, agent = await world.bus("clinic.de", "node.n1"), await world.bus("clinic.de", "agent")
    states = await agent.serve("node.*.out.state", echo, limits=GENEROUS, concurrency=1)
    await agent.flush()
    await say(node, spoil("node.n1.out.state"))
    await until(lambda: states.counts["handled"] == 1)
    assert states.counts["reply_refused"] == 1
    assert await node.request("node.n1.out.state", b"", timeout=AT_ONCE_S) == b"n1"
    assert agent.reconnects == 0


async def test_who_sends_what_cannot_be_read_is_charged_for_it_and_shut_out(world: World) -> None:
    evil, honest, victim = [await world.bus(name) for name in ("evil.test", "clinic.de", "cloud.fr")]
    serving = await victim.serve(
        CALL,
        echo,
        limits=FloodLimits(rate=1, burst=10, shut_after=20),
        concurrency=1,
        senders=lambda: ("clinic.de", "evil.test"),
    )
    await victim.flush()
    await say(evil, *[no_utf8_headers("peer.cloud_fr.call")] * 50)
    await until(lambda: "evil.test" in serving.shut)
    assert await honest.request("peer.cloud_fr.call", b"", timeout=AT_ONCE_S) == b"clinic.de"
    assert serving.gate.counts()["evil.test"].accepted == 0


async def test_a_charge_for_a_subject_that_names_nobody_is_nobodys(world: World) -> None:
    victim = await world.bus("cloud.fr")
    serving = await victim.serve(CALL, echo, limits=GENEROUS, concurrency=1)
    for subject in ("fed.v1.neg.DOM_cloud_fr.FED.call", "\ufffd", "a" * 1000):
        serving.unreadable(subject)
    assert serving.counts["malformed"] == 3
    assert serving.gate.counts() == {}


async def test_control_frames_that_cannot_be_read_shut_their_sender_out(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    evil, honest, victim = [await world.bus(name) for name in ("evil.test", "clinic.de", "cloud.fr")]

    async def end(inbound: Inbound, responder: Responder) -> None:
        await responder.end()

    monkeypatch.setattr("federation.streaming.responder.STRAYS", FloodLimits(rate=1, burst=10, shut_after=20))
    serving = await serve_streams(
        victim, EXECUTE, end, limits=GENEROUS, senders=lambda: ("clinic.de", "evil.test")
    )
    await victim.flush()
    await say(evil, *[no_utf8_headers(f"peer.cloud_fr.{serving._token}")] * 50)
    await until(lambda: serving._control is not None and "evil.test" in serving._control.shut)
    async with open_stream(honest, "peer.cloud_fr.execute", b"") as stream:
        assert [frame async for frame in stream] == []
    assert serving.counts["malformed"] >= 30


async def test_an_answer_that_cannot_be_read_is_none(world: World) -> None:
    asker, liar = await world.bus("clinic.de"), await world.bus("cloud.fr")

    async def lie(inbound: Inbound) -> None:
        await say(liar, no_utf8_headers(inbound.reply))

    await liar.serve(CALL, lie, limits=GENEROUS, concurrency=1)
    await liar.flush()
    with pytest.raises(Undecided, match=r"bus\.timeout"):
        await asker.request("peer.cloud_fr.call", b"", timeout=0.5)
    assert asker.errors[UNREADABLE] == 1
    assert asker._client._subs == {}
    with pytest.raises(Undecided, match=r"bus\.absent"):
        await asker.request("peer.evil_test.call", b"", timeout=AT_ONCE_S)


async def test_a_frame_that_cannot_be_read_ends_its_stream_at_once(world: World) -> None:
    asker, liar = await world.bus("clinic.de"), await world.bus("cloud.fr")

    async def lie(inbound: Inbound, responder: Responder) -> None:
        await say(liar, no_utf8_headers(inbound.reply))
        await responder.cancelled.wait()

    await serve_streams(liar, EXECUTE, lie, limits=GENEROUS)
    await liar.flush()
    async with open_stream(asker, "peer.cloud_fr.execute", b"", stall_s=60) as stream:
        with pytest.raises(Unreadable, match=r"stream\.frame"):
            await asyncio.wait_for(anext(aiter(stream)), AT_ONCE_S)
    assert asker._client._subs == {}


async def test_a_pong_that_comes_too_late_hurts_nobody(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    asker, answerer = await world.bus("clinic.de"), await world.bus("cloud.fr")
    await answerer.serve(CALL, echo, limits=GENEROUS, concurrency=1)
    await answerer.flush()
    assert world.server.pid
    os.kill(world.server.pid, signal.SIGSTOP)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(connection, "FLUSH_S", 0.1)
            with pytest.raises(Undecided, match=r"bus\.disconnected"):
                await asker.flush()
    finally:
        os.kill(world.server.pid, signal.SIGCONT)
    assert await asker.request("peer.cloud_fr.call", b"", timeout=AT_ONCE_S) == b"clinic.de"
    await asker.flush()
    assert not asker._client.deaf
    assert asker.reconnects == 0


async def test_a_connection_that_nobody_reads_is_made_again_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever else may end the client's reading: the bus looks, each second, while it is waited for."""
    asker, answerer = await world.bus("clinic.de"), await world.bus("cloud.fr")
    await answerer.serve(CALL, echo, limits=GENEROUS, concurrency=1)
    await answerer.flush()
    over = asyncio.create_task(answerer.over())

    async def breaks(data: bytes = b"") -> None:
        raise RuntimeError("a defect of the library")

    with monkeypatch.context() as patch:
        patch.setattr(answerer._client._ps, "parse", breaks)
        await asker.publish("peer.cloud_fr.call", b"")
        await until(lambda: answerer._client.deaf)
    assert answerer.connected
    await until(lambda: answerer.reconnects == 1)
    await answerer.flush()
    assert await asker.request("peer.cloud_fr.call", b"", timeout=AT_ONCE_S) == b"clinic.de"
    assert not over.done()
    over.cancel()


async def test_closing_a_connection_that_nobody_reads_does_not_open_it_again(world: World) -> None:
    bus = await world.bus("clinic.de")
    over = asyncio.create_task(bus.over())
    assert bus._client._reading_task
    bus._client._reading_task.cancel()
    await until(lambda: bus._client.deaf)
    await bus.close()
    with pytest.raises(Undecided, match=r"bus\.ended"):
        await asyncio.wait_for(over, 5)
    assert bus.reconnects == 0


async def test_nobody_names_a_subject_so_that_our_login_seems_withdrawn(world: World) -> None:
    """The server's "no" quotes the reply subject, which the node chose: it may speak of authorization."""
    node, broker, agent = [await world.bus("clinic.de", user) for user in ("node.n1", "broker", "agent")]
    states = await agent.serve("node.*.out.state", echo, limits=GENEROUS, concurrency=64)
    await agent.serve("agent.status", echo, limits=GENEROUS, concurrency=1)
    await agent.flush()
    asked = 4 * MAX_REFUSALS  # one answer to each reply subject is allowed: the others are violations
    await say(node, *[with_reply("node.n1.out.state", b"_INBOX.node.n1.authorization")] * asked)
    await until(lambda: states.counts["handled"] == asked)
    await agent.flush()
    assert agent.errors["Error"] >= MAX_REFUSALS
    assert await broker.request("agent.status", b"", timeout=AT_ONCE_S) == b""
    assert agent.connected


async def test_the_internals_that_are_guarded_are_still_there_and_called(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upgrade of nats-py has to look at `federation/client/guarded.py` first."""
    required = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))
    assert f"nats-py=={importlib.metadata.version('nats-py')}" in required["project"]["dependencies"]
    assert importlib.metadata.version("nats-py") == "2.16.0"
    for name, signature in SIGNATURES.items():
        parameters = inspect.signature(getattr(Client, name)).parameters
        assert f"({', '.join(parameters)})" == signature, name
    seen: list[str] = []
    for name in ("_process_msg", "_process_pong"):
        original: Any = getattr(Client, name)

        async def noting(self: Client, *arguments: Any, name: str = name, original: Any = original) -> None:
            seen.append(name)
            await original(self, *arguments)

        monkeypatch.setattr(Client, name, noting)
    bus, peer = await world.bus("clinic.de"), await world.bus("cloud.fr")
    assert isinstance(bus._client, GuardedClient)
    await peer.serve(CALL, echo, limits=GENEROUS, concurrency=1)
    await peer.flush()
    assert await bus.request("peer.cloud_fr.call", b"", timeout=AT_ONCE_S) == b"clinic.de"
    assert set(seen) == {"_process_msg", "_process_pong"}
    for name in ("MSG_RE", "HMSG_RE"):
        assert name in parser.Parser.parse.__code__.co_names, "the parser uses the patterns that are replaced"


async def test_a_sender_that_was_shut_out_a_thousand_times_is_shut_out_again(world: World) -> None:
    evil, victim = await world.bus("evil.test"), await world.bus("cloud.fr")
    serving = await victim.serve(
        CALL,
        echo,
        limits=FloodLimits(rate=1, burst=10, shut_after=20),
        concurrency=1,
        senders=lambda: ("clinic.de", "evil.test"),
    )
    assert serving._intake
    serving._intake._offences["evil.test"] = 10_000  # 2 to that power is no float
    await victim.flush()
    for _ in range(50):
        await evil.publish("peer.cloud_fr.call", b"flood")
    await evil.flush()
    await until(lambda: "evil.test" in serving.shut)
    assert serving.shut["evil.test"] == 300


async def test_a_request_that_could_not_be_sent_leaves_nothing_behind(world: World) -> None:
    bus = await world.bus("clinic.de")
    for _ in range(3):
        with pytest.raises(Refused, match=r"bus\.too_long"):
            await bus.request("peer.cloud_fr.call", bytes(300_000), timeout=1)
        with pytest.raises(Refused, match=r"bus\.subject"):
            await bus.request("peer.cloud fr.call", b"", timeout=1)
    assert bus._client._subs == {}
