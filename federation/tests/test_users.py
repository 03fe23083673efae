"""Inside one domain: the broker, the agent and each node may do only their own (session.md 10)."""

from __future__ import annotations

import asyncio
import re

import pytest

from federation.serving import Inbound
from federation.tests.conftest import GENEROUS, World, until
from schemas.errors import Refused, Undecided

FORBIDDEN_PUBLISH = [
    ("node.n1", "peer.cloud_fr.advert"),
    ("node.n1", "peer.cloud_fr.execute"),
    ("node.n1", "node.n2.in.execute"),
    ("node.n1", "node.n2.out.hello"),
    ("node.n1", "node.n1.in.execute"),
    ("node.n1", "agent.hold"),
    ("node.n1", "broker.advert"),
    ("node.n1", "_R_.x"),
    ("node.n1", "_INBOX.broker.r.x"),
    ("node.n1", "fed.v1.neg.DOM_clinic_de.DOM_cloud_fr.call"),
    ("agent", "peer.cloud_fr.execute"),
    ("agent", "peer.cloud_fr.call"),
    ("agent", "node.n1.out.hello"),
    ("agent", "_R_.x"),
    ("agent", "_INBOX.broker.r.x"),
    ("broker", "node.n1.out.hello"),
    ("broker", "_INBOX.agent.r.x"),
    ("broker", "fed.v1.neg.DOM_clinic_de.DOM_cloud_fr.call"),
]

FORBIDDEN_SUBSCRIBE = [
    ("node.n1", "node.n2.in.>"),
    ("node.n1", "node.*.in.>"),
    ("node.n1", "node.n2.out.>"),
    ("node.n1", ">"),
    ("node.n1", "_INBOX.>"),
    ("node.n1", "_INBOX.node.n2.>"),
    ("node.n1", "fed.v1.neg.DOM_clinic_de.>"),
    ("node.n1", "agent.>"),
    ("agent", "fed.v1.neg.DOM_clinic_de.*.execute"),
    ("agent", "node.*.out.stream.>"),
    ("agent", "_INBOX.broker.>"),
    ("agent", "broker.>"),
    ("broker", "agent.>"),
    ("broker", "_INBOX.agent.>"),
    ("broker", "node.*.out.hello"),
    ("broker", ">"),
]


async def test_a_user_cannot_publish_beyond_its_part(world: World) -> None:
    buses = {user: await world.bus("clinic.de", user) for user in ("broker", "agent", "node.n1")}
    for user, subject in FORBIDDEN_PUBLISH:
        with pytest.raises(Refused, match=rf"bus\.not_permitted: {re.escape(subject)}"):
            await buses[user].request(subject, b"", timeout=10)


async def test_a_user_cannot_subscribe_beyond_its_part(world: World) -> None:
    for user, pattern in FORBIDDEN_SUBSCRIBE:
        bus = await world.bus("clinic.de", user)
        await bus.subscribe(pattern, lambda message: None)
        await bus.flush()
        assert bus.errors["Error"] == 1, (user, pattern)
        await bus.close()


async def test_what_each_part_may_do_works(world: World) -> None:
    broker, agent, node, other = [
        await world.bus("clinic.de", user) for user in ("broker", "agent", "node.n1", "node.n2")
    ]
    peer = await world.bus("cloud.fr", "agent")
    adverts: asyncio.Queue[Inbound] = asyncio.Queue()

    async def who(inbound: Inbound) -> bytes:
        return f"{inbound.sender}/{inbound.op}".encode()

    async def note(inbound: Inbound) -> None:
        await adverts.put(inbound)

    await agent.serve("agent.*", who, limits=GENEROUS, concurrency=4)
    await agent.serve("node.*.out.*", who, limits=GENEROUS, concurrency=4)
    await broker.serve("broker.*", who, limits=GENEROUS, concurrency=4)
    await node.serve("node.n1.in.*", who, limits=GENEROUS, concurrency=4)
    await peer.serve("fed.v1.neg.DOM_cloud_fr.*.advert", note, limits=GENEROUS, concurrency=4)
    for bus in (broker, agent, node, peer):
        await bus.flush()
    assert await broker.request("agent.hold", b"", timeout=5) == b"/hold"
    assert await agent.request("broker.advert", b"", timeout=5) == b"/advert"
    assert await agent.request("node.n1.in.quote", b"", timeout=5) == b"/quote"
    assert await broker.request("node.n1.in.status", b"", timeout=5) == b"/status"
    assert await node.request("node.n1.out.hello", b"", timeout=5) == b"n1/hello"
    assert await other.request("node.n2.out.state", b"", timeout=5) == b"n2/state"
    await agent.publish("peer.cloud_fr.advert", b"summary")
    inbound = await asyncio.wait_for(adverts.get(), 5)
    assert (inbound.sender, inbound.reply) == ("clinic.de", "")
    assert not [bus.errors for bus in (broker, agent, node, other, peer) if bus.errors]


async def test_a_node_cannot_make_the_agent_publish_for_it(world: World) -> None:
    """Confused deputy inside a domain: the agent may publish adverts, the node asks it to answer there."""
    agent, node, peer = (
        await world.bus("clinic.de", "agent"),
        await world.bus("clinic.de", "node.n1"),
        await world.bus("cloud.fr", "agent"),
    )
    got: list[bytes] = []

    async def answer(inbound: Inbound) -> bytes:
        return b"the agent's words"

    async def note(inbound: Inbound) -> None:
        got.append(inbound.payload)

    serving = await agent.serve("node.*.out.*", answer, limits=GENEROUS, concurrency=4)
    await peer.serve("fed.v1.neg.DOM_cloud_fr.*.advert", note, limits=GENEROUS, concurrency=4)
    await agent.flush()
    await peer.flush()
    for trap in ("peer.cloud_fr.advert", "node.n2.in.execute", "_INBOX.node.n2.r.x", "_INBOX.broker.r.x"):
        await node.publish("node.n1.out.hello", b"", reply=trap)
    assert await node.request("node.n1.out.hello", b"", timeout=5) == b"the agent's words"
    await agent.publish("peer.cloud_fr.advert", b"fence")
    await until(lambda: got == [b"fence"])
    assert serving.counts["reply_refused"] == 4


async def test_a_node_answers_once_and_only_what_it_was_asked(world: World) -> None:
    broker, node = await world.bus("clinic.de"), await world.bus("clinic.de", "node.n1")

    async def twice(inbound: Inbound) -> bytes:
        await node.publish(inbound.reply, b"first")
        return b"second"

    await node.serve("node.n1.in.status", twice, limits=GENEROUS, concurrency=1)
    await node.flush()
    assert await broker.request("node.n1.in.status", b"", timeout=5) == b"first"
    await until(lambda: node.errors["Error"] == 1)


async def test_without_an_agent_a_node_is_told_so(world: World) -> None:
    node = await world.bus("clinic.de", "node.n1")
    with pytest.raises(Undecided, match=r"bus\.absent"):
        await node.request("node.n1.out.hello", b"", timeout=5)
