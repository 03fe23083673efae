"""A node that is put out serves nobody from the next request on, and an open answer only if it may."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Literal, TypeAlias

import pytest

from broker.journey import Journey
from broker.placing.placements import Choice, Placements, Shown
from federation_tests.conftest import MakeWorld
from federation_tests.engine import asked_for, echo, hold_after
from federation_tests.plan import CLINIC, CLOUD, Changes
from federation_tests.sse import Streamed, lines, read, request
from federation_tests.world import World, until
from receipts.log import Issued
from schemas.errors import Undecided
from schemas.messages.interior import AgentStatus, RevokeNode

FRANCE = {"data_class": "public", "residency": ["FR"]}
PAIR = Changes(domains=(CLINIC, CLOUD), nodes={CLINIC: (), CLOUD: ("paris-1", "paris-2")})
PROMPT = "one two three"

Reason: TypeAlias = Literal["compromise", "stale"]


async def revoke(world: World, node: str, reason_class: Reason) -> AgentStatus:
    """What `comity agent revoke` does, over the operator's bus login."""
    bus = await world.bus(CLOUD, "agent")
    order = RevokeNode(node_id=node, reason_class=reason_class, reason="stolen")
    return AgentStatus.read(await bus.request("agent.revoke", order.write(), timeout=5.0))


def _is_pushed(subject: str) -> bool:
    """A revocation on its way into another domain."""
    return subject.startswith("fed.") and subject.endswith(".revoke")


def served_by(world: World, text: str) -> list[str]:
    """Nodes whose engine was asked this."""
    return [name for name, engine in world.engines.items() if text in map(asked_for, engine.bodies)]


async def revoked_meanwhile(
    world: World, reason_class: Reason, go_on_when: Callable[[], bool] = lambda: True
) -> Streamed:
    """An answer whose node is revoked after its first word; the engine says the next one after that."""
    go_on, found = asyncio.Event(), Streamed()
    for engine in world.engines.values():
        engine.script = hold_after("one ", until=go_on, then=("two ",))
    async with world.http().stream(
        "POST", "/chat/completions", json=request(PROMPT, policy=FRANCE)
    ) as response:
        async for data in lines(response):
            found.take(data)
            if found.text == "one ":
                (busy,) = served_by(world, PROMPT)
                world.engines["paris-2" if busy == "paris-1" else "paris-1"].script = echo()
                await revoke(world, busy, reason_class)
                await until(go_on_when)
                go_on.set()
    return found


async def test_the_next_request_avoids_a_revoked_node(make_world: MakeWorld) -> None:
    world = await make_world(PAIR)
    http, trusted = world.http(), world[CLINIC].broker.parts.service.appraisals
    epoch = trusted.trust_epoch
    assert (await read(http, request("warm up the appraisals", policy=FRANCE))).complete
    status = await revoke(world, "paris-1", "compromise")
    assert {node.node_id: node.admitted for node in status.nodes} == {"paris-1": False, "paris-2": True}
    for number in range(4):
        stream = await read(http, request(f"after {number}", policy=FRANCE))
        assert stream.complete, stream.error
        assert served_by(world, f"after {number}") == ["paris-2"]
    await until(lambda: trusted.trust_epoch > epoch)  # the push, and then the advert, reached the consumer
    await revoke(world, "paris-2", "compromise")
    stream = await read(http, request("nobody", policy=FRANCE))
    assert stream.failed
    assert served_by(world, "nobody") == []


async def test_news_of_a_revocation_between_proof_and_last_look_refuses_nobody(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left of the domain proves itself again, and the request goes on; a node that was put out is not
    used. The moment is made: an advert that comes while a Placement is written."""
    world = await make_world(PAIR)
    http, trusted = world.http(), world[CLINIC].broker.parts.service.appraisals
    told = iter([1, 2])
    issue = Placements.issue

    async def issued_meanwhile(self: Placements, journey: Journey, choice: Choice, shown: Shown) -> Issued:
        issued = await issue(self, journey, choice, shown)
        if (epoch := next(told, None)) is not None:
            trusted.note_epoch(CLOUD, epoch)
        return issued

    monkeypatch.setattr(Placements, "issue", issued_meanwhile)
    for number in range(2):
        stream = await read(http, request(f"asked {number}", policy=FRANCE))
        assert stream.complete, stream.error
    assert next(told, None) is None
    monkeypatch.setattr(trusted, "fetch", gone)
    told = iter([3])
    stream = await read(http, request("its evidence is shown no more", policy=FRANCE))
    assert stream.failed
    assert "evidence.unknown" in str(stream.error)
    assert served_by(world, "its evidence is shown no more") == []


async def gone(domain: str, digest: str) -> bytes:
    """What an agent answers about a node that it put out."""
    raise Undecided("evidence.unknown", f"{domain} keeps no evidence {digest}")


@pytest.mark.parametrize(
    ("reason_class", "text"),
    [("compromise", PROMPT + " "), ("stale", "one two ")],
    ids=["compromise ends the run", "stale lets it finish"],
)
async def test_an_open_answer_ends_only_when_the_node_is_compromised(
    make_world: MakeWorld, reason_class: Reason, text: str
) -> None:
    """Compromise: what the node says afterwards is not used; the rest comes from another one."""
    world = await make_world(PAIR)
    trusted = world[CLINIC].broker.parts.service.appraisals
    epoch = trusted.trust_epoch
    found = await revoked_meanwhile(world, reason_class, lambda: trusted.trust_epoch > epoch)
    assert found.complete, found.error
    assert found.text == text
    assert len(served_by(world, PROMPT)) == (2 if reason_class == "compromise" else 1)


async def test_a_bus_that_keeps_the_revocation_back_keeps_no_answer_open(make_world: MakeWorld) -> None:
    """Its own domain's border ends what comes from a compromised node, whoever was told of it or was not."""
    world = await make_world(PAIR, operated=True)
    world.operator.rule = lambda each: [] if _is_pushed(each.subject) else None
    found = await revoked_meanwhile(world, "compromise")
    assert world[CLINIC].broker.parts.service.appraisals._revoked == {}, "it never was told"
    assert found.complete, found.error
    assert found.text == PROMPT + " "
    assert len(served_by(world, PROMPT)) == 2
