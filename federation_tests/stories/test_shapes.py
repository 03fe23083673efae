"""What an application sees of every kind of end: OpenAI's error shape, with Comity's own code inside."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web
from openai import AuthenticationError, RateLimitError

from federation_tests.conftest import MakeWorld
from federation_tests.engine import echo, finish, hold_after, say
from federation_tests.plan import CLINIC, CLOUD, Changes
from federation_tests.world import World, ask, settings, until

MIB = 1024 * 1024
HOME = {"data_class": "special-category"}
ALONE = Changes(domains=(CLINIC,))


async def _count(response: web.StreamResponse, body: dict[str, Any]) -> None:
    """An engine that answers with the length of what it was asked."""
    await say(response, str(len(body["messages"][0]["content"])))
    await finish(response, tokens=1)


async def test_a_stream_ends_with_the_comity_member_and_then_done(calm: World) -> None:
    body = {"model": "chat.small", "messages": [{"role": "user", "content": "a b c"}], "stream": True}
    response = await calm.http().post("/chat/completions", json=body | {"comity": {"policy": {}}})
    assert response.headers["content-type"].startswith("text/event-stream")
    events = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert events[-1] == "[DONE]"
    *pieces, finish, last = [json.loads(event) for event in events[:-1]]
    assert "".join(piece["choices"][0]["delta"]["content"] for piece in pieces) == "a b c "
    assert finish["choices"][0]["finish_reason"] == "stop"
    assert last["choices"] == []
    assert last["comity"]["receipt"] == response.headers["x-comity-receipt"]
    assert last["comity"]["domain"] == response.headers["x-comity-domain"] == CLINIC
    assert last["comity"]["latency"].startswith(f"served by {CLINIC} on cpu/scripted in ")


async def test_the_stock_client_reads_a_stream_to_its_end(calm: World) -> None:
    stream = await calm.client().chat.completions.create(
        stream=True, stream_options={"include_usage": True}, **ask("a b c")
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "a b c "
    assert chunks[-1].usage
    assert chunks[-1].usage.completion_tokens == 3
    assert chunks[-1].model_extra
    assert chunks[-1].model_extra["comity"]["receipt"]


async def test_a_wrong_key_is_told_nothing_but_that(calm: World) -> None:
    client = calm.client().with_options(api_key="comity-of-somebody-else")
    with pytest.raises(AuthenticationError) as refused:
        await client.chat.completions.create(**ask("x"))
    error = refused.value.response.json()["error"]
    assert error["code"] == "unauthenticated"
    assert error["type"] == "authentication_error"


@pytest.mark.parametrize(
    ("content", "field"),
    [
        (b"not json", "body"),
        (b'{"messages": []}', "messages"),
        (b'{"model": "chat.small", "messages": [{"role": "wizard", "content": "x"}]}', "messages.0.role"),
        (b"{" + b" " * 4 * MIB + b"}", "body"),
    ],
    ids=["no JSON", "no message", "unknown role", "over the limit"],
)
async def test_a_body_that_cannot_be_read_is_a_400_that_names_the_field(
    calm: World, content: bytes, field: str
) -> None:
    response = await calm.http().post("/chat/completions", content=content)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (400, "invalid", field)
    assert error["type"] == "invalid_request_error"
    assert error["comity"]["code"]


async def test_four_mebibytes_cross_a_border_whole(calm: World) -> None:
    """The longest body that is allowed, over many bus messages, to the very engine."""
    words = "wörter " * (MIB // 2)
    frame = {"model": "chat.small", "comity": {"policy": {"data_class": "personal", "residency": ["FR"]}}}
    message = {"role": "user", "content": ""}
    spare = 4 * MIB - len(json.dumps(frame | {"messages": [message], "max_tokens": 4}))
    message["content"] = words.encode()[: spare // 2 * 2 - 64].decode("utf-8", "ignore")
    engines = [calm.engines["paris-1"], calm.engines["paris-2"]]
    for engine in engines:
        engine.script, engine.bodies = _count, []
    try:
        content = json.dumps(frame | {"messages": [message], "max_tokens": 4}, ensure_ascii=False).encode()
        assert 4 * MIB - 4096 < len(content) <= 4 * MIB
        response = await calm.http().post("/chat/completions", content=content)
    finally:
        heard = [body for engine in engines for body in engine.bodies]
        for engine in engines:
            engine.script, engine.bodies = echo(), []
    assert response.status_code == 200, response.text
    assert response.json()["comity"]["domain"] == CLOUD
    assert [body["messages"][0]["content"] for body in heard] == [message["content"]]


async def test_a_full_queue_is_a_429_that_says_when_to_come_again(make_world: MakeWorld) -> None:
    """One runs, one waits, and the third is told to come again; the stock client reads it as such."""
    full = settings(limits={"running": 1, "queued": 1})
    world = await make_world(ALONE, brokers={CLINIC: full})
    go_on, client = asyncio.Event(), world.client()
    world.engines["ward-1"].script = hold_after("first", until=go_on)
    gate = world[CLINIC].broker.gate
    running = [asyncio.create_task(client.chat.completions.create(**ask("x", policy=HOME))) for _ in range(2)]
    await until(lambda: (gate.running, gate.queued) == (1, 1))
    with pytest.raises(RateLimitError) as refused:
        await client.chat.completions.create(**ask("x", policy=HOME))
    error = refused.value.response.json()["error"]
    assert (error["code"], error["type"]) == ("shed", "rate_limit_error")
    assert error["comity"]["code"] == "broker.queue_full"
    assert error["comity"]["retry_after"] >= 1
    assert int(refused.value.response.headers["retry-after"]) == error["comity"]["retry_after"]
    go_on.set()
    for answer in await asyncio.gather(*running):
        assert answer.choices[0].message.content == "first"
