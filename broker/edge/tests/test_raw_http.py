"""What `curl` and careless or hostile clients send, and what they get: named, typed, bounded."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from broker.edge.tests.scripted import BODY, KEY, OTHER_KEY, STARTED, Running, playing, serving
from broker.problems import Infeasible, Upstream
from schemas.messages.execute import MAX_BODY_BYTES

CHAT = "/v1/chat/completions"


async def refused(
    http: httpx.AsyncClient, body: Any, headers: dict[str, str] | None = None
) -> tuple[int, str, Any]:
    """(status, code, param) of what should be an error in OpenAI's shape."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = await http.post(CHAT, content=content, headers=headers or {})
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code", "comity"}
    return answer.status_code, error["code"], error["param"]


MESSAGES = BODY["messages"]
REMOTE = {"type": "image_url", "image_url": {"url": "https://example.org/x.png"}}
BAD: list[tuple[Any, dict[str, str], str]] = [
    (b"", {}, "body"),
    (b"{", {}, "body"),
    (b"\xff\xfe", {}, "body"),
    (b"[]", {}, "body"),
    (b'{"model":"a","model":"b"}', {}, "body"),
    (b'{"model":"a","messages":[{"role":"user","content":"x"}],"temperature":NaN}', {}, "body"),
    (b'{"model":"a","messages":[{"role":"user","content":"x"}],"temperature":1e999}', {}, "body"),
    (b'{"a":"\\ud800"}', {}, "body"),
    (b'{"a":' * 70 + b"1" + b"}" * 70, {}, "body"),
    ({"messages": MESSAGES}, {}, "model"),
    ({"model": "chat.small"}, {}, "messages"),
    ({"model": "chat.small", "messages": []}, {}, "messages"),
    ({"model": "chat.small", "messages": ["hi"]}, {}, "messages.0"),
    ({"model": "chat.small", "messages": [{"role": ["user"]}]}, {}, "messages.0.role"),
    (BODY | {"max_tokens": -1}, {}, "max_tokens"),
    (BODY | {"stream": "yes"}, {}, "stream"),
    (BODY | {"stream_options": {"include_usage": 1}}, {}, "stream_options"),
    (BODY | {"max_token": 5}, {}, "max_token"),
    (BODY | {"functions": []}, {}, "functions"),
    (BODY | {"k" * 100_000: 1}, {}, "k" * 64),
    (BODY | {"temperature": "hot"}, {}, "temperature"),
    (BODY | {"temperature": 99}, {}, "temperature"),
    (BODY | {"stop": 5}, {}, "stop"),
    (BODY | {"stop": ["a", 5]}, {}, "stop"),
    (BODY | {"seed": "x"}, {}, "seed"),
    (BODY | {"n": 9}, {}, "n"),
    (BODY | {"tools": "x"}, {}, "tools"),
    (BODY | {"tools": ["x"]}, {}, "tools"),
    (BODY | {"response_format": "xml"}, {}, "response_format"),
    (BODY | {"response_format": {"type": ["text"]}}, {}, "response_format"),
    (BODY | {"messages": [{"role": "user", "content": 5}]}, {}, "messages.0.content"),
    (BODY | {"messages": [{"role": "user"}]}, {}, "messages.0.content"),
    (BODY | {"messages": [{"role": "user", "content": ["x"]}]}, {}, "messages.0.content.0"),
    (BODY | {"messages": [{"role": "user", "content": [REMOTE]}]}, {}, "messages.0.content.0"),
    (BODY, {"Content-Encoding": "gzip"}, "Content-Encoding"),
    (BODY | {"comity": []}, {}, "comity"),
    (BODY | {"comity": {"polcy": {}}}, {}, "polcy"),
    (BODY | {"comity": {"policy": {"data_clas": "public"}}}, {}, "policy.data_clas"),
    (BODY | {"comity": {"policy": {"residency": ["XX"]}}}, {}, "policy.residency"),
    (BODY | {"comity": {"policy": {"min_assurance": 1.5}}}, {}, "policy.min_assurance"),
    (BODY | {"comity": {"budget": {"currency": "USD"}}}, {}, "budget.currency"),
    (
        BODY | {"comity": {"policy": {"data_class": "public"}}},
        {"X-Comity-Data-Class": "phi"},
        "policy.data_class",
    ),
    (BODY, {"X-Comity-Residence": "EU"}, "X-Comity-Residence"),
    (BODY, {"X-Comity-Residency": "EU,Atlantis"}, "policy.residency"),
]


async def test_bad_input_is_named() -> None:
    async with serving() as edge, edge.http() as http:
        for body, headers, param in BAD:
            assert await refused(http, body, headers) == (400, "invalid", param), (body, headers)
        assert edge.dispatch.asked == []


async def test_two_headers_that_differ_are_refused() -> None:
    async with serving() as edge, edge.http() as http:
        twice = [("X-Comity-Origin", "DE"), ("X-Comity-Origin", "FR")]
        answer = await http.post(CHAT, json=BODY, headers=twice)
    assert answer.json()["error"]["param"] == "policy.origin"


async def test_tags_can_be_added_and_never_removed() -> None:
    tags = {"policy": {"data_class": "public", "residency": ["DE", "US"], "min_assurance": 3}}
    async with serving() as edge, edge.http() as http:
        answer = await http.post(CHAT, json=BODY | {"comity": tags})
    policy = edge.dispatch.asked[0].descriptor.policy
    assert (policy.data_class, policy.residency, policy.min_assurance) == ("personal", ["DE"], 3)
    assert answer.json()["comity"]["overrides"] == ["data_class", "residency"]


async def test_no_data_class_reads_as_the_strictest() -> None:
    async with serving() as edge, edge.http(OTHER_KEY) as http:
        await http.post(CHAT, json=BODY)
    assert edge.dispatch.asked[0].descriptor.policy.data_class == "special-category"


async def test_what_was_sent_is_what_goes_on() -> None:
    plain = b'{ "model" : "chat.small","temperature":0.70,"messages":[{"role":"user","content":"\\u00e9"}] }'
    extended = plain[:-2] + b', "comity": {"priority": 5}, "top_p": 0.9 }'
    async with serving() as edge, edge.http() as http:
        await http.post(CHAT, content=plain)
        await http.post(CHAT, content=extended)
    first, second = edge.dispatch.asked
    assert first.body == plain
    expected = (
        '{"model":"chat.small","temperature":0.7,"messages":[{"role":"user","content":"é"}],"top_p":0.9}'
    )
    assert second.body == expected.encode()
    assert second.descriptor.priority == 5
    assert second.descriptor.body_bytes == len(second.body)


PLAIN: list[tuple[dict[str, Any], bool]] = [
    ({}, True),
    ({"n": 1, "stop": ["\n"], "temperature": 0.1, "logprobs": False, "tools": []}, True),
    ({"n": 2}, False),
    ({"seed": 7}, False),
    ({"logprobs": True}, False),
    ({"tools": [{"type": "function"}]}, False),
    ({"response_format": {"type": "json_object"}}, False),
    ({"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]}, False),
    ({"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}, False),
]


async def test_only_plain_text_may_be_continued() -> None:
    async with serving() as edge, edge.http() as http:
        for changes, plain in PLAIN:
            assert (await http.post(CHAT, json=BODY | changes)).status_code == 200
            assert edge.dispatch.asked[-1].plain is plain, changes


async def test_a_body_over_the_limit_is_named() -> None:
    async with serving() as edge, edge.http() as http:
        assert await refused(http, b" " * (MAX_BODY_BYTES + 1)) == (400, "invalid", "body")
        exactly = json.dumps(BODY).encode().ljust(MAX_BODY_BYTES)
        assert (await http.post(CHAT, content=exactly)).status_code == 200
        longer = await http.post(CHAT, content=exactly + b" ")
        assert longer.json()["error"]["comity"]["code"] == "request.body_too_long"


async def test_a_body_that_announces_too_much_is_not_read() -> None:
    async with serving() as edge:
        head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
        answer = await raw(edge, f"{head}Content-Length: 999999999999\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 400")
    assert b'"param":"body"' in answer


@pytest.mark.parametrize(
    "header",
    ["", "Authorization: Basic eA==\r\n", "Authorization: Bearer\r\n", "Authorization: Bearer \xe9\r\n",
     f"Authorization: Bearer {KEY}x\r\n", f"Authorization: Bearer {KEY}\r\nAuthorization: Bearer {KEY}\r\n",
     "Authorization: Bearer " + "x" * 9000 + "\r\n"],
)  # fmt: skip
async def test_without_one_good_credential_nothing_is_read(header: str) -> None:
    async with serving() as edge:
        head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\n{header}Content-Length: 4000000\r\n\r\n"
        answer = await raw(edge, head.encode("latin-1"))
    assert answer.startswith(b"HTTP/1.1 401")
    assert b"www-authenticate" in answer
    assert b'"code":"unauthenticated"' in answer


async def test_other_routes_answer_in_the_same_shape() -> None:
    async with serving() as edge, edge.http() as http:
        for method, path, status in [
            ("GET", "/nothing", 404),
            ("GET", CHAT, 405),
            ("GET", "/v1/receipts/receipt-2", 404),
            ("GET", "/v1/traces/none", 404),
        ]:
            answer = await http.request(method, path)
            assert answer.status_code == status
            assert set(answer.json()["error"]) == {"message", "type", "param", "code", "comity"}
        assert (await http.post("/v1/explain", json=BODY)).json()["allowed"] == ["cloud.fr"]
        assert (await http.post("/v1/explain", json={})).json()["error"]["param"] == "messages"


async def test_a_receipt_is_shown_to_its_tenant_only() -> None:
    async with (
        serving() as edge,
        edge.http() as http,
        edge.http(OTHER_KEY) as other,
        edge.http(None) as nobody,
    ):
        mine = await http.get("/v1/receipts/receipt-1")
        assert (mine.status_code, mine.content) == (200, b"PK bundle")
        assert mine.headers["content-disposition"] == 'attachment; filename="receipt-1.receipt"'
        assert (await other.get("/v1/receipts/receipt-1")).status_code == 404
        assert (await nobody.get("/v1/receipts/receipt-1")).status_code == 401


async def test_a_trace_is_shown_to_its_tenant_only() -> None:
    async with serving() as edge, edge.http() as http, edge.http(OTHER_KEY) as other:
        sent = await http.post(CHAT, json=BODY | {"comity": {"request_id": "visit-7"}})
        assert sent.headers["x-comity-request"] == "visit-7"
        shown = (await http.get("/v1/traces/visit-7")).json()
        assert shown["latency"] == sent.headers["x-comity-latency"]
        assert [span["name"] for span in shown["spans"]] == ["request"]
        assert (await http.get(f"/v1/traces/{shown['trace']}")).json() == shown
        assert (await other.get("/v1/traces/visit-7")).status_code == 404
        assert (await other.get(f"/v1/traces/{shown['trace']}")).status_code == 404


async def test_health_metrics_and_documentation() -> None:
    async with serving() as edge, edge.http(None) as nobody, edge.http() as http:
        assert (await nobody.get("/healthz")).json() == {"live": True, "ready": True, "missing": None}
        edge.dispatch.missing = "no directory yet"
        assert (await nobody.get("/healthz/ready")).status_code == 503
        assert (await nobody.get("/healthz/live")).status_code == 200
        await http.post(CHAT, json=BODY)
        await http.post(CHAT, json={})
        text = (await nobody.get("/metrics")).text
        assert 'comity_requests_total{outcome="ok"} 1.0' in text
        assert 'comity_requests_total{outcome="invalid"} 1.0' in text
        assert "comity_ttft_seconds_count 1.0" in text
        document = (await nobody.get("/openapi.json")).json()
        assert {CHAT, "/v1/explain", "/v1/models", "/v1/receipts/{receipt_id}"} <= set(document["paths"])
        assert {"400", "409", "429", "502"} <= set(document["paths"][CHAT]["post"]["responses"])
        assert "policy" in document["components"]["schemas"]["Comity"]["properties"]
        page = await nobody.get("/docs")
        assert CHAT in page.text
        assert "<script" not in page.text


async def test_the_description_tells_what_comes() -> None:
    """Each status that a request ends in stands with its route, and so do the headers that come with it."""
    refusal = Infeasible(
        "none", binding=[], eliminated={}, best_achievable={}, smallest_relaxation=None, receipt="r"
    )
    async with serving(playing(refusal)) as edge, edge.http(None) as nobody, edge.http() as http:
        document = (await nobody.get("/openapi.json")).json()
        answers = [
            ("/v1/models/{name}", await http.get("/v1/models/none")),
            ("/v1/receipts/{receipt_id}", await http.get("/v1/receipts/none")),
            ("/v1/receipts/{receipt_id}", await http.get("/v1/receipts/receipt-1")),
            ("/v1/traces/{name}", await http.get("/v1/traces/none")),
            ("/v1/models", await nobody.get("/v1/models")),
            ("/v1/explain", await http.post("/v1/explain", json={})),
            (CHAT, await http.post(CHAT, json=BODY)),
            (CHAT, await http.post(CHAT, json={})),
        ]
        edge.dispatch.missing = "no directory yet"
        answers.append(("/healthz", await nobody.get("/healthz")))
    paths = document["paths"]
    for path, answer in answers:
        (operation,) = paths[path].values()
        told = operation["responses"][str(answer.status_code)]
        for name in ("WWW-Authenticate", "Retry-After", "X-Comity-Receipt", "x-should-retry"):
            assert (name in told.get("headers", {})) == (name in answer.headers), (path, name)
    assert not any("422" in each["responses"] for path in paths.values() for each in path.values())
    assert paths["/healthz"]["get"]["security"] == []
    assert document["components"]["schemas"]["ChatRequest"]["properties"]["temperature"]["description"]


async def test_who_leaves_while_asking_for_an_explanation_is_no_defect(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving() as edge:
        _, writer = await asyncio.open_connection("127.0.0.1", edge.server.port)
        head = f"POST /v1/explain HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: 10"
        writer.write(head.encode() + b"\r\n\r\n{")
        await until(lambda: edge.gate.queued == 1)
        writer.close()
        await until(lambda: edge.gate.queued == 0)
    assert "Exception in ASGI application" not in caplog.text


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - the gate tells nobody
            await asyncio.sleep(0.005)


async def test_a_failure_carries_the_request_id() -> None:
    failing = playing(STARTED, Upstream("stream.lost", "gone"))
    async with serving(failing) as edge, edge.http() as http:
        answer = await http.post(CHAT, json=BODY | {"comity": {"request_id": "visit-8"}})
    assert answer.status_code == 502
    assert answer.headers["x-comity-request"] == answer.json()["error"]["comity"]["request"] == "visit-8"


async def raw(edge: Running, data: bytes) -> bytes:
    """Send bytes, return what comes back within the first packet or two."""
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.server.port)
    writer.write(data)
    answer = await reader.readuntil(b"}}")
    writer.close()
    await writer.wait_closed()
    return answer
