"""Before anybody is known: heads that are too long, too slow, or no HTTP; and who is not to be cut off."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator

import pytest

from broker.edge import connection
from broker.edge.connection import MAX_HEAD_BYTES
from broker.edge.exchange import Accepted, Event
from broker.edge.tests.scripted import BODY, KEY, Running, say, serving

START = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"
PART = 16 * 1024
SENT = json.dumps(BODY).encode()


async def said(edge: Running, *parts: bytes) -> bytes:
    """All that comes back until the server closes; nothing when it does so while we still write."""
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.server.port)
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
        return await asyncio.wait_for(reader.read(), 10)
    except ConnectionError:
        return b""
    finally:
        writer.close()


def code(answer: bytes) -> str:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 "), answer
    found = json.loads(body)["error"]["comity"]["code"]
    assert isinstance(found, str)
    return found


@pytest.mark.parametrize(
    "parts",
    [
        [START, *[b"X-A: " + b"a" * PART + b"\r\n"] * 40],
        [START, b"X-A: ", *[b"a" * PART] * 40],
        [b"GET /", *[b"a" * PART] * 40],
    ],
    ids=["headers", "one header", "a path"],
)
async def test_a_head_without_end_is_not_gathered(parts: list[bytes]) -> None:
    async with serving() as edge:
        answer = await said(edge, *parts)
    assert not answer or code(answer) == "request.head_too_long"


async def test_a_head_that_is_too_long_is_named() -> None:
    async with serving() as edge:
        answer = await said(edge, START + b"X-A: " + b"a" * MAX_HEAD_BYTES + b"\r\n\r\n")
    assert code(answer) == "request.head_too_long"


async def test_a_head_within_the_limit_is_read() -> None:
    wide = b"X-A: " + b"a" * (MAX_HEAD_BYTES - 256) + b"\r\n"
    async with serving() as edge:
        answer = await said(edge, START + wide + b"Connection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")


async def test_what_is_no_http_gets_our_shape() -> None:
    async with serving() as edge:
        assert code(await said(edge, b"\x16\x03\x01 hello\r\n\r\n")) == "request.http"


@pytest.mark.parametrize("begun", [b"", b"GET /hea"], ids=["silent", "half a line"])
async def test_who_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, begun: bytes) -> None:
    monkeypatch.setattr(connection, "HEAD_S", 0.02)
    async with serving() as edge:
        assert await said(edge, begun) == b""


async def test_a_second_head_is_not_waited_for_either(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as edge:
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.server.port)
        writer.write(START + b"\r\n")
        await reader.readuntil(b"}")
        monkeypatch.setattr(connection, "HEAD_S", 0.02)
        writer.write(b"GET /hea")
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()


async def test_an_answer_takes_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is for heads: a run that lasts longer ends in peace, and so does the next one."""
    monkeypatch.setattr(connection, "HEAD_S", 0.02)

    async def slow(accepted: Accepted) -> AsyncGenerator[Event, None]:
        await asyncio.sleep(0.1)
        async for event in say(accepted):
            yield event

    request = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
        f"Content-Length: {len(SENT)}\r\n"
    ).encode()
    async with serving(slow) as edge:
        both = [request + b"\r\n" + SENT, request + b"Connection: close\r\n\r\n" + SENT]
        answer = await said(edge, *both)
    assert answer.count(b"HTTP/1.1 200 ") == 2
