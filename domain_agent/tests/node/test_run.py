"""One execution at the node: the good way, and every way an engine or a consumer can spoil it."""

from __future__ import annotations

import asyncio

import pytest

from domain_agent.node.run import Stop
from domain_agent.node.statement import Ending
from domain_agent.tests.bench import bench, until
from domain_agent.tests.consumer import chat
from domain_agent.tests.engines import Script, ScriptedEngine, chatter, die_after, hang_after, speak
from domain_agent.tests.founding import Founded
from schemas.messages import answer
from schemas.messages.execute import Limits


async def test_an_order_runs_and_ends_with_the_nodes_statement(founded: Founded) -> None:
    async with ScriptedEngine() as engine, bench(founded, engine.address) as node:
        attempt = node.consumer.order(node.facts, chat("hi"))
        ending = await node.run(attempt)
    assert ending == Ending("ok", "ok", "stop")
    assert attempt.text == "Hello world"
    assert attempt.statement
    assert attempt.statement.outcome == "ok"
    assert attempt.clear_statement == attempt.statement
    assert attempt.end
    assert attempt.end.usage.output_tokens == 2
    assert node.frames[0][:1] == answer.RUN
    assert node.frames[-1][:1] == answer.STATEMENT


async def test_the_first_text_leaves_at_once_and_later_ones_wait_for_company(founded: Founded) -> None:
    words = [f"w{n} " for n in range(50)]
    async with ScriptedEngine(speak(*words)) as engine, bench(founded, engine.address) as node:
        attempt = node.consumer.order(node.facts, chat("hi"))
        await node.run(attempt)
    assert attempt.text == "".join(words)
    assert attempt.parts.count(answer.TEXT) < len(words)


async def test_a_second_identical_order_is_refused(founded: Founded) -> None:
    async with ScriptedEngine() as engine, bench(founded, engine.address) as node:
        attempt = node.consumer.order(node.facts, chat("hi"))
        await node.run(attempt)
        again = node.consumer.order(node.facts, chat("hi"))
        again.header, again.sealed_secret, again.chunks = (
            attempt.header,
            attempt.sealed_secret,
            attempt.chunks,
        )
        await node.run(again)
    assert again.problem
    assert again.problem.code == "node.duplicate"
    assert len(engine.bodies) == 1


async def test_an_engine_that_dies_in_mid_answer_is_partial_and_never_ok(founded: Founded) -> None:
    async with ScriptedEngine(die_after("one", "two")) as engine, bench(founded, engine.address) as node:
        attempt = node.consumer.order(node.facts, chat("hi"))
        ending = await node.run(attempt)
    assert ending == Ending("partial", "engine.lost", "error")
    assert attempt.text == "onetwo"
    assert attempt.statement
    assert attempt.statement.outcome == "partial"


TOO_LONG = {"error": {"type": "exceed_context_size_error"}}


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (
            400,
            {"error": {"type": "exceed_context_size_error"}},
            Ending("refused", "engine.context_length", "refused"),
        ),
        (400, {"error": {"type": "x"}}, Ending("refused", "engine.rejected", "refused")),
        (500, {}, Ending("failed", "engine.failed", "error")),
        (503, {}, Ending("failed", "engine.busy", "error")),
    ],
)
async def test_an_engine_that_refuses_is_reported_by_kind(
    founded: Founded, status: int, body: dict[str, object], expected: Ending
) -> None:
    async with ScriptedEngine() as engine, bench(founded, engine.address) as node:
        engine.status, engine.error_body = status, body
        attempt = node.consumer.order(node.facts, chat("hi"))
        assert await node.run(attempt) == expected
    assert attempt.statement
    assert attempt.statement.code == expected.code


@pytest.mark.parametrize("script", [hang_after("one"), chatter])
async def test_time_is_limited_by_the_header(founded: Founded, script: Script) -> None:
    limits = Limits(output_tokens=9, body_bytes=999, time_ms=150)
    async with ScriptedEngine(script) as engine, bench(founded, engine.address) as node:
        attempt = node.consumer.order(node.facts, chat("hi"), limits=limits)
        ending = await node.run(attempt)
        await asyncio.wait_for(engine.left.wait(), 5)
    assert ending == Ending("partial", "limit.time", "deadline")


async def test_a_cancelled_run_closes_the_engines_connection(founded: Founded) -> None:
    stop = Stop()
    async with ScriptedEngine(hang_after("one")) as engine, bench(founded, engine.address) as node:
        attempt = node.consumer.order(node.facts, chat("hi"))
        running = asyncio.create_task(node.run(attempt, stop))
        await until(lambda: attempt.text)
        stop.now(Ending("cancelled", "run.cancelled", "cancelled"))
        ending = await running
        await asyncio.wait_for(engine.left.wait(), 5)
        assert node.executor.serving.slots.busy == 0
    assert ending
    assert ending.outcome == "cancelled"


async def test_output_tokens_are_the_smaller_of_header_and_body(founded: Founded) -> None:
    async with ScriptedEngine() as engine, bench(founded, engine.address) as node:
        limits = Limits(output_tokens=5, body_bytes=999, time_ms=5000)
        await node.run(node.consumer.order(node.facts, chat("hi", max_tokens=50), limits=limits))
        await node.run(node.consumer.order(node.facts, chat("hi", max_completion_tokens=3), limits=limits))
    assert [body["max_tokens"] for body in engine.bodies] == [5, 3]
