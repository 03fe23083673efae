"""One model served by one engine: slots by scope, the engine's stream, and what was measured.

The signed header decides the scope, this file turns it into what the engine understands, and no
field of the body can: pinned slots for llama.cpp, a cache salt for vLLM, nothing for an engine that
its owner started without a prefix cache.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from domain_agent.node.engine.body import EngineRequest
from domain_agent.node.engine.client import Choices, Delta, EngineClient, Event, Finished
from domain_agent.node.engine.slots import Scope, Seat, SlotTable
from domain_agent.node.engine.telemetry import Health, Reading, SpeedMeter, look
from schemas.canonical import length_prefixed, sha256
from schemas.errors import Undecided

WARM_UP: Final = (
    b'{"messages":[{"role":"user","content":"'
    + b"Reply with the numbers from one to twenty, in words. " * 4
    + b'"}],"temperature":0}'
)
"""About fifty tokens of prompt: enough for a prefill rate, done in a second on one slow core."""
WARM_UP_TOKENS: Final = 16
WARM_UP_S: Final = 60.0  # seconds; a core shared by ten programs still makes it

PrefixCache = Literal["slots", "salted", "off"]


@dataclass(slots=True)
class Clockwork:
    """When a run got its slot, in monotonic seconds; None while it waits."""

    asked: float = field(default_factory=time.monotonic)
    seated: float | None = None

    @property
    def queue_ms(self) -> int:
        return round(1000 * ((self.seated or time.monotonic()) - self.asked))

    @property
    def compute_ms(self) -> int:
        return round(1000 * (time.monotonic() - self.seated)) if self.seated else 0


class Serving:
    """The engine as a run sees it. Owns the client and the slot table."""

    def __init__(self, client: EngineClient, *, slots: int, prefix_cache: PrefixCache) -> None:
        self.client = client
        self.slots = SlotTable(slots, erase=client.erase if prefix_cache == "slots" else None)
        self.speed: dict[str, SpeedMeter] = {}
        """Per model name."""
        self._prefix_cache = prefix_cache

    async def close(self) -> None:
        await self.slots.close()
        await self.client.close()

    async def run(
        self,
        request: EngineRequest,
        *,
        model: str,
        max_tokens: int,
        scope: Scope | None,
        retention_s: int,
        clock: Clockwork,
    ) -> AsyncGenerator[Event, None]:
        """Wait for a slot, then stream every choice, one after the other. Ends with one `Finished`.

        Raises as `EngineClient.chat`, and `Undecided` (`node.busy`) when too many wait.
        """
        async with self.slots.seat(scope, retention_s=retention_s) as seat:
            clock.seated = time.monotonic()
            finished: list[Finished] = []
            left = max_tokens
            for index in range(request.choices):
                body = _body(request, index) | self._isolation(seat, scope, index)
                body |= {"model": model, "max_tokens": min(request.max_tokens or left, left)}
                async with aclosing(self.client.chat(body, plain=request.plain)) as events:
                    async for event in events:
                        if isinstance(event, Finished):
                            finished.append(event)
                        else:
                            yield _numbered(event, index)
                left -= finished[-1].output_tokens
                if left <= 0:
                    break
        self._note(model, finished)
        yield _sum(finished)

    async def warm_up(self, model: str, request: EngineRequest) -> None:
        """Measure the rates once. Raises `Undecided` or `Refused` when the engine does not answer."""
        run = self.run(
            request, model=model, max_tokens=WARM_UP_TOKENS, scope=None, retention_s=0, clock=Clockwork()
        )
        try:
            async with asyncio.timeout(WARM_UP_S), aclosing(run) as events:
                async for _ in events:
                    pass
        except TimeoutError:
            raise Undecided("engine.start", f"no answer to a short prompt in {WARM_UP_S:g} s") from None

    async def look(self) -> Reading:
        """The engine's own numbers; where it has none, what this node gave it.

        One that is too busy to say is not down: its runs would break off and give their slots back.
        """
        reading = await look(self.client)
        health: Health = "DEGRADED" if reading.health == "DOWN" and self.slots.busy else reading.health
        busy = self.slots.busy if reading.busy is None else max(reading.busy, 0)
        return Reading(health, busy, (reading.queued or 0) + self.slots.waiting)

    def _isolation(self, seat: Seat, scope: Scope | None, index: int) -> dict[str, Any]:
        match self._prefix_cache:
            case "slots":
                return {"id_slot": seat.index, "cache_prompt": seat.reuse or index > 0}
            case "salted":
                return {"cache_salt": _salt(scope).hex()}
        return {}

    def _note(self, model: str, finished: list[Finished]) -> None:
        meter = self.speed.setdefault(model, SpeedMeter())
        for run in finished:
            meter.note(
                fresh_tokens=run.input_tokens - run.cached_tokens,
                output_tokens=run.output_tokens,
                prefill_tps=run.prefill_tps,
                decode_tps=run.decode_tps,
            )


def _body(request: EngineRequest, index: int) -> dict[str, Any]:
    body = {**request.fields, "stream": True, "stream_options": {"include_usage": True}}
    if request.seed is not None:
        body["seed"] = request.seed + index
    return body


def _salt(scope: Scope | None) -> bytes:
    """The scope's name for the engine's cache; without a scope, one that nobody will ever use again."""
    if scope is None:
        return secrets.token_bytes(32)
    parts = (scope.owner.encode(), scope.kind.encode(), scope.key.encode())
    return sha256(length_prefixed(b"comity scope v1", *parts))


def _numbered(event: Delta | Choices, index: int) -> Delta | Choices:
    if isinstance(event, Choices) and index:
        return Choices([{**choice, "index": index} for choice in event.choices])
    return event


def _sum(finished: list[Finished]) -> Finished:
    if len(finished) == 1:
        return finished[0]
    return Finished(
        finish_reason=finished[-1].finish_reason,
        input_tokens=finished[0].input_tokens,
        output_tokens=sum(run.output_tokens for run in finished),
        cached_tokens=finished[0].cached_tokens,
        prefill_tps=None,
        decode_tps=None,
    )
