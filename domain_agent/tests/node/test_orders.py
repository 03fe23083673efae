"""Header lies: everything a border or a stranger can alter around the ciphertext is refused by the node."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain_agent.node.running.run import Stop, execute
from domain_agent.node.running.statement import Ending
from domain_agent.tests.bench import MODEL, Bench, bench
from domain_agent.tests.consumer import Consumer, chat
from domain_agent.tests.engines import ScriptedEngine
from domain_agent.tests.founding import OURS, Founded
from schemas import seal
from schemas.keys import SigningKey
from schemas.messages import answer
from schemas.messages.execute import Limits

BODY = chat("hi")


@pytest.fixture
async def engine() -> AsyncIterator[ScriptedEngine]:
    async with ScriptedEngine() as started:
        yield started


@pytest.fixture
async def node(founded: Founded, engine: ScriptedEngine) -> AsyncIterator[Bench]:
    async with bench(founded, engine.address) as made:
        yield made


def past(seconds: int) -> dict[str, int]:
    now = int(time.time())
    return {"iat": now - seconds - 60, "exp": now - seconds}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"key": SigningKey.generate()}, "envelope.signature_invalid"),
        ({"iss": "nobody.example"}, "trust.unknown_domain"),
        ({"aud": "cloud.fr"}, "message.audience"),
        ({"federation": "another"}, "message.federation"),
        ({"typ": "Accept"}, "message.type"),
        (past(31), "message.expired"),
        ({"iat": int(time.time()) + 3600, "exp": int(time.time()) + 3660}, "CLOCK_SKEW"),
        ({"node_sign": "A" * 43}, "node.sign_key"),
        ({"node_seal": "0" * 64}, "node.seal_key"),
        ({"model_digest": "c" * 64}, "node.model"),
        ({"capability": "chat.large"}, "node.model"),
        ({"capability": "chat.small/smollm2"}, "node.model"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_lie_in_the_header_is_refused_before_anything_is_opened(
    node: Bench, engine: ScriptedEngine, changes: dict[str, Any], code: str
) -> None:
    attempt = node.consumer.order(node.facts, BODY, **changes)
    assert await node.run(attempt) is None
    assert attempt.problem
    assert attempt.problem.code == code
    assert engine.bodies == []


async def test_another_members_key_does_not_sign_for_the_consumer(node: Bench, founded: Founded) -> None:
    attempt = node.consumer.order(node.facts, BODY, key=founded.message[OURS])
    await node.run(attempt)
    assert attempt.problem
    assert attempt.problem.code == "envelope.signature_invalid"


async def test_an_advert_key_signs_no_order(node: Bench, founded: Founded) -> None:
    attempt = node.consumer.order(node.facts, BODY, key=founded.advert[node.consumer.domain])
    await node.run(attempt)
    assert attempt.problem


async def test_a_class_alone_names_any_resident_variant(node: Bench) -> None:
    attempt = node.consumer.order(node.facts, BODY, capability="chat.small")
    ending = await node.run(attempt)
    assert ending == Ending("ok", "ok", "stop")


@pytest.mark.parametrize("field", ["header", "sealed_secret"])
async def test_a_secret_opens_under_its_own_header_alone(node: Bench, field: str) -> None:
    """Altered scope, model or retention around the ciphertext: another header, another HPKE info."""
    first = node.consumer.order(node.facts, BODY)
    second = node.consumer.order(node.facts, BODY, cache_scope="public", retention_s=3600)
    setattr(first, field, getattr(second, field))
    assert await node.run(first) is None
    assert first.problem
    assert first.problem.code == "seal.secret_invalid"


async def test_a_refused_secret_does_not_burn_the_order(node: Bench) -> None:
    attempt = node.consumer.order(node.facts, BODY)
    good = attempt.sealed_secret
    attempt.sealed_secret = node.consumer.order(node.facts, BODY).sealed_secret
    await node.run(attempt)
    attempt.sealed_secret, attempt.problem = good, None
    assert await node.run(attempt) == Ending("ok", "ok", "stop")


async def test_a_swapped_body_is_refused_and_stated(node: Bench, engine: ScriptedEngine) -> None:
    attempt = node.consumer.order(node.facts, BODY)
    attempt.chunks = node.consumer.order(node.facts, chat("something else")).chunks
    assert await node.run(attempt) == Ending("refused", "seal.chunk_invalid", "refused")
    assert attempt.statement
    assert attempt.statement.outcome == "refused"
    assert engine.bodies == []


async def test_a_consumer_cannot_commit_to_one_body_and_send_another(node: Bench) -> None:
    attempt = node.consumer.order(node.facts, BODY, input_commitment="7" * 64)
    assert await node.run(attempt) == Ending("refused", "node.input_commitment", "refused")


async def test_a_body_without_its_final_chunk_is_refused(node: Bench) -> None:
    attempt = node.consumer.order(node.facts, chat("long " * 30_000))
    attempt.chunks = attempt.chunks[:-1]
    assert await node.run(attempt) == Ending("refused", "node.body_incomplete", "refused")


async def test_chunks_in_another_order_are_refused(node: Bench) -> None:
    attempt = node.consumer.order(node.facts, chat("long " * 30_000))
    attempt.chunks.reverse()
    assert await node.run(attempt) == Ending("refused", "seal.chunk_invalid", "refused")


async def test_a_body_beyond_the_headers_limit_is_refused(node: Bench) -> None:
    limits = Limits(output_tokens=1, body_bytes=16, time_ms=1000)
    attempt = node.consumer.order(node.facts, BODY, limits=limits)
    assert await node.run(attempt) == Ending("refused", "node.body_bytes", "refused")


async def test_the_same_attempt_under_a_new_secret_is_a_duplicate(
    node: Bench, engine: ScriptedEngine
) -> None:
    attempts = [node.consumer.order(node.facts, BODY, request_id="same", attempt=3) for _ in range(2)]
    for attempt in attempts:
        await node.run(attempt)
    assert attempts[1].problem
    assert attempts[1].problem.code == "node.duplicate"
    assert len(engine.bodies) == 1


async def test_the_next_attempt_of_a_request_is_another_order(node: Bench, engine: ScriptedEngine) -> None:
    for number in range(2):
        await node.run(node.consumer.order(node.facts, BODY, request_id="same", attempt=number))
    assert len(engine.bodies) == 2


async def test_two_consumers_may_use_the_same_request_id(
    node: Bench, founded: Founded, engine: ScriptedEngine
) -> None:
    ours = Consumer(founded.message[OURS], OURS)
    for consumer in (node.consumer, ours):
        await node.run(consumer.order(node.facts, BODY, request_id="same"))
    assert len(engine.bodies) == 2


async def test_an_old_seal_key_opens_for_two_minutes_after_its_successor(node: Bench) -> None:
    keys, now = node.executor.keys, time.monotonic()
    old = keys.at_epoch(1, now)
    fresh = keys.at_epoch(2, now - 119)
    assert await node.run(node.consumer.order(node.facts, BODY)) == Ending("ok", "ok", "stop")
    keys.at_epoch(3, now)
    assert keys.named(fresh.digest, now + 119) is fresh
    late = node.consumer.order(node.facts, BODY)
    old.dies_at = now - 1
    await node.run(late)
    assert late.problem
    assert late.problem.code == "node.seal_key"


async def test_a_duplicate_is_known_until_its_seal_key_dies(node: Bench) -> None:
    attempt = node.consumer.order(node.facts, BODY)
    await node.run(attempt)
    node.executor.keys.at_epoch(2, time.monotonic())
    again = replace(attempt, problem=None)
    await node.run(again)
    assert again.problem
    assert again.problem.code == "node.duplicate"


async def test_garbage_is_refused_as_such(node: Bench) -> None:
    attempt = node.consumer.order(node.facts, BODY)
    attempt.header = b"{}"
    await node.run(attempt)
    assert attempt.problem
    assert attempt.problem.code == "envelope.malformed"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 2**16), by=st.integers(1, 255))
async def test_any_damaged_head_is_a_typed_problem(
    node: Bench, engine: ScriptedEngine, at: int, by: int
) -> None:
    attempt = node.consumer.order(node.facts, BODY)
    head = bytearray(attempt.head)
    head[at % len(head)] ^= by  # its length varies with the signature's
    frames: list[bytes] = []

    async def body() -> tuple[bytes, ...]:
        return tuple(attempt.chunks)

    async def send(frame: bytes) -> None:
        frames.append(frame)

    ran = len(engine.bodies)
    ending = await execute(node.executor, bytes(head), body, send, Stop())
    keyid_only = ending is not None  # a hint that nobody signed may be damaged and is not believed
    assert keyid_only == (len(engine.bodies) > ran)
    assert keyid_only or [frame[:1] for frame in frames] == [answer.PROBLEM]


async def test_a_problem_quotes_nothing_of_the_request(node: Bench) -> None:
    attempt = node.consumer.order(node.facts, chat("canary-5511"), model_digest="c" * 64)
    await node.run(attempt)
    assert b"canary" not in b"".join(node.frames)


async def test_everything_visible_is_padded_to_a_bucket(node: Bench) -> None:
    await node.run(node.consumer.order(node.facts, BODY))
    sizes = {len(frame) - 1 - seal.CHUNK_OVERHEAD for frame in node.frames if frame[:1] == b"C"}
    assert sizes <= set(seal.PADDING_BUCKETS)
    assert MODEL.encode() not in node.frames[1]
