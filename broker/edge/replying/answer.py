"""An answer on its way to the caller: gathered into one completion, or streamed as it comes."""

from __future__ import annotations

import time
from typing import TypeAlias

from broker.edge.exchange import Accepted, Choices, Finished, Started, Text
from broker.edge.replying.completion import Collector, comity_member, start_headers
from broker.edge.replying.reply import Reply
from broker.edge.replying.sse import Chunks
from schemas.canonical import write_json


class WholeAnswer:
    """Nothing is sent before everything is known."""

    def __init__(self, accepted: Accepted, started: Started, reply: Reply) -> None:
        self._accepted = accepted
        self._started = started
        self._reply = reply
        self._collector = Collector()

    async def begin(self) -> None:
        """Nothing goes out yet."""

    async def piece(self, event: Text | Choices) -> None:
        self._collector.add(event)

    async def end(self, finished: Finished) -> None:
        """The completion with all headers."""
        member = comity_member(self._accepted, self._started, finished)
        body = self._collector.completion(self._accepted, int(time.time()), finished, member)
        headers = start_headers(self._accepted, self._started)
        headers["X-Comity-Domain"] = finished.latency.domain
        headers["X-Comity-Receipt"] = finished.receipt
        headers["X-Comity-Latency"] = finished.latency.sentence()
        await self._reply.whole(200, write_json(body), headers)


class StreamedAnswer:
    """Each piece goes out as it comes; three headers first, the rest in the last chunk."""

    def __init__(self, accepted: Accepted, started: Started, reply: Reply) -> None:
        self._headers = start_headers(accepted, started)
        self._reply = reply
        self._chunks = Chunks(accepted, started, int(time.time()))

    async def begin(self) -> None:
        await self._reply.begin_stream(self._headers)

    async def piece(self, event: Text | Choices) -> None:
        await self._reply.events(self._chunks.piece(event))

    async def end(self, finished: Finished) -> None:
        await self._reply.end_stream(self._chunks.end(finished))


Answer: TypeAlias = WholeAnswer | StreamedAnswer


def answer_for(accepted: Accepted, started: Started, reply: Reply) -> Answer:
    """As the caller asked for it."""
    kind = StreamedAnswer if accepted.descriptor.stream else WholeAnswer
    return kind(accepted, started, reply)
