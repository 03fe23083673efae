"""How long one run let its consumer wait, on the consumer's own clock: what the next ranking learns from.

A provider's word about its own time shows nowhere in here, but for a wait that its offer had stated before
anybody chose it. What reads the answer (our own application) may be slow as well: its time is told apart.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from broker.edge.replying.latency import NS_PER_MS
from broker.select.predict import Observed
from schemas.messages.answer import Usage


@dataclass(slots=True)
class Pace:
    """A run's frames as they come, and the time that was spent waiting for them."""

    frames: AsyncIterator[bytes] = field(repr=False)
    _awaited_ns: int = 0
    _read_ns: int = 0
    """Between frames: ours, and our application's."""
    _handed: int | None = None
    _first: tuple[int, int] | None = None
    """Both times when the answer began."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        asked = time.perf_counter_ns()
        if self._handed is not None:
            self._read_ns += asked - self._handed
        try:
            return await anext(self.frames)
        finally:
            self._handed = time.perf_counter_ns()
            self._awaited_ns += self._handed - asked

    def began(self) -> None:
        """The answer's first words are here."""
        self._first = self._first or (self._awaited_ns, self._read_ns)

    def observed(self, usage: Usage, *, input_tokens: int, size: int, rtt_ms: int, wait_ms: int) -> Observed:
        """What this run took. `input_tokens`: as estimated, 0 where nothing was; `wait_ms`: as was offered.

        Of a wait that the node states, only what its offer had said counts as one: the rest is slowness. An
        answer has no more tokens than bytes, whatever is stated; one that was read more slowly than it came
        says nothing of how fast it could have come.
        """
        first_ns, read_ns = self._first or (self._awaited_ns, self._read_ns)
        server_ms = max(0, first_ns // NS_PER_MS - rtt_ms)
        waited = min(usage.queue_ms, wait_ms, server_ms)
        answer_ns = self._awaited_ns - first_ns
        paced = self._read_ns - read_ns <= answer_ns
        return Observed(
            input_tokens=max(0, input_tokens - usage.cached_tokens),
            output_tokens=min(usage.output_tokens, size) if paced else 0,
            queue_ms=waited,
            prefill_ms=server_ms - waited,
            decode_ms=answer_ns // NS_PER_MS,
        )
