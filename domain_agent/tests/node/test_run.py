"""One execution at the node: the good way, and every way an engine or a consumer can spoil it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import web

from domain_agent.node.running.run import Stop, execute
from domain_agent.node.running.statement import Ending
from domain_agent.tests.bench import bench, until
from domain_agent.tests.consumer import chat
from domain_agent.tests.engines import (
    Script,
    ScriptedEngine,
    chatter,
    die_after,
    finish,
    hang_after,
    say,
    speak,
)
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


async def test_silence_is_broken_by_a_sealed_keepalive(
    founded: Founded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer, "KEEPALIVE_S", 0.05)
    stop = Stop()
    async with ScriptedEngine(hang_after("one")) as engine, bench(founded, engine.address, slots=1) as node:
        first, waiting = (node.consumer.order(node.facts, chat("hi")) for _ in range(2))
        runs = [asyncio.create_task(node.run(attempt, stop)) for attempt in (first, waiting)]
        await until(lambda: first.parts.count(answer.KEEPALIVE) > 1)
        await until(lambda: answer.KEEPALIVE in waiting.parts)  # in the queue as well
        stop.now(Ending("cancelled", "run.cancelled", "cancelled"))
        await asyncio.gather(*runs)
    assert first.text == "one"
    assert waiting.text == ""


async def test_a_reader_that_does_not_read_slows_the_engine(founded: Founded) -> None:
    said: list[int] = []

    async def script(response: web.StreamResponse, _: dict[str, Any]) -> None:
        for number in range(20_000):
            await say(response, "x" * 1000)
            said.append(number)
        await finish(response)

    async with ScriptedEngine(script) as engine, bench(founded, engine.address) as node:
        attempt, gate = node.consumer.order(node.facts, chat("hi")), asyncio.Event()

        async def body() -> tuple[bytes, ...]:
            return tuple(attempt.chunks)

        async def send(frame: bytes) -> None:
            if frame[:1] == answer.CHUNK:
                await gate.wait()
            attempt.take(frame)

        stop = Stop()
        running = asyncio.create_task(execute(node.executor, attempt.head, body, send, stop))
        await until(lambda: said)
        held, now = -1, 0
        while held != now:  # until nothing moves any more
            held = now
            await asyncio.sleep(0.1)
            now = len(said)
        assert now < 15_000
        stop.now(Ending("cancelled", "run.cancelled", "cancelled"))
        gate.set()
        ending = await running
    assert ending
    assert ending.outcome == "cancelled"


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
