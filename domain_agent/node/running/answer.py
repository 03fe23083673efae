"""Sealing an answer: the run nonce first, then parts in order, the end marker in the final chunk.

The first text leaves at once, later ones wait at most 20 ms for company; silence is broken by a
sealed keepalive. Everything sent as text or choices is what the output commitment covers.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Final

from domain_agent.node.engine.client import Choices, Delta
from domain_agent.node.running.order import Order
from schemas import seal
from schemas.errors import Refused
from schemas.messages import answer
from schemas.messages.answer import EndOfRun, tag

MAX_OUTPUT_BYTES: Final = 16 * 1024 * 1024  # of one answer: a million tokens of text
MAX_PART_BYTES: Final = seal.MAX_CHUNK_TEXT - 1  # beside the part's kind
COALESCE_S: Final = answer.COALESCE_MS / 1000

Send = Callable[[bytes], Awaitable[None]]
"""Sends one frame when the reader has credit for it; raises when nobody will read it any more."""


class AnswerWriter:
    """The answer of one run. Not safe for several tasks: the run alone writes."""

    def __init__(self, send: Send, order: Order) -> None:
        self._send = send
        self._order = order
        self._nonce = secrets.token_bytes(seal.RUN_NONCE_BYTES)
        self._sealer = seal.answer_sealer(order.secret, order.digest, order.sealed_secret, self._nonce)
        self._buffer = bytearray()
        self._output = bytearray()
        self._flush_at: float | None = None
        self._sent_at = time.monotonic()
        self.deltas = 0
        """Text deltas and choice events that the engine gave: what is counted when it broke off."""

    async def start(self) -> None:
        """The node's random bytes, first of all."""
        await self._send(tag(answer.RUN, self._nonce))
        self._sent_at = time.monotonic()

    @property
    def has_output(self) -> bool:
        return bool(self._output)

    @property
    def commitment(self) -> str:
        """Keyed commitment to every text and choices part so far, in order."""
        return seal.output_commitment(self._order.secret, bytes(self._output)).hex()

    def patience(self, now: float) -> float:
        """Seconds until `due` wants to be called."""
        at = self._sent_at + answer.KEEPALIVE_S if self._flush_at is None else self._flush_at
        return max(0.0, at - now)

    async def add(self, event: Delta | Choices, now: float) -> None:
        """Take what the engine gave; send it now or soon. Raises `Refused` (`node.output_bytes`)."""
        first = not self._output
        self.deltas += event.deltas if isinstance(event, Delta) else 1
        if isinstance(event, Choices):
            await self._add_choices(event)
            return
        text = event.text.encode("utf-8", "replace")
        self._note(text)
        self._buffer += text
        if first or len(self._buffer) >= MAX_PART_BYTES or (self._flush_at and now >= self._flush_at):
            await self.flush()
        elif self._flush_at is None:
            self._flush_at = now + COALESCE_S

    async def due(self, now: float) -> None:
        """Flush what waited long enough, or say that we live."""
        if self._flush_at is not None:
            if now >= self._flush_at:
                await self.flush()
        elif now >= self._sent_at + answer.KEEPALIVE_S:
            await self._part(answer.KEEPALIVE, b"")

    async def flush(self) -> None:
        """Send the text that waits, in parts that each end between two characters."""
        self._flush_at = None
        while self._buffer:
            cut = _character_end(self._buffer, MAX_PART_BYTES)
            part, self._buffer = bytes(self._buffer[:cut]), self._buffer[cut:]
            await self._part(answer.TEXT, part)

    async def finish(self, end: EndOfRun) -> None:
        """The end marker in the final chunk; nothing can follow it."""
        await self.flush()
        chunk = self._sealer.seal(tag(answer.END, end.write()), final=True)
        await self._send(tag(answer.CHUNK, chunk))

    async def statement(self, envelope: bytes) -> None:
        """The same statement in the clear, for our own border."""
        await self._send(tag(answer.STATEMENT, envelope))

    async def _add_choices(self, event: Choices) -> None:
        await self.flush()
        data = json.dumps(event.choices, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
        if len(data) > MAX_PART_BYTES:
            raise Refused("node.choice_bytes", "the engine gave a choice that no chunk can hold")
        self._note(data)
        await self._part(answer.CHOICES, data)

    def _note(self, content: bytes) -> None:
        if len(self._output) + len(content) > MAX_OUTPUT_BYTES:
            raise Refused("node.output_bytes", f"an answer has at most {MAX_OUTPUT_BYTES} bytes")
        self._output += content

    async def _part(self, kind: bytes, content: bytes) -> None:
        chunk = self._sealer.seal(tag(kind, content))
        await self._send(tag(answer.CHUNK, chunk))
        self._sent_at = time.monotonic()


def _character_end(data: bytearray, limit: int) -> int:
    """The largest cut at or below `limit` that does not split a UTF-8 character."""
    if len(data) <= limit:
        return len(data)
    cut = limit
    while cut > 0 and data[cut] & 0xC0 == 0x80:
        cut -= 1
    return cut
