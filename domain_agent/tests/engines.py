"""Engines that follow a script: they answer, stall, lie or die exactly when a test wants it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, Self

from aiohttp import web

Script = Callable[[web.StreamResponse, dict[str, Any]], Awaitable[None]]


class ScriptedEngine:
    """An OpenAI-compatible server on loopback whose every answer is a coroutine of the test."""

    def __init__(self, script: Script | None = None) -> None:
        self.script = script or speak("Hello", " world")
        self.bodies: list[dict[str, Any]] = []
        self.status = 200
        self.error_body: dict[str, Any] = {}
        self.erased: list[int] = []
        self.hang_ups = 0
        """Requests that are cut off before they are answered."""
        self.slow_pages = False
        """Whether /metrics and /slots wait for ever."""
        self.left = asyncio.Event()
        """Set when a client left in mid-answer."""
        self._runner: web.AppRunner | None = None
        self.address = ""

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=8 * 1024 * 1024)  # the longest body, escaped
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/slots/{slot}", self._erase)
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._page)
        app.router.add_get("/slots", self._page)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.address = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner
        await self._runner.cleanup()

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        if self.hang_ups:
            self.hang_ups -= 1
            assert request.transport
            request.transport.abort()
            return web.Response()
        body = await request.json()
        self.bodies.append(body)
        if self.status != 200:
            return web.json_response(self.error_body, status=self.status)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        try:
            await self.script(response, body)
        except (asyncio.CancelledError, ConnectionResetError):
            self.left.set()
            raise
        return response

    async def _erase(self, request: web.Request) -> web.Response:
        self.erased.append(int(request.match_info["slot"]))
        return web.json_response({})

    async def _page(self, _: web.Request) -> web.Response:
        if self.slow_pages:
            await asyncio.sleep(3600)
        return web.Response(status=404)

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})


async def event(response: web.StreamResponse, **chunk: Any) -> None:
    await response.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")


async def say(response: web.StreamResponse, text: str) -> None:
    await event(response, choices=[{"index": 0, "delta": {"content": text}, "finish_reason": None}])


async def finish(
    response: web.StreamResponse, reason: str = "stop", *, tokens: int = 2, cached: int = 0
) -> None:
    await event(response, choices=[{"index": 0, "delta": {}, "finish_reason": reason}])
    usage = {
        "prompt_tokens": 7,
        "completion_tokens": tokens,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
    timings = {"prompt_per_second": 100.0, "predicted_per_second": 50.0}
    await event(response, choices=[], usage=usage, timings=timings)
    await response.write(b"data: [DONE]\n\n")


def speak(*words: str, reason: str = "stop") -> Script:
    """Say these and end well."""

    async def script(response: web.StreamResponse, body: dict[str, Any]) -> None:
        for word in words:
            await say(response, word)
        await finish(response, reason, tokens=len(words))

    return script


def die_after(*words: str) -> Script:
    """Say these and break the connection."""

    async def script(response: web.StreamResponse, body: dict[str, Any]) -> None:
        for word in words:
            await say(response, word)
        assert response._req
        assert response._req.transport
        response._req.transport.abort()

    return script


def hang_after(*words: str) -> Script:
    """Say these and then nothing, for ever."""

    async def script(response: web.StreamResponse, body: dict[str, Any]) -> None:
        for word in words:
            await say(response, word)
        await asyncio.Event().wait()

    return script


async def chatter(response: web.StreamResponse, body: dict[str, Any]) -> None:
    """Talk and never end."""
    chunk = {"choices": [{"index": 0, "delta": {"content": "la "}}]}
    while True:
        await response.write((b"data: " + json.dumps(chunk).encode() + b"\n\n") * 1000)
