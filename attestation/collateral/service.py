"""One vendor's web service: asked with patience, believed in nothing.

Answers are bounded; 429 and 5xx are waited out, a 404 is remembered, everything else gives up and says so.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Final

import httpx

from schemas.errors import Undecided

MAX_ANSWER_BYTES: Final = 256 * 1024  # the largest real answer, TCB info of a TDX platform, has 32 KiB
TIMEOUT: Final = 20.0  # seconds for one answer; AMD's service makes certificates on demand
ATTEMPTS: Final = 5
FIRST_PAUSE: Final = 1.0  # seconds; doubled each time, with full jitter
LONGEST_PAUSE: Final = 60.0  # seconds, also for Retry-After: beyond it, give up and say so
NOT_FOUND_FOR: Final = 600.0  # seconds that a 404 is remembered


@dataclass(frozen=True, slots=True)
class Answer:
    """What one request brought."""

    status: int
    headers: httpx.Headers
    body: bytes


@dataclass(slots=True)
class Service:
    """Owned by one process; many tasks may ask at once."""

    client: httpx.AsyncClient
    base_url: str
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    clock: Callable[[], float] = time.time
    _absent: dict[str, float] = field(default_factory=dict)

    async def get(self, path: str) -> Answer:
        """One answer, with patience for 429 (RFC 9110 10.2.3), none for 404. Raises `Undecided`."""
        if self.clock() - self._absent.get(path, -NOT_FOUND_FOR) < NOT_FOUND_FOR:
            raise Undecided("collateral.not_found", f"{path}: the service did not have it a moment ago")
        trouble = "no answer"
        for attempt in range(ATTEMPTS):
            wait = random.uniform(0, FIRST_PAUSE * 2**attempt)  # noqa: S311 - jitter, not a secret
            answer: Answer | None = None
            try:
                answer = await self._once(path)
            except httpx.HTTPError as error:
                trouble = type(error).__name__
            asked = None
            if answer is not None:
                if answer.status == httpx.codes.OK:
                    return answer
                if answer.status == httpx.codes.NOT_FOUND:
                    self._absent[path] = self.clock()
                    raise Undecided("collateral.not_found", f"{path}: the service has no such thing")
                trouble = f"status {answer.status}"
                if answer.status != httpx.codes.TOO_MANY_REQUESTS and answer.status < 500:
                    break
                asked = _retry_after(answer.headers.get("retry-after"), self.clock())
            if asked is not None and asked > LONGEST_PAUSE:
                trouble += f", asks to wait {asked:.0f} s"
                break
            if attempt + 1 < ATTEMPTS:
                await self.sleep(min(LONGEST_PAUSE, wait if asked is None else max(asked, wait)))
        raise Undecided("collateral.unavailable", f"{path}: {trouble}")

    async def _once(self, path: str) -> Answer:
        """A path is asked of this service; an address of its own where it stands elsewhere."""
        url = path if "://" in path else self.base_url + path
        async with self.client.stream("GET", url, timeout=TIMEOUT) as answer:
            body = b""
            async for part in answer.aiter_bytes():
                body += part
                if len(body) > MAX_ANSWER_BYTES:
                    raise Undecided("collateral.unavailable", f"{path}: more than {MAX_ANSWER_BYTES} bytes")
            return Answer(answer.status_code, answer.headers, body)


def _retry_after(header: str | None, now: float) -> float | None:
    """Seconds, from either form of Retry-After (RFC 9110 10.2.3)."""
    if header is None:
        return None
    if header.isdecimal():
        return float(header[:9])
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - now)
    except (ValueError, TypeError):
        return None
