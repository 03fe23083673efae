"""One client's connection while nobody knows yet who it is: bounded in bytes and in time.

uvicorn gathers a head for as long as it comes and waits for one for ever, so that anybody could fill the
memory or hold every socket without a key. And what cannot be read as HTTP gets our shape of error.
"""

from __future__ import annotations

import asyncio
from typing import Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from broker.edge.replying.reply import JSON_TYPE
from broker.problems import Invalid
from schemas.canonical import write_json

MAX_HEAD_BYTES: Final = 64 * 1024  # request line and headers; twelve tags of 4 KiB and a long token fit
HEAD_S: Final = 30.0  # seconds for a head to arrive, from the connection or from its first byte


class EdgeConnection(HttpToolsProtocol):
    """uvicorn's connection with limits on a request's head. Once that has come, `chat` sets the limits."""

    _head_open = True
    """Whether the next bytes may belong to a head."""
    _head_bytes = 0
    """Read for it since it began, whatever the parser still keeps; the first read is not counted."""
    _head_parsed = 0
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._head_came()

    def data_received(self, data: bytes) -> None:
        """Count what a head that never ends would hold before the parser says a word about it."""
        if self._head_open:
            self._head_bytes += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._head_open and self._head_bytes > MAX_HEAD_BYTES:
            self.send_400_response(_TOO_LONG)
        elif self._is_idle() and self._head_timer is None:
            self._await_head()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_open, self._head_bytes, self._head_parsed = True, 0, 0

    def on_url(self, url: bytes) -> None:
        self._bound(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._bound(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._head_came()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """The last word on a connection that nothing further can be read from; never inside an answer."""
        if self._is_idle():
            too_long = max(self._head_bytes, self._head_parsed) > MAX_HEAD_BYTES
            code, text = ("request.head_too_long", _TOO_LONG) if too_long else ("request.http", msg)
            body = write_json(Invalid(code, text, param="head").body())
            head = f"content-type: {JSON_TYPE}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
            self.transport.write(STATUS_LINE[400] + head.encode("ascii") + body)
        self._head_came()
        self.transport.close()

    def _bound(self, size: int) -> None:
        """Refuse a head that came in one piece; the parser turns what is raised here into a 400."""
        self._head_parsed += size
        if self._head_parsed > MAX_HEAD_BYTES:
            raise ValueError(_TOO_LONG)

    def _is_idle(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle  # none before the first head
        return cycle is None or cycle.response_complete

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_S, self._head_is_late)

    def _head_came(self) -> None:
        self._head_open, self._head_bytes = False, 0
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self._is_idle() and not self.transport.is_closing():
            self.transport.close()


_TOO_LONG: Final = f"request line and headers have more than {MAX_HEAD_BYTES} bytes"
