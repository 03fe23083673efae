"""Any OpenAI-compatible engine, beside the node: streamed chat completions over loopback or a socket.

Yields what the engine said as typed events. An engine that ends without saying how is an error
(`engine.lost`), never a normal end. Leaving the iteration closes the connection, which every engine
takes as a cancellation.
"""

from __future__ import annotations

import ipaddress
import json
import socket
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

import aiohttp
import msgspec

from schemas.errors import ConfigurationError, Refused, Undecided

MAX_EVENT_BYTES: Final = 1024 * 1024  # one server-sent event: a delta with logprobs is a few KiB
MAX_ERROR_BYTES: Final = 64 * 1024  # of an error answer
MAX_TELEMETRY_BYTES: Final = 1024 * 1024  # of /metrics or /slots
CONNECT_S: Final = 2.0  # s; the engine is on this machine
STALL_S: Final = 120.0  # s of silence from the engine: a long prompt on one slow core takes a minute
TELEMETRY_S: Final = 2.0  # s for one reading
MAX_TOGETHER: Final = 1024  # characters of texts that become one: a window of such frames is still little
RECEIVE_BYTES: Final = 256 * 1024  # held by the kernel for one answer: a slow reader soon slows the engine
_JSON: Final = {"Content-Type": "application/json"}


@dataclass(frozen=True, slots=True)
class EngineAddress:
    """Where the engine listens."""

    url: str
    """`http://host:port` or `unix:/path`."""
    key: str = field(default="", repr=False)

    @property
    def is_local(self) -> bool:
        """Loopback or a Unix socket: reachable from this machine alone."""
        if self.url.startswith("unix:"):
            return True
        host = urlsplit(self.url).hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False  # a name may resolve to anything


@dataclass(frozen=True, slots=True)
class Delta:
    """Text of the only choice: what the engine had said since the last look at it."""

    text: str
    deltas: int
    """Of the engine's own, mostly a token each."""


@dataclass(frozen=True, slots=True)
class Choices:
    """What is not plain text: OpenAI choices as the engine sent them, known members only."""

    choices: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Finished:
    """How it ended, and what it cost. The last event."""

    finish_reason: str
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    prefill_tps: float | None
    decode_tps: float | None


Event: TypeAlias = Delta | Choices | Finished


class EngineClient:
    """One engine. Owns a connection pool; `close` ends it."""

    def __init__(self, address: EngineAddress, *, connections: int) -> None:
        self.address = address
        split = urlsplit(address.url)
        if address.url.startswith("unix:"):
            connector: aiohttp.BaseConnector = aiohttp.UnixConnector(split.path, limit=connections)
            self._base = "http://engine"
        elif split.scheme in ("http", "https") and split.hostname:
            connector = aiohttp.TCPConnector(limit=connections, socket_factory=_socket)
            self._base = address.url.rstrip("/")
        else:
            raise ConfigurationError("engine.address", 'address = "http://127.0.0.1:8000" or "unix:/path"')
        headers = {"Authorization": f"Bearer {address.key}"} if address.key else {}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=STALL_S)
        self._session = aiohttp.ClientSession(connector=connector, headers=headers, timeout=timeout)

    async def close(self) -> None:
        await self._session.close()

    async def chat(self, body: Mapping[str, Any], *, plain: bool) -> AsyncGenerator[Event, None]:
        """Stream one chat completion of one choice.

        Raises `Refused` (`engine.context_length`, `engine.rejected`) when the engine will not run
        it, and `Undecided` (`engine.lost`, `engine.failed`, `engine.busy`) when it cannot.
        """
        reading = _Reading(plain)
        try:
            async with await self._post(body) as response:
                if response.status != 200:
                    raise _refusal(response.status, await response.content.read(MAX_ERROR_BYTES))
                async with aclosing(_lines(response)) as arriving:
                    async for lines in arriving:
                        for event in reading.take(lines):
                            yield event
                        if reading.failure:
                            raise reading.failure
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Undecided("engine.lost", f"the engine broke off: {type(error).__name__}") from None
        yield reading.end()

    async def _post(self, body: Mapping[str, Any]) -> aiohttp.ClientResponse:
        """Ask once; and once more where an idle connection turns out to have been closed meanwhile."""
        url, data = f"{self._base}/v1/chat/completions", json.dumps(body).encode("ascii")
        try:
            return await self._session.post(url, data=BytesIO(data), headers=_JSON)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, ConnectionResetError):
            return await self._session.post(url, data=BytesIO(data), headers=_JSON)

    async def get(self, path: str) -> bytes | None:
        """A telemetry page; None where the engine has none. Raises `Undecided` when it does not answer."""
        try:
            timeout = aiohttp.ClientTimeout(total=TELEMETRY_S)
            async with self._session.get(f"{self._base}{path}", timeout=timeout) as response:
                if response.status != 200:
                    return None
                return await response.content.read(MAX_TELEMETRY_BYTES)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Undecided("engine.silent", f"{path}: {type(error).__name__}") from None

    async def erase(self, slot: int) -> None:
        """Empty one slot of a llama.cpp server. Raises `Undecided`."""
        try:
            timeout = aiohttp.ClientTimeout(total=STALL_S)
            url = f"{self._base}/slots/{slot}?action=erase"
            async with self._session.post(url, json={}, timeout=timeout) as response:
                if response.status != 200:
                    raise Undecided("engine.erase", f"the engine answered {response.status}")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Undecided("engine.erase", type(error).__name__) from None


@dataclass(slots=True)
class _Piece:
    """What came at once, in order. Short texts next to each other are one delta."""

    _found: list[Delta | Choices] = field(default_factory=list)
    _texts: list[str] = field(default_factory=list)
    _length: int = 0

    def add(self, said: str | Choices) -> None:
        if isinstance(said, Choices):
            self._found = [*self.end(), said]
        elif said:
            if self._length + len(said) > MAX_TOGETHER:
                self.end()
            self._texts.append(said)
            self._length += len(said)

    def end(self) -> list[Delta | Choices]:
        """All of it, in order."""
        if self._texts:
            self._found.append(Delta("".join(self._texts), len(self._texts)))
            self._texts, self._length = [], 0
        return self._found


@dataclass(slots=True)
class _Reading:
    """The state of one stream while it is being read."""

    plain: bool
    failure: Undecided | None = None
    """Why the engine's words end here; what it had said before counts."""
    _finish: str | None = None
    _usage: dict[str, Any] = field(default_factory=dict)
    _timings: dict[str, Any] = field(default_factory=dict)
    _deltas: int = 0
    _done: bool = False

    def take(self, lines: list[bytes]) -> list[Delta | Choices]:
        """What some lines of a server-sent event stream say."""
        piece = _Piece()
        try:
            for line in lines:
                for choice in self._choices(line):
                    piece.add(self._said(choice))
        except Undecided as error:
            self.failure = error
        return piece.end()

    def _choices(self, line: bytes) -> list[dict[str, Any]]:
        if line.startswith(b"error:"):
            raise Undecided("engine.failed", "the engine failed while it answered")
        if not line.startswith(b"data:"):
            return []
        data = line[5:].strip()
        if data == b"[DONE]":
            self._done = True
            return []
        try:
            chunk = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise Undecided("engine.failed", "the engine sent something that is not JSON") from None
        if not isinstance(chunk, dict) or "error" in chunk:
            raise Undecided("engine.failed", "the engine failed while it answered")
        self._usage = _dict(chunk.get("usage")) or self._usage
        self._timings = _dict(chunk.get("timings")) or self._timings
        return [choice for choice in chunk.get("choices") or () if isinstance(choice, dict)]

    def _said(self, choice: dict[str, Any]) -> str | Choices:
        """Its text where a text is all that it is."""
        if reason := choice.get("finish_reason"):
            self._finish = str(reason)
        delta = {key: value for key, value in _dict(choice.get("delta")).items() if value is not None}
        if delta.keys() - {"role"}:
            self._deltas += 1
        if self.plain and delta.keys() <= {"role", "content"}:
            return str(delta.get("content", ""))
        return Choices([{"index": 0, "delta": delta, **_beside(choice)}])

    def end(self) -> Finished:
        """What the whole stream said. Raises `Undecided` when it did not say how it ended."""
        if not self._done or self._finish is None:
            raise Undecided("engine.lost", "the engine's answer broke off")
        details = _dict(self._usage.get("prompt_tokens_details"))
        return Finished(
            finish_reason=_reason(self._finish),
            input_tokens=_count(self._usage.get("prompt_tokens")),
            output_tokens=_count(self._usage.get("completion_tokens", self._deltas)),
            cached_tokens=_count(details.get("cached_tokens", self._timings.get("cache_n"))),
            prefill_tps=_rate(self._timings.get("prompt_per_second")),
            decode_tps=_rate(self._timings.get("predicted_per_second")),
        )


async def _lines(response: aiohttp.ClientResponse) -> AsyncGenerator[list[bytes], None]:
    """The lines of the stream: at each step those that have arrived whole."""
    rest = b""
    async for piece in response.content.iter_any():
        *lines, rest = (rest + piece).split(b"\n")
        if len(rest) > MAX_EVENT_BYTES:
            raise Undecided("engine.failed", "the engine sent an event without end")
        yield lines


def _refusal(status: int, body: bytes) -> Refused | Undecided:
    """The engine's refusal by kind; its text may quote the prompt and goes nowhere."""
    if status in (429, 503):
        return Undecided("engine.busy", f"the engine answered {status}")
    if status >= 500:
        return Undecided("engine.failed", f"the engine answered {status}")
    if b"exceed_context_size" in body or b"context_length_exceeded" in body or b"maximum context" in body:
        return Refused("engine.context_length", "the request is longer than the engine's context")
    return Refused("engine.rejected", f"the engine answered {status}")


def _beside(choice: dict[str, Any]) -> dict[str, Any]:
    return {key: choice[key] for key in ("logprobs", "finish_reason") if choice.get(key) is not None}


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else 0


def _rate(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and 0 < value < 1e7 else None


def _reason(text: str) -> str:
    known = ("stop", "length", "tool_calls", "content_filter", "function_call")
    return text if text in known else "other"


def _socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """A socket whose receive buffer does not grow: some kernels let it, to 32 MiB of an answer unread."""
    family, kind, protocol, _, _ = address
    made = socket.socket(family=family, type=kind, proto=protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
    return made
