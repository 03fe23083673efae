"""Lies of a consumer: it calls and never accepts, or sends orders in names that are not its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import pytest

from attestation.appraise import NodeAppraisal
from broker.peers import Peers
from broker.placing import agreement
from broker.placing.attempt import Sealed, seal_attempt
from broker.placing.negotiate import Declined, Offered, call_for_offers, release
from broker.providing import holds
from broker.service import PEER_LIMITS
from domain_agent.tests.consumer import Attempt, Consumer, NodeFacts, chat
from federation.connection import Bus
from federation.stream import open_stream
from federation_tests.conftest import MakeWorld
from federation_tests.hostile.lie import Lie, lie
from federation_tests.hostile.lying import ONE_NODE_EACH, heard, tell
from federation_tests.plan import CLINIC, CLOUD, HYPER
from federation_tests.stories.test_holds import terms
from federation_tests.world import World, until
from schemas import seal
from schemas.errors import ComityError
from schemas.keys import SigningKey
from schemas.messages import answer
from schemas.primitives import subject_token

SENT_AT_ONCE: Final = int(2 * (PEER_LIMITS.burst + PEER_LIMITS.shut_after))
"""Messages between two looks. Fewer would refill the border's bucket in the meantime, and flood nobody."""
FLOOD_S: Final = 20.0  # seconds in which a flooding peer must be shut out
AT_ONCE: Final = 3  # calls of the flooding consumer that wait for an answer
BUDGET: Final = 20  # calls without an accept, instead of 200: a test need not take a minute


@lie(
    "a consumer",
    "floods calls without accepting",
    by="the provider's border: a budget of calls, and a bucket before any signature is checked",
    codes="RATE",
    receipt="no receipt: nothing was placed; the signed Refuse says `RATE`",
)
async def test_calls_that_lead_to_nothing_are_budgeted(
    make_world: MakeWorld, told: Lie, monkeypatch: pytest.MonkeyPatch
) -> None:
    """hyper.us calls until it is told to wait; the clinic's requests go on all the while."""
    monkeypatch.setattr(holds, "CALL_BUDGET", BUDGET)
    world = await make_world(ONE_NODE_EACH)
    peers = world[HYPER].broker.parts.service.peers
    refused: list[Declined] = []

    async def flood() -> None:
        while not refused:
            (reply,) = await call_for_offers(peers, [(CLOUD, terms())])
            if isinstance(reply, Offered):
                await release(peers, reply, "never-mind")
            elif reply.code == told.code:
                refused.append(reply)

    floods = [asyncio.create_task(flood()) for _ in range(AT_ONCE)]
    streams = [await tell(world, f"meanwhile {number}") for number in range(5)]
    await asyncio.gather(*floods)
    assert [stream.error for stream in streams] == [None] * len(streams)
    assert refused[0].refusal  # a refusal is signed data
    assert refused[0].retry_after_ms > 0
    left = {name: budget.calls for name, budget in world[CLOUD].broker.parts.border.holds._budgets.items()}
    assert left[HYPER] < 1 < BUDGET - 2 < left[CLINIC]


@lie(
    "a consumer",
    "sends what the client library of a border or an agent cannot read",
    by="every program: that message alone is dropped, counted, and charged to its sender",
    codes="UnreadableMessage",
    receipt="everything as usual: nobody stops reading over it",
)
async def test_a_message_that_cannot_be_read_makes_nobody_deaf(make_world: MakeWorld, told: Lie) -> None:
    """Headers that are no text: the connection counted as up for half a minute, and nobody read it."""
    world = await make_world(ONE_NODE_EACH)
    bus, headers = await world.bus(HYPER, "broker"), b"NATS/1.0 \xff\xff\xff\r\n\r\n"
    for domain in (CLINIC, CLOUD):
        for op in ("call", "execute", "advert"):
            named = f"peer.{subject_token(domain)}.{op}".encode()
            await bus._client._send_command(
                b"HPUB %s %d %d\r\n%s\r\n" % (named, len(headers), len(headers), headers)
            )
    await bus.flush()
    hearing = [world[domain].broker.parts.service.peers.bus for domain in (CLINIC, CLOUD)]
    hearing += [world[domain].agent.bus for domain in (CLINIC, CLOUD)]
    await until(lambda: all(each.errors[told.code] for each in hearing))
    stream = await tell(world, "who still reads")
    assert stream.complete, stream.error
    assert [each.reconnects for each in hearing] == [0] * len(hearing)


async def test_a_flood_of_messages_is_dropped_before_it_costs_anything(make_world: MakeWorld) -> None:
    """What no signature was ever checked for: counted, and then shut out at the server."""
    world = await make_world(ONE_NODE_EACH)
    border = next(
        serving for serving in world[CLOUD].broker.parts.bus.servings if serving.pattern.endswith(".*.call")
    )
    attacker = await world.bus(HYPER, "broker")
    async with asyncio.timeout(FLOOD_S):
        while HYPER not in border.shut:
            for _ in range(SENT_AT_ONCE):
                await attacker.publish("peer.cloud_fr.call", b"{}")
            await attacker.flush()
    assert border.gate.counts()[HYPER].over_rate > 0
    assert (await tell(world, "in spite of the flood")).complete
    assert border.gate.counts()[CLINIC].over_rate == 0


def _order(world: World, key: SigningKey, **changes: Any) -> Attempt:
    """An order for cloud.fr's node, good in everything but who signs it."""
    record = world[CLOUD].agent.book.get("paris-1")
    assert record
    assert record.appraisal
    proof = record.appraisal
    facts = NodeFacts(proof.sign_key, proof.seal_key, next(iter(proof.models.values())))
    return Consumer(key, CLINIC).order(
        facts,
        chat("an order of nobody"),
        federation=world[CLOUD].agent.config.membership.federation,
        aud=CLOUD,
        capability=next(iter(proof.models)),
        **changes,
    )


async def _problem(bus: Bus, subject: str, order: Attempt) -> str:
    """The code that a sealed order is refused with, by whomever it reaches."""
    try:
        async with open_stream(bus, subject, order.head, order.chunks) as stream:
            async for frame in stream:
                if frame[:1] == answer.PROBLEM:
                    return answer.Problem.read(frame[1:]).code
    except ComityError as error:
        return error.code
    return "it ran"


@lie(
    "a consumer",
    "sends a header signed by nobody the node knows",
    by="the provider's border; and the node itself, when its border passes it on",
    codes="envelope.signature_invalid trust.unknown_domain",
    receipt="no receipt: no run began",
)
@pytest.mark.parametrize("road", ["to the border", "past a border that looks away"])
async def test_only_members_give_orders(arena: World, told: Lie, road: str) -> None:
    forged, unknown = told.codes
    nobody = SigningKey.generate()
    in_a_members_name, as_a_stranger = _order(arena, nobody), _order(arena, nobody, iss="stranger.example")
    if road == "to the border":
        bus = await arena.bus(CLINIC, "broker")
        found = [
            await _problem(bus, "peer.cloud_fr.execute", each) for each in (in_a_members_name, as_a_stranger)
        ]
        assert found == [forged, forged]  # a border reads with the keys of whom the server names
    else:
        bus = await arena.bus(CLOUD, "broker")
        found = [
            await _problem(bus, "node.paris-1.in.execute", each)
            for each in (in_a_members_name, as_a_stranger)
        ]
        assert found == [forged, unknown]
    assert heard(arena, "an order of nobody") == 0


async def test_an_order_of_a_member_does_run(arena: World) -> None:
    """The control: the same order, signed by the member itself, is what a node runs."""
    key = arena[CLINIC].broker.parts.service.peers.key
    assert (
        await _problem(await arena.bus(CLOUD, "broker"), "node.paris-1.in.execute", _order(arena, key))
        == "it ran"
    )
    assert heard(arena, "an order of nobody") == 1


def _beyond(**limits: int) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda order: {**order, "limits": order["limits"].model_copy(update=limits)}


def _elsewhere(order: dict[str, Any]) -> dict[str, Any]:
    """Another capability, whose model may be the same file at another price."""
    offered: Offered = order["offered"]
    body = offered.body.model_copy(update={"capability": "code.small/tiny"})
    return {**order, "offered": replace(offered, offer=replace(offered.offer, body=body))}


ORDERS: dict[str, tuple[Callable[[dict[str, Any]], dict[str, Any]], str]] = {
    "more tokens": (_beyond(output_tokens=1_000_000), "execute.beyond_call"),
    "a longer body": (_beyond(body_bytes=4_000_000), "execute.beyond_call"),
    "kept longer": (lambda order: {**order, "retention_s": 10**9}, "execute.beyond_call"),
    "another body": (lambda order: {**order, "secret": seal.new_secret()}, "execute.commitment"),
    "other tags": (lambda order: {**order, "tags_digest": "ab" * 32}, "execute.tags"),
    "another capability": (_elsewhere, "DIGEST_MISMATCH"),
}


@lie(
    "a consumer",
    "orders more than it called for: tokens, a longer body, another one, longer keeping, another capability",
    by="the provider's border, before its commitment: the order is held against call and offer",
    codes="execute.beyond_call execute.commitment execute.tags DIGEST_MISMATCH",
    receipt="no Execution: nothing ran; the consumer's own Placement names what it had agreed to",
)
@pytest.mark.parametrize("what", ORDERS)
async def test_an_order_beyond_its_call_never_runs(
    arena: World, told: Lie, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Price and policy were decided over the call; the order alone is what the node obeys."""
    change, code = ORDERS[what]

    def sealing(peers: Peers, offered: Offered, appraisal: NodeAppraisal, **order: Any) -> Sealed:
        changed = change({**order, "offered": offered})
        return seal_attempt(peers, changed.pop("offered"), appraisal, **changed)

    monkeypatch.setattr(agreement, "seal_attempt", sealing)
    stream = await tell(arena, f"beyond its call: {what}")
    assert stream.failed
    assert stream.code == code
    assert code in told.codes
    assert heard(arena, f"beyond its call: {what}") == 0
