"""The stopwatch of a run, by a clock that the test holds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from broker.observe import pace as watched
from broker.observe.pace import Pace
from broker.select.predict import Observed
from schemas.messages.answer import Usage

MS = 1_000_000


class Clock:
    """Stands still until somebody passes time."""

    def __init__(self) -> None:
        self.now_ns = 0

    def perf_counter_ns(self) -> int:
        return self.now_ns

    def passes(self, milliseconds: int) -> None:
        self.now_ns += milliseconds * MS


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    held = Clock()
    monkeypatch.setattr(watched, "time", held)
    return held


def usage(**changes: int) -> Usage:
    values = {"input_tokens": 9, "output_tokens": 40, "cached_tokens": 0, "queue_ms": 0, "compute_ms": 0}
    return Usage(**{**values, **changes})


async def watch(clock: Clock, waits_ms: list[int], *, reading_ms: int = 0) -> Pace:
    """Frames that take so long to come, and are read so slowly; the second begins the answer."""

    async def frames() -> AsyncIterator[bytes]:
        for wait in waits_ms:
            clock.passes(wait)
            yield b"f"

    pace = Pace(frames())
    async for _ in pace:
        clock.passes(reading_ms)
        if pace._awaited_ns >= sum(waits_ms[:2]) * MS:
            pace.began()
    return pace


def observed(pace: Pace, said: Usage | None = None, **changes: int) -> Observed:
    asked: dict[str, Any] = {"input_tokens": 300, "size": 500, "rtt_ms": 20, "wait_ms": 100}
    return pace.observed(said or usage(), **{**asked, **changes})


async def test_a_run_divides_into_road_prompt_and_answer(clock: Clock) -> None:
    pace = await watch(clock, [10, 210, 300, 100])
    assert observed(pace) == Observed(300, 40, queue_ms=0, prefill_ms=200, decode_ms=400)


async def test_a_wait_counts_as_far_as_it_was_offered_and_the_rest_is_slowness(clock: Clock) -> None:
    """A node that calls all its slowness waiting would be forgiven with the next offer."""
    pace = await watch(clock, [10, 510, 100])
    assert observed(pace, usage(queue_ms=70)).queue_ms == 70
    liar = observed(pace, usage(queue_ms=86_400_000))
    assert (liar.queue_ms, liar.prefill_ms) == (100, 400)
    brief = observed(pace, usage(queue_ms=9_000), wait_ms=9_000)
    assert (brief.queue_ms, brief.prefill_ms) == (500, 0), "nor did it wait longer than we did"


async def test_no_answer_has_more_tokens_than_bytes(clock: Clock) -> None:
    pace = await watch(clock, [10, 10, 1_000])
    assert observed(pace, usage(output_tokens=2**40), size=50).output_tokens == 50


async def test_tokens_from_a_cache_took_no_prefill(clock: Clock) -> None:
    pace = await watch(clock, [10, 10])
    assert observed(pace, usage(cached_tokens=100)).input_tokens == 200
    assert observed(pace, usage(cached_tokens=2**40)).input_tokens == 0


async def test_a_slow_reader_is_not_the_providers_fault_nor_its_merit(clock: Clock) -> None:
    slow = observed(await watch(clock, [10, 110, 50, 50, 50], reading_ms=10_000))
    assert (slow.output_tokens, slow.prefill_ms) == (0, 100)
    brisk = observed(await watch(clock, [10, 110, 50, 50, 50], reading_ms=10))
    assert (brisk.output_tokens, brisk.decode_ms) == (40, 150)


async def test_a_run_without_an_answer_has_its_time_and_no_rate(clock: Clock) -> None:
    pace = await watch(clock, [30])
    assert observed(pace, usage(output_tokens=0)) == Observed(300, 0, 0, prefill_ms=10, decode_ms=0)


async def test_a_stream_that_breaks_breaks_here_too(clock: Clock) -> None:
    async def frames() -> AsyncIterator[bytes]:
        yield b"f"
        raise ConnectionError

    pace = Pace(frames())
    assert await anext(pace) == b"f"
    with pytest.raises(ConnectionError):
        await anext(pace)
