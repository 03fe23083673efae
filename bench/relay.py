"""The smallest gateway that Python can make: passes a request on and its answer back, checks nothing.

A peer for `bench.gateway`: what one hop through uvicorn, Starlette and aiohttp costs on this machine.
Takes the upstream's address as its only argument and prints its port.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import AsyncIterator

import aiohttp
import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route


def relay(upstream: str, session: aiohttp.ClientSession) -> Starlette:
    """An application that relays chat completions."""

    async def chat(request: Request) -> StreamingResponse:
        answer = await session.post(
            f"{upstream}/v1/chat/completions",
            data=await request.body(),
            headers={"Content-Type": "application/json"},
        )

        async def pieces() -> AsyncIterator[bytes]:
            async with answer:
                async for piece in answer.content.iter_any():
                    yield piece

        return StreamingResponse(pieces(), answer.status, media_type=answer.content_type)

    return Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"])])


async def main(upstream: str) -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        config = uvicorn.Config(relay(upstream, session), log_level="warning", access_log=False)
        print(listening.getsockname()[1], flush=True)
        await uvicorn.Server(config).serve(sockets=[listening])


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
