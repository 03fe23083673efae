"""Answers that come in many parts, at the reader's pace (session.md 10): the room's front door to them.

    async with open_stream(bus, "peer.cloud_fr.execute", head, parts) as stream:
        async for frame in stream:
            ...

    async def answer(inbound: Inbound, responder: Responder) -> None:   # inbound.payload is the head
        body = await responder.receive_body()
        await responder.send(b"...")
        await responder.end()

The same between a border and its node (`node.<id>.in.execute`). A request of up to 192 KiB costs one
message; of the answer at most 32 frames are on their way unread. A lost, repeated or late frame ends
the stream with a typed error; whether the answer is complete is decided by what was signed inside it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from federation.client.intake import Senders
from federation.connection import Bus
from federation.flood import FloodLimits
from federation.streaming.requester import STALL_S, Ask, RequesterDesk, Stream
from federation.streaming.responder import (
    MAX_STREAMS,
    MAX_STREAMS_PER_SENDER,
    Responder,
    StreamHandler,
    StreamServing,
    check_pattern,
)

__all__ = ["Responder", "Stream", "StreamServing", "open_stream", "relay", "serve_streams"]


@asynccontextmanager
async def open_stream(
    bus: Bus,
    subject: str,
    head: bytes,
    body_rest: Sequence[bytes] = (),
    *,
    headers: Mapping[str, str] | None = None,
    stall_s: float = STALL_S,
) -> AsyncIterator[Stream]:
    """Ask for a stream. Leaving the block before its end cancels it at the responder.

    head: what is asked, at most 32 KiB. body_rest: the parts that follow it, each at most 128 KiB and
    4.25 MiB in all; those that fit travel with the head, and their boundaries are kept.
    Raises, here or while reading: see `Stream.__anext__`; and `Refused` when a bound is passed.
    """
    desk = await bus.part(RequesterDesk, RequesterDesk.make)
    async with Stream(desk, Ask(subject, head, body_rest, headers, stall_s)) as stream:
        yield stream


async def serve_streams(
    bus: Bus,
    pattern: str,
    handler: StreamHandler,
    *,
    limits: FloodLimits,
    total: int = MAX_STREAMS,
    per_sender: int = MAX_STREAMS_PER_SENDER,
    queue: str = "",
    senders: Senders | None = None,
) -> StreamServing:
    """Answer streams on one operation (`fed.v1.neg.<account>.*.execute`, `node.<id>.in.execute`).

    senders, queue: see `Bus.serve`. A handler that raises a `ComityError` ends the stream with that
    kind and code at the requester.
    """
    check_pattern(pattern)
    serving = StreamServing(bus, handler, total, per_sender)
    await serving.open(pattern, limits, queue, senders)
    return serving


async def relay(responder: Responder, stream: Stream) -> None:
    """Pass every frame on unchanged, no faster than the far reader reads; its cancellation passes back."""
    responder.on_cancel(stream.abort)
    async for frame in stream:
        await responder.send(frame)
    await responder.end()
