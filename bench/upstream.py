"""The mock upstream of `bench.gateway`: an OpenAI-compatible engine that answers at once, in one process.

Twenty words per answer, streamed or whole; no model, no waiting. Prints its port.
"""

from __future__ import annotations

import asyncio
import json

from aiohttp import web

WORDS = tuple(f"word{number} " for number in range(20))
USAGE = {"prompt_tokens": 100, "completion_tokens": len(WORDS), "total_tokens": 100 + len(WORDS)}


async def chat(request: web.Request) -> web.StreamResponse:
    body = await request.json()
    if not body.get("stream"):
        message = {"role": "assistant", "content": "".join(WORDS)}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return web.json_response(_chunk("chat.completion", [choice]) | {"usage": USAGE})
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for word in WORDS:
        choice = {"index": 0, "delta": {"content": word}, "finish_reason": None}
        await response.write(_event(_chunk("chat.completion.chunk", [choice])))
    last = {"index": 0, "delta": {}, "finish_reason": "stop"}
    await response.write(_event(_chunk("chat.completion.chunk", [last])))
    await response.write(_event(_chunk("chat.completion.chunk", []) | {"usage": USAGE}))
    await response.write(b"data: [DONE]\n\n")
    return response


def _chunk(kind: str, choices: list[dict[str, object]]) -> dict[str, object]:
    return {"id": "x", "object": kind, "created": 0, "model": "scripted", "choices": choices}


def _event(value: dict[str, object]) -> bytes:
    return b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"


async def models(_: web.Request) -> web.Response:
    return web.json_response({"object": "list", "data": [{"id": "scripted", "object": "model"}]})


async def main() -> None:
    app = web.Application()
    app.router.add_post("/v1/chat/completions", chat)
    app.router.add_get("/v1/models", models)
    app.router.add_get("/health", models)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
