"""A witness over HTTP (C2SP tlog-witness): two resources of the protocol, and what was found out.

    POST /add-checkpoint                        cosign, or say why not
    GET  /<SHA-256 hex of origin>/checkpoint    the note cosigned last
    GET  /equivocations                         documents that convict logs, one JSON object a line
    POST /equivocations                         bring one that another found

It needs no authentication: a log's own signature opens it, and every answer may be public.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from receipts.witness import MAX_REQUEST_BYTES
from receipts.witnessing.equivocation import MAX_DOCUMENT_BYTES
from receipts.witnessing.state import WitnessState
from schemas.errors import ComityError, Refused, Undecided, Unreadable

BODY_S: Final = 10.0  # seconds for a request's body to arrive
_STATUS: Final[dict[type[Exception], int]] = {Unreadable: 400, Refused: 422, Undecided: 503}
_HASH: Final = re.compile(r"[0-9a-f]{64}")


def _now() -> datetime:
    return datetime.now(UTC)


def build_app(state: WitnessState, *, clock: Callable[[], datetime] = _now) -> Starlette:
    """The ASGI application of one witness."""

    async def add_checkpoint(request: Request) -> Response:
        body = await read_body(request, MAX_REQUEST_BYTES)
        time = int(clock().timestamp())
        answer = await asyncio.to_thread(state.add_checkpoint, body, time=time)
        return Response(answer.body, answer.status, headers={"content-type": answer.content_type})

    async def latest(request: Request) -> Response:
        name = request.path_params["name"]
        note = await asyncio.to_thread(state.latest_by_hash, name) if _HASH.fullmatch(name) else None
        return PlainTextResponse("not known here\n", 404) if note is None else PlainTextResponse(note)

    async def convictions(_: Request) -> Response:
        documents = await asyncio.to_thread(state.convictions)
        return Response(b"".join(each + b"\n" for each in documents), media_type="application/jsonl")

    async def convict(request: Request) -> Response:
        body = await read_body(request, MAX_DOCUMENT_BYTES)
        new = await asyncio.to_thread(state.add_conviction, body)
        return PlainTextResponse("kept\n" if new else "known\n")

    return Starlette(
        routes=[
            Route("/add-checkpoint", add_checkpoint, methods=["POST"]),
            Route("/equivocations", convictions, methods=["GET"]),
            Route("/equivocations", convict, methods=["POST"]),
            Route("/{name}/checkpoint", latest, methods=["GET"]),
        ],
        exception_handlers={ComityError: _refuse, ClientDisconnect: _gone},
    )


async def read_body(request: Request, limit: int) -> bytes:
    """The whole body. Raises `Unreadable` when it is too long or too slow."""
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_S):
            async for part in request.stream():
                size += len(part)
                if size > limit:
                    raise Unreadable("witness.too_long", f"at most {limit} bytes")
                parts.append(part)
    except TimeoutError:
        raise Unreadable("witness.slow", "the body did not arrive in time") from None
    return b"".join(parts)


async def _refuse(_: Request, error: Exception) -> Response:
    return PlainTextResponse(f"{error}\n", _STATUS.get(type(error), 500))


async def _gone(_: Request, __: Exception) -> Response:
    return PlainTextResponse("", 400)
