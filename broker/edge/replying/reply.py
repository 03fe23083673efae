"""One HTTP response on its way out: whole, or as a stream of events; at most once, and never half a lie."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from starlette.types import Send

from broker.edge.replying.completion import header_text
from broker.edge.replying.sse import MEDIA_TYPE, error_event
from broker.problems import RequestProblem
from schemas.canonical import Json, write_json

JSON_TYPE: Final = "application/json"


class Reply:
    """Sends the response of one request. Belongs to its task."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.request_id: str | None = None
        """Set once it is known; then every error carries it."""
        self.begun = False
        self.ended = False

    async def whole(
        self, status: int, body: bytes, headers: Mapping[str, str], media: str = JSON_TYPE
    ) -> None:
        """The complete response."""
        await self._head(status, {"Content-Type": media, "Content-Length": str(len(body)), **headers})
        self.ended = True
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def begin_stream(self, headers: Mapping[str, str]) -> None:
        """Status and headers of an event stream."""
        await self._head(200, {"Content-Type": MEDIA_TYPE, "Cache-Control": "no-store", **headers})

    async def events(self, data: bytes) -> None:
        """Some events. Waits while the caller reads slower than we write."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end_stream(self, data: bytes) -> None:
        """The last events; the response is complete."""
        self.ended = True
        await self._send({"type": "http.response.body", "body": data, "more_body": False})

    async def fail(self, problem: RequestProblem) -> None:
        """Tell the caller, in whichever way is still possible. Harmless when all was said."""
        if self.ended:
            return
        if self.begun:
            await self.end_stream(error_event(problem, self.request_id or ""))
            return
        headers = problem.headers()
        if self.request_id is not None:
            headers["X-Comity-Request"] = self.request_id
        body: dict[str, Json] = problem.body(self.request_id)
        await self.whole(problem.status, write_json(body), headers)

    async def _head(self, status: int, headers: Mapping[str, str]) -> None:
        self.begun = True
        raw = [(name.lower().encode(), header_text(value).encode()) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})
