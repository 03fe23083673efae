"""A streamed answer, read as bytes: what the stock client hides about how a stream ends."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx

DONE = "[DONE]"


@dataclass(slots=True)
class Streamed:
    """One stream, as far as it was read."""

    status: int = 0
    headers: httpx.Headers = field(default_factory=httpx.Headers)
    text: str = ""
    events: list[dict[str, Any]] = field(default_factory=list)
    done: bool = False
    """Whether `[DONE]` came."""
    after: int = 0
    """Events after `[DONE]` or after an error: there are never any."""

    @property
    def error(self) -> dict[str, Any] | None:
        """The error that ended it."""
        return next((event["error"] for event in self.events if "error" in event), None)

    @property
    def code(self) -> str | None:
        """Comity's own code in that error."""
        return self.error["comity"]["code"] if self.error else None

    @property
    def comity(self) -> dict[str, Any]:
        """The member of the last chunk."""
        found: dict[str, Any] = next(event["comity"] for event in self.events if "comity" in event)
        return found

    @property
    def complete(self) -> bool:
        """It ended as a complete answer, and said nothing afterwards."""
        return self.done and self.error is None and not self.after

    @property
    def failed(self) -> bool:
        """It ended in type: an error, no `[DONE]`, and nothing afterwards."""
        return self.error is not None and not self.done and not self.after

    def take(self, data: str) -> None:
        if self.done or self.error:
            self.after += 1
        if data == DONE:
            self.done = True
            return
        event = json.loads(data)
        self.events.append(event)
        for choice in event.get("choices", []):
            self.text += choice["delta"].get("content") or ""


def request(text: str, *, policy: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """A body for a plain HTTP client; public data unless `policy` says otherwise."""
    return {
        "model": "chat.small",
        "messages": [{"role": "user", "content": text}],
        "comity": {"policy": {"data_class": "public"} if policy is None else policy},
        "stream": True,
        **more,
    }


async def lines(response: httpx.Response) -> AsyncIterator[str]:
    """The `data:` of each event."""
    async for line in response.aiter_lines():
        if line.startswith("data: "):
            yield line.removeprefix("data: ")


async def read(http: httpx.AsyncClient, body: dict[str, Any]) -> Streamed:
    """One stream from its first to its last byte; an answer that is none has its error all the same."""
    found = Streamed()
    async with http.stream("POST", "/chat/completions", json=body) as response:
        found.status, found.headers = response.status_code, response.headers
        if response.headers["content-type"].startswith("application/json"):
            await response.aread()
            found.events.append(response.json())
            return found
        async for data in lines(response):
            found.take(data)
    return found
