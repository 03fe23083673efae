"""Who may run, who must wait, who leaves, and how it all ends on SIGTERM."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest

from broker.edge.exchange import Accepted, Event, Text
from broker.edge.tests.scripted import BODY, KEY, STARTED, Running, finished, serving
from broker.observe import log_fields
from broker.starting.config import Limits
from federation.observe import logs

CHAT = "/v1/chat/completions"
STREAM = BODY | {"stream": True}


class Held:
    """A script that starts an answer and goes on only when it is told to."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.begun = 0
        self.all_begun = asyncio.Condition()
        self.cancelled = 0
        self.order: list[str] = []

    async def __call__(self, accepted: Accepted) -> AsyncGenerator[Event, None]:
        self.order.append(accepted.request_id)
        async with self.all_begun:
            self.begun += 1
            self.all_begun.notify_all()
        try:
            yield STARTED
            yield Text("first ")
            await self.go.wait()
            yield Text("last")
            yield finished()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def wait_for(self, count: int) -> None:
        async with self.all_begun:
            await self.all_begun.wait_for(lambda: self.begun >= count)


def post(edge: Running, body: dict[str, Any], request_id: str = "") -> asyncio.Task[tuple[int, str]]:
    async def send() -> tuple[int, str]:
        extra = {"comity": {"request_id": request_id}} if request_id else {}
        async with edge.http() as http:
            answer = await http.post(CHAT, json={**body, **extra})
            return answer.status_code, answer.text

    return asyncio.create_task(send())


async def until(condition: Callable[[], bool]) -> None:
    """Give the loop turns until the condition holds; the suite's timeout bounds it."""
    while not condition():  # noqa: ASYNC110 - what is awaited is state, which has no event
        await asyncio.sleep(0)


@pytest.mark.parametrize("body", [BODY, STREAM])
async def test_a_caller_that_leaves_cancels_the_work(body: dict[str, Any]) -> None:
    script = Held()
    async with serving(script) as edge:
        _, writer = await asyncio.open_connection("127.0.0.1", edge.server.port)
        data = json.dumps(body).encode()
        head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
        writer.write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        await script.wait_for(1)
        writer.close()
        await edge.dispatch.closed.wait()
        await until(lambda: edge.gate.running == 0)
        metrics = edge.observability.metrics.exposition()[0].decode()
    assert script.cancelled == 1
    assert 'comity_requests_total{outcome="cancelled"} 1.0' in metrics


async def test_a_caller_that_leaves_in_the_queue_frees_its_place() -> None:
    script = Held()
    async with serving(script, limits=Limits(running=1, queued=1)) as edge:
        first = post(edge, BODY)
        await script.wait_for(1)
        second = post(edge, BODY)
        await until(lambda: edge.gate.queued == 1)
        second.cancel()
        await until(lambda: edge.gate.queued == 0)
        third = post(edge, BODY)
        await until(lambda: edge.gate.queued == 1)
        script.go.set()
        assert (await first)[0] == (await third)[0] == 200
    assert script.begun == 2


async def test_a_full_queue_is_a_429_with_retry_after() -> None:
    script = Held()
    async with serving(script, limits=Limits(running=2, queued=1)) as edge, edge.http() as http:
        waiting = [post(edge, BODY) for _ in range(3)]
        await script.wait_for(2)
        await until(lambda: edge.gate.queued == 1)
        shed = await http.post(CHAT, json=BODY)
        script.go.set()
        assert [status for status, _ in await asyncio.gather(*waiting)] == [200, 200, 200]
    error = shed.json()["error"]
    assert (shed.status_code, error["code"], error["comity"]["code"]) == (429, "shed", "broker.queue_full")
    assert int(shed.headers["retry-after"]) == error["comity"]["retry_after"] >= 1


async def test_waiting_too_long_is_a_429() -> None:
    script = Held()
    async with serving(script, limits=Limits(running=1, queued=1, queue_ms=20)) as edge, edge.http() as http:
        first = post(edge, BODY)
        await script.wait_for(1)
        shed = await http.post(CHAT, json=BODY)
        script.go.set()
        assert (await first)[0] == 200
        assert (await http.post(CHAT, json=BODY)).status_code == 200
    assert shed.json()["error"]["comity"]["code"] == "broker.queue_timeout"


async def test_who_waits_is_served_by_class_then_priority_then_arrival() -> None:
    script = Held()
    async with serving(script, limits=Limits(running=1)) as edge:
        tasks = [post(edge, BODY, "running")]
        await script.wait_for(1)
        waiting: list[tuple[str, dict[str, Any]]] = [
            ("batch", {"class": "batch", "priority": 5}),
            ("low", {"priority": 1}),
            ("late", {"deadline": "2099-01-02T00:00:00Z"}),
            ("soon", {"deadline": "2099-01-01T00:00:00Z"}),
            ("chat", {"class": "interactive", "priority": 1}),
        ]
        for name, extra in waiting:
            tasks.append(post(edge, BODY | {"comity": {"request_id": name, **extra}}))
            await until(lambda: len(edge.gate._waiting) == len(tasks) - 1)
        script.go.set()
        await asyncio.gather(*tasks)
    assert script.order == ["running", "chat", "soon", "late", "low", "batch"]


async def test_the_time_of_a_request_is_bounded() -> None:
    script = Held()
    async with serving(script, limits=Limits(request_ms=30)) as edge, edge.http() as http:
        whole = await http.post(CHAT, json=BODY)
        stream = await http.post(CHAT, json=STREAM)
        past = BODY | {"comity": {"deadline": "2001-01-01T00:00:00Z"}}
        late = await http.post(CHAT, json=past)
    assert (whole.status_code, whole.json()["error"]["comity"]["code"]) == (504, "request.deadline")
    assert '"code":"deadline"' in stream.text
    assert "[DONE]" not in stream.text
    assert late.status_code == 504
    assert script.begun == script.cancelled == 2


async def test_drain_lets_running_streams_finish_and_takes_no_new_work() -> None:
    script = Held()
    async with serving(script) as edge, edge.http() as http:
        stream = post(edge, STREAM)
        await script.wait_for(1)
        drained = asyncio.create_task(edge.server.drain())
        await until(lambda: edge.gate.draining)
        refused = await http.post(CHAT, json=BODY)
        assert (await http.get("/healthz")).json()["missing"] == "draining"
        assert not drained.done()
        script.go.set()
        await drained
        status, text = await stream
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "unavailable")
    assert refused.headers["connection"] == "close"
    assert status == 200
    assert text.endswith("data: [DONE]\n\n")


async def test_drain_ends_in_type_what_does_not_finish_in_time() -> None:
    script = Held()
    async with serving(script, limits=Limits(running=2, drain_ms=20)) as edge:
        stream, whole = post(edge, STREAM), post(edge, BODY)
        await script.wait_for(2)
        queued = post(edge, BODY)
        await until(lambda: edge.gate.queued == 1)
        await edge.server.drain()
        assert edge.gate.running == 0
        _, text = await stream
        assert '"code":"broker.drained"' in text
        assert "[DONE]" not in text
        assert (await whole)[0] == (await queued)[0] == 503
    assert script.cancelled == 2


async def test_what_dispatch_concludes_after_the_end_is_not_cut_off() -> None:
    concluded = asyncio.Event()

    async def slow_end(_: Accepted) -> AsyncGenerator[Event, None]:
        yield STARTED
        yield finished()
        for _turn in range(20):
            await asyncio.sleep(0)
        concluded.set()

    async with serving(slow_end) as edge:
        assert (await post(edge, BODY))[0] == 200
        await edge.dispatch.closed.wait()
        await until(lambda: edge.gate.running == 0)
        metrics = edge.observability.metrics.exposition()[0].decode()
    assert concluded.is_set()
    assert 'comity_requests_total{outcome="ok"} 1.0' in metrics


async def test_one_requests_log_fields_do_not_reach_the_next_on_its_connection() -> None:
    seen: list[dict[str, str]] = []

    async def script(accepted: Accepted) -> AsyncGenerator[Event, None]:
        seen.append(dict(logs._fields.get({})))
        with log_fields(negotiation=f"n-{accepted.request_id}"):
            yield STARTED
            yield finished()

    async with serving(script) as edge:
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.server.port)
        for name in ("r1", "r2"):
            data = json.dumps(BODY | {"comity": {"request_id": name}}).encode()
            head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
            writer.write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        for _ in range(2):
            await reader.readuntil(b'"comity":{')
        writer.close()
        await writer.wait_closed()
    assert seen == [{"request": "r1"}, {"request": "r2"}]


async def test_a_hundred_streams_at_once_do_not_mix() -> None:
    async def count(accepted: Accepted) -> AsyncGenerator[Event, None]:
        yield STARTED
        for number in range(20):
            yield Text(f"{accepted.request_id}:{number} ")
            await asyncio.sleep(0)
        yield finished()

    async with serving(count) as edge, edge.http() as http:

        async def one(name: str) -> str:
            answer = await http.post(CHAT, json=STREAM | {"comity": {"request_id": name}})
            lines = answer.text.split("\n\n")
            assert lines[-2:] == ["data: [DONE]", ""]
            chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]
            assert {chunk["id"] for chunk in chunks} == {f"chatcmpl-{name}"}
            assert chunks[-1]["comity"]["request"] == name
            return "".join(c["delta"].get("content", "") for chunk in chunks for c in chunk["choices"])

        names = [f"r{number}" for number in range(100)]
        texts = await asyncio.gather(*map(one, names))
    assert texts == ["".join(f"{name}:{number} " for number in range(20)) for name in names]
