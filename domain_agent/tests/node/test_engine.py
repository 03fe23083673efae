"""What is asked of an engine and what is taken from its stream."""

from __future__ import annotations

import json
from typing import Any

import pytest

from domain_agent.node.engine.client import EngineAddress
from domain_agent.node.running.statement import Ending
from domain_agent.tests.bench import bench, until
from domain_agent.tests.consumer import chat
from domain_agent.tests.engines import ScriptedEngine, event, finish, say
from domain_agent.tests.founding import Founded


async def test_a_salted_engine_gets_one_salt_per_scope(founded: Founded) -> None:
    async with ScriptedEngine() as engine, bench(founded, engine.address, prefix_cache="salted") as node:
        scoped: dict[str, Any] = {"cache_scope": "tenant", "cache_key": "a" * 64}
        for header in (scoped, scoped, {**scoped, "cache_key": "b" * 64}, {}, {}):
            await node.run(node.consumer.order(node.facts, chat("hi"), **header))
    salts = [body["cache_salt"] for body in engine.bodies]
    assert salts[0] == salts[1]
    assert len(set(salts)) == 4


async def test_slots_are_pinned_by_the_node(founded: Founded) -> None:
    async with ScriptedEngine() as engine, bench(founded, engine.address, prefix_cache="slots") as node:
        scoped: dict[str, Any] = {"cache_scope": "session", "cache_key": "a" * 64, "retention_s": 60}
        for _ in range(2):
            await node.run(node.consumer.order(node.facts, chat("hi"), **scoped))
        await node.run(node.consumer.order(node.facts, chat("hi")))
        await until(lambda: engine.erased)
    pinned = [(body["id_slot"], body["cache_prompt"]) for body in engine.bodies]
    assert pinned[0][1] is False
    assert pinned[1] == (pinned[0][0], True)
    assert pinned[2][1] is False
    assert pinned[2][0] != pinned[0][0]


async def test_an_idle_connection_that_was_closed_costs_no_run(founded: Founded) -> None:
    async with ScriptedEngine() as engine, bench(founded, engine.address) as node:
        engine.hang_ups = 1
        assert await node.run(node.consumer.order(node.facts, chat("hi"))) == Ending("ok", "ok", "stop")


async def test_tools_travel_as_choices_and_are_committed_to(founded: Founded) -> None:
    call = {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": "{}"}}]}

    async def script(response: Any, _: dict[str, Any]) -> None:
        await event(response, choices=[{"index": 0, "delta": call}])
        await finish(response, "tool_calls")

    async with ScriptedEngine(script) as engine, bench(founded, engine.address) as node:
        attempt = node.consumer.order(node.facts, chat("hi", tools=[{"type": "function"}]))
        assert await node.run(attempt) == Ending("ok", "ok", "tool_calls")
    assert attempt.choices[0]["delta"] == call
    assert attempt.choices[-1]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize(
    "lines", [b"data: nonsense\n\n", b'data: {"error": {"message": "x"}}\n\n', b"error: x\n\n"]
)
async def test_an_engine_that_errs_in_mid_stream_is_no_normal_end(founded: Founded, lines: bytes) -> None:
    async def script(response: Any, _: dict[str, Any]) -> None:
        await response.write(lines)
        await finish(response)

    async with ScriptedEngine(script) as engine, bench(founded, engine.address) as node:
        ending = await node.run(node.consumer.order(node.facts, chat("hi")))
    assert ending == Ending("failed", "engine.failed", "error")


@pytest.mark.parametrize("broken", [b"data: nonsense\n\n", b"error: x\n\n"])
async def test_what_came_just_before_an_error_counts(founded: Founded, broken: bytes) -> None:
    """Three words and the error in one piece: the words are delivered, committed to and counted."""

    async def script(response: Any, _: dict[str, Any]) -> None:
        await response.write(b"".join(map(said, ("one ", "two ", "three "))) + broken + said("never"))

    async with ScriptedEngine(script) as engine, bench(founded, engine.address) as node:
        attempt = node.consumer.order(node.facts, chat("hi"))
        assert await node.run(attempt) == Ending("partial", "engine.failed", "error")
    assert attempt.text == "one two three "
    assert attempt.end
    assert attempt.end.usage.output_tokens == 3


async def test_texts_that_came_together_keep_their_place_around_a_choice(founded: Founded) -> None:
    other = {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": "{}"}}]}

    async def script(response: Any, _: dict[str, Any]) -> None:
        between = json.dumps({"choices": [{"index": 0, "delta": other}]}).encode()
        await response.write(said("one ") + said("two ") + b"data: " + between + b"\n\n" + said("three"))
        await finish(response)

    async with ScriptedEngine(script) as engine, bench(founded, engine.address) as node:
        attempt = node.consumer.order(node.facts, chat("hi", tools=[{"type": "function"}]))
        assert await node.run(attempt) == Ending("ok", "ok", "stop")
    deltas = [choice["delta"] for choice in attempt.choices]
    assert deltas[:4] == [{"content": "one "}, {"content": "two "}, other, {"content": "three"}]


async def test_an_end_without_done_is_no_end(founded: Founded) -> None:
    async def script(response: Any, _: dict[str, Any]) -> None:
        await say(response, "cut")
        await event(response, choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])

    async with ScriptedEngine(script) as engine, bench(founded, engine.address) as node:
        attempt = node.consumer.order(node.facts, chat("hi"))
        assert await node.run(attempt) == Ending("partial", "engine.lost", "error")


async def test_text_far_longer_than_a_chunk_is_cut_between_characters(founded: Founded) -> None:
    text = "é€😀" * 30_000

    async def script(response: Any, _: dict[str, Any]) -> None:
        await say(response, text)
        await finish(response)

    async with ScriptedEngine(script) as engine, bench(founded, engine.address) as node:
        attempt = node.consumer.order(node.facts, chat("hi"))
        assert await node.run(attempt) == Ending("ok", "ok", "stop")
    assert attempt.text == text


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://127.0.0.1:1", True),
        ("http://[::1]:1", True),
        ("unix:/run/x.sock", True),
        ("http://10.0.0.1:1", False),
        ("http://localhost.example.org", False),
        ("http://localhost:1", False),
    ],
)
def test_only_loopback_and_sockets_are_local(url: str, local: bool) -> None:
    assert EngineAddress(url).is_local is local


def said(text: str) -> bytes:
    """One event with a word of the answer."""
    return b"data: " + json.dumps({"choices": [{"index": 0, "delta": {"content": text}}]}).encode() + b"\n\n"
