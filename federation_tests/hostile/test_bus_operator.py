"""Lies of whoever runs the bus: it holds every byte between the programs, in the clear, both ways."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest_asyncio

from federation.streaming import frames
from federation_tests.bus_operator import Passing, Rule
from federation_tests.hostile.lie import Lie, lie
from federation_tests.hostile.lying import FRANCE, ONE_NODE_EACH, heard
from federation_tests.plan import CLINIC, CLOUD
from federation_tests.secrecy.canary import forms
from federation_tests.sse import Streamed, read, request
from federation_tests.world import World, settings, until, world
from schemas.messages import answer

ADVERT = "fed.v1.neg.DOM_clinic_de.DOM_cloud_fr.advert"
HOLD_MS = 500
LATE_S = 1.0  # seconds: longer than any hold here


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def held(tmp_path_factory: object) -> AsyncIterator[World]:
    """A federation whose bus is in the operator's hands."""
    folder = tmp_path_factory.mktemp("held") / "world"  # type: ignore[attr-defined]
    short = settings(negotiation={"hold_ms": HOLD_MS})
    async with world(folder, ONE_NODE_EACH, operated=True, brokers={CLINIC: short}) as made:
        yield made


@contextmanager
def ruled(world: World, rule: Rule) -> Iterator[None]:
    world.operator.rule = rule
    try:
        yield
    finally:
        world.operator.rule = lambda _: None


async def ask(world: World, text: str) -> Streamed:
    return await read(world.http(), request(text, policy=FRANCE))


def is_answer(message: Passing, sequence: int) -> bool:
    """This data frame of an answer, on its way to the clinic's broker."""
    to_us = message.who == f"{CLINIC}/broker" and not message.to_server
    if not to_us or not message.subject.startswith("_INBOX.broker.s."):
        return False
    frame = frames.read_answer(message.payload)
    return frame.kind == frames.DATA and frame.sequence == sequence


@lie(
    "a bus operator",
    "reads",
    by="nobody has to: prompt and answer are sealed from broker to node",
    codes="ok",
    receipt="everything as usual: reading changes nothing",
)
async def test_it_reads_no_prompt_and_no_answer(held: World, told: Lie) -> None:
    canary = f"canary-{secrets.token_hex(12)}"
    before = len(held.operator.seen)
    stream = await ask(held, f"{canary} and more")
    assert (stream.complete, told.code) == (True, "ok")
    assert canary in stream.text
    seen = b"\0".join(message.body for message in held.operator.seen[before:])
    assert not [form for form in forms(canary) if form in seen]
    # It does see that they spoke, when and roughly how much: the sealed frames went through its hands.
    assert any(message.subject == "peer.cloud_fr.execute" for message in held.operator.seen[before:])
    assert stream.comity["request"].encode() not in seen


@lie(
    "a bus operator",
    "drops",
    by="the reader of the stream: frames are counted without a gap",
    codes="stream.gap",
    receipt="the Placement stands; the application was told in type that its answer is not complete",
)
async def test_a_dropped_frame_is_a_gap(held: World, told: Lie) -> None:
    with ruled(held, lambda message: [] if is_answer(message, 2) else None):
        stream = await ask(held, "one two three four")
    assert stream.failed
    assert stream.code == told.code


@lie(
    "a bus operator",
    "delays",
    by="the provider's border: a hold ends on its own clock",
    codes="hold.expired",
    receipt="the Placement stands without an Execution: nothing ran",
)
async def test_a_late_order_finds_no_hold(held: World, told: Lie) -> None:
    def late(message: Passing) -> float | None:
        return LATE_S if message.to_server and message.subject == "peer.cloud_fr.execute" else None

    with ruled(held, late):
        stream = await ask(held, "too late")
    assert stream.failed
    assert stream.code == told.code
    assert heard(held, "too late") == 0


@lie(
    "a bus operator",
    "duplicates",
    by="the reader of the stream; and for orders the border and the node, which run nothing twice",
    codes="stream.repeat",
    receipt="the Placement stands; the application was told in type that its answer is not complete",
)
async def test_nothing_counts_twice(held: World, told: Lie) -> None:
    with ruled(held, lambda message: [message, message] if is_answer(message, 2) else None):
        stream = await ask(held, "one two three four five")
    assert stream.failed
    assert stream.code == told.code

    def twice(message: Passing) -> list[Passing] | None:
        order = message.to_server and message.subject in ("peer.cloud_fr.execute", "node.paris-1.in.execute")
        return [message, message] if order else None

    with ruled(held, twice):
        stream = await ask(held, "run me once only")
    assert stream.failed
    assert stream.code == told.code
    assert heard(held, "run me once only") <= 1


@lie(
    "a bus operator",
    "injects",
    by="the consumer's broker: an invented frame opens under no key, an invented advert under no name",
    codes="seal.chunk_invalid",
    receipt="the Placement stands; the application was told in type that its answer is not complete",
)
async def test_an_invented_frame_opens_under_no_key(held: World, told: Lie) -> None:
    def invent(message: Passing) -> list[Passing] | None:
        if not is_answer(message, 2):
            return None
        chunk = answer.tag(answer.CHUNK, b"\0" + secrets.token_bytes(272))
        return [message.with_payload(frames.answer(frames.DATA, 2, chunk))]

    with ruled(held, invent):
        stream = await ask(held, "one two three four five six")
    assert stream.failed
    assert stream.code == told.code
    await _invented_advert(held)


async def _invented_advert(held: World) -> None:
    """An advert of cloud.fr's, altered on its way: it is refused, and the directory stays as it was."""
    altered: list[Passing] = []

    def alter(message: Passing) -> list[Passing] | None:
        if message.to_server or message.subject != ADVERT or message.who != f"{CLINIC}/broker":
            return None
        signed = message.payload.replace(b'"sig":"MEU', b'"sig":"MEQ').replace(b'"sig":"MEY', b'"sig":"MEQ')
        altered.append(message)
        return [message.with_payload(signed[:200] + b"AAAA" + signed[204:])]

    service = held[CLINIC].broker.parts.service
    serving = next(each for each in service.bus.servings if each.pattern.endswith(".advert"))
    failed = serving.counts["failed"]
    with ruled(held, alter):
        held[CLOUD].agent.advertiser.greet()
        await until(lambda: altered and serving.counts["failed"] > failed)
    assert (await ask(held, "after all that")).complete
