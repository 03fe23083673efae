"""The stock `openai` client, unmodified, against a real server."""

from __future__ import annotations

import asyncio
import json

import openai
import pytest
from openai import AsyncOpenAI, AsyncStream, OpenAI
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam

from broker.edge.exchange import Choices, Event, Started, Text
from broker.edge.tests.scripted import (
    KEY,
    LATENCY,
    STARTED,
    WORDS,
    Running,
    Script,
    finished,
    playing,
    serving,
)
from broker.problems import Deadline, Infeasible, Shed, Upstream
from schemas.canonical import Json

ASK: list[ChatCompletionMessageParam] = [{"role": "user", "content": "What is comity?"}]
SENTENCE = (
    "served by cloud.fr on cpu/llama.cpp in 412 ms: 3 ms network, 1 ms agreement, 0 ms queue, "
    "405 ms compute, 3 ms broker"
)


def client(edge: Running) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=edge.base_url, api_key=KEY, max_retries=0)


async def read_all(stream: AsyncStream[ChatCompletionChunk], into: list[str | None]) -> None:
    async for chunk in stream:
        into += [choice.delta.content for choice in chunk.choices]


async def test_a_whole_answer_with_its_receipt() -> None:
    async with serving() as edge, client(edge) as api:
        raw = await api.chat.completions.with_raw_response.create(
            model="chat.small",
            messages=ASK,
            extra_body={"comity": {"policy": {"origin": "DE"}}},
        )
        answer = raw.parse()
    assert answer.choices[0].message.content == "".join(WORDS)
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == "chat.small/smollm2"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 15
    extra = answer.model_extra or {}
    assert set(extra["comity"]) == {"request", "domain", "receipt", "promise", "latency"}
    assert extra["comity"]["latency"] == SENTENCE == LATENCY.sentence()
    assert raw.headers["x-comity-request"] == extra["comity"]["request"]
    assert raw.headers["x-comity-domain"] == "cloud.fr"
    assert raw.headers["x-comity-receipt"] == "receipt-1"
    assert raw.headers["x-comity-latency"] == SENTENCE
    accepted = edge.dispatch.asked[0]
    assert accepted.descriptor.policy.origin == "DE"
    assert accepted.tenant.name == "radiology"
    assert "comity" not in json.loads(accepted.body)


async def test_a_stream_with_the_member_last() -> None:
    async with serving() as edge, client(edge) as api:
        stream = await api.chat.completions.create(
            model="chat.small",
            messages=ASK,
            stream=True,
            stream_options={"include_usage": True},
            extra_headers={"X-Comity-Residency": "DE, FR"},
        )
        assert stream.response.headers["x-comity-receipt"] == "receipt-1"
        chunks = [chunk async for chunk in stream]
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text == "".join(WORDS)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices][-1] == "stop"
    assert chunks[-1].choices == []
    assert (chunks[-1].model_extra or {})["comity"]["latency"] == SENTENCE
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 4
    assert edge.dispatch.asked[0].descriptor.policy.residency == ["DE", "FR"]


async def test_the_synchronous_client() -> None:
    async with serving() as edge:
        base_url = edge.base_url

        def ask() -> tuple[str | None, str]:
            with OpenAI(base_url=base_url, api_key=KEY, max_retries=0) as api:
                whole = api.chat.completions.create(model="chat.small", messages=ASK)
                pieces = api.chat.completions.create(model="chat.small", messages=ASK, stream=True)
                text = "".join(c.delta.content or "" for chunk in pieces for c in chunk.choices)
                return whole.choices[0].message.content, text

        whole, streamed = await asyncio.to_thread(ask)
    assert whole == streamed == "".join(WORDS)


async def test_models_are_listed_and_found() -> None:
    async with serving() as edge, client(edge) as api:
        assert [model.id async for model in api.models.list()] == ["chat.small", "chat.small/smollm2"]
        assert (await api.models.retrieve("chat.small/smollm2")).owned_by == "cloud.fr"
        with pytest.raises(openai.NotFoundError):
            await api.models.retrieve("chat.huge")


async def test_an_unknown_key_is_refused() -> None:
    async with serving() as edge, AsyncOpenAI(base_url=edge.base_url, api_key="cmt_x", max_retries=0) as api:
        with pytest.raises(openai.AuthenticationError) as caught:
            await api.chat.completions.create(model="chat.small", messages=ASK)
    assert caught.value.code == "unauthenticated"


INFEASIBLE = Infeasible(
    "nobody in DE serves chat.large",
    binding=["RES-001-inside-residency"],
    eliminated={"RES-001-inside-residency": 2},
    best_achievable={"residency": "EU"},
    smallest_relaxation={"rules": ["RES-001-inside-residency"], "candidates": 2},
    receipt="refusal-1",
)


async def test_infeasible_is_a_409_that_the_stock_client_does_not_repeat() -> None:
    async with serving(playing(INFEASIBLE)) as edge:
        async with AsyncOpenAI(base_url=edge.base_url, api_key=KEY, max_retries=3) as api:
            with pytest.raises(openai.ConflictError) as caught:
                await api.chat.completions.create(model="chat.large", messages=ASK)
        assert len(edge.dispatch.asked) == 1
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert caught.value.response.headers["x-comity-receipt"] == "refusal-1"
    error = caught.value.response.json()["error"]
    assert (error["code"], error["comity"]["code"]) == ("infeasible", "request.infeasible")
    assert error["comity"]["binding"] == ["RES-001-inside-residency"]
    assert error["comity"]["eliminated"] == {"RES-001-inside-residency": 2}
    assert error["comity"]["smallest_relaxation"]["candidates"] == 2
    assert error["comity"]["request"] == edge.dispatch.asked[0].request_id


@pytest.mark.parametrize(
    ("problem", "status", "word"),
    [
        (Upstream("stream.stalled", "the node fell silent"), 502, "upstream"),
        (Deadline("request.deadline", "too late"), 504, "deadline"),
        (Shed("agree.no_capacity", "all busy", retry_after_ms=1500), 429, "shed"),
        (RuntimeError("the prompt was: secret"), 500, "internal"),
    ],
)
async def test_problems_before_the_answer_are_a_status(problem: Exception, status: int, word: str) -> None:
    async with serving(playing(problem)) as edge, client(edge) as api:
        with pytest.raises(openai.APIStatusError) as caught:
            await api.chat.completions.create(model="chat.small", messages=ASK)
    assert (caught.value.status_code, caught.value.response.json()["error"]["code"]) == (status, word)
    assert "secret" not in caught.value.response.text
    if status == 429:
        assert caught.value.response.headers["retry-after"] == "2"
        assert caught.value.response.json()["error"]["comity"]["retry_after"] == 2


CUT: list[tuple[Script, str]] = [
    (playing(STARTED, Text("half an "), Upstream("stream.lost", "the domain is gone")), "upstream"),
    (playing(STARTED, Text("half an "), TimeoutError()), "deadline"),
    (playing(STARTED, Text("half an "), KeyError("prompt")), "internal"),
    (playing(STARTED, Text("half an ")), "internal"),
]


@pytest.mark.parametrize(("script", "word"), CUT)
async def test_a_cut_stream_ends_in_an_error_and_never_in_done(script: Script, word: str) -> None:
    async with serving(script) as edge, client(edge) as api, edge.http() as http:
        stream = await api.chat.completions.create(model="chat.small", messages=ASK, stream=True)
        got: list[str | None] = []
        with pytest.raises(openai.APIError) as caught:
            await read_all(stream, got)
        body = {"model": "chat.small", "messages": ASK, "stream": True}
        raw = (await http.post("/v1/chat/completions", json=body)).text
    assert got == ["half an "]
    assert caught.value.code == word
    assert "[DONE]" not in raw
    assert '"finish_reason":"' not in raw
    assert "prompt" not in raw


async def test_an_answer_that_went_on_elsewhere_says_where_it_began() -> None:
    continued = playing(Started("hyper.us", "receipt-0"), Text("half "), Text("and half"), finished())
    async with serving(continued) as edge, client(edge) as api:
        raw = await api.chat.completions.with_raw_response.create(model="chat.small", messages=ASK)
        stream = await api.chat.completions.create(model="chat.small", messages=ASK, stream=True)
        chunks = [chunk async for chunk in stream]
    assert stream.response.headers["x-comity-domain"] == "hyper.us"
    assert raw.headers["x-comity-domain"] == "cloud.fr"
    for part in (raw.parse(), chunks[-1]):
        member = (part.model_extra or {})["comity"]
        assert (member["domain"], member["receipt"]) == ("cloud.fr", "receipt-1")
        assert member["began"] == {"domain": "hyper.us", "receipt": "receipt-0"}


def piece(index: int, delta: dict[str, Json], reason: str | None = None) -> Event:
    return Choices([{"index": index, "delta": delta, "finish_reason": reason}])


CALL: Json = {
    "index": 0,
    "id": "call_1",
    "type": "function",
    "function": {"name": "look_up", "arguments": ""},
}
TOOLS = (
    STARTED,
    piece(0, {"role": "assistant", "content": None, "tool_calls": [CALL]}),
    piece(0, {"tool_calls": [{"index": 0, "function": {"arguments": '{"q":'}}]}),
    piece(0, {"tool_calls": [{"index": 0, "function": {"arguments": '"x"}'}}]}),
    piece(1, {"role": "assistant", "content": "or "}),
    piece(1, {"content": "not"}, "length"),
    piece(0, {}, "tool_calls"),
    finished(finish_reason="tool_calls"),
)


async def test_tool_calls_and_several_choices_whole_and_streamed() -> None:
    async with serving(playing(*TOOLS)) as edge, client(edge) as api:
        whole = await api.chat.completions.create(model="chat.small", messages=ASK, n=2)
        stream = await api.chat.completions.create(model="chat.small", messages=ASK, n=2, stream=True)
        chunks = [part async for part in stream]
    calls = whole.choices[0].message.tool_calls
    assert calls is not None
    assert calls[0].type == "function"
    assert (calls[0].function.name, calls[0].function.arguments) == ("look_up", '{"q":"x"}')
    assert whole.choices[0].finish_reason == "tool_calls"
    assert (whole.choices[1].message.content, whole.choices[1].finish_reason) == ("or not", "length")
    reasons = [(c.index, c.finish_reason) for part in chunks for c in part.choices if c.finish_reason]
    assert reasons == [(0, "tool_calls"), (1, "length")]
    assert not any(c.finish_reason for part in chunks[:-3] for c in part.choices)
