"""Named numbers from an engine, and how fast it has been. Nothing else of its pages is read.

Engines print prompts and parameters beside their gauges; a name that is not listed here is not even
looked at (session.md 4). Rates are measured by the node: one short warm-up at start, then an
exponentially weighted mean over what really ran.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from domain_agent.node.engine.client import EngineClient
from schemas.errors import Undecided

BUSY: Final = ("llamacpp:requests_processing", "vllm:num_requests_running")
QUEUED: Final = ("llamacpp:requests_deferred", "vllm:num_requests_waiting")
WEIGHT: Final = 0.2  # of the newest run in the mean: ten runs forget the warm-up
MIN_TOKENS: Final = 4  # a rate over fewer tokens is noise

Health = Literal["HEALTHY", "DEGRADED", "DOWN"]
_SAMPLE = re.compile(
    r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{[^}\n]*\})?[ \t]+([-+0-9.eE]{1,32})(?:[ \t]+-?[0-9]+)?$"
)
_AVAILABLE = re.compile(r"^MemAvailable:\s+(\d{1,15}) kB$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at the engine."""

    health: Health
    busy: int | None
    """Slots that are processing; None where the engine does not say."""
    queued: int | None


def read_metrics(text: str, names: tuple[str, ...]) -> int | None:
    """The sum over all labels of the first of these names that the page has; None when it has none."""
    for name in names:
        values = [
            value
            for match in map(_SAMPLE.match, text.splitlines())
            if match and match[1] == name and (value := _finite(match[2])) is not None
        ]
        if values:
            return int(min(sum(values), 2**31))
    return None


def read_slots(data: bytes) -> int | None:
    """How many slots are processing, by llama.cpp's `/slots`; None when it is something else."""
    try:
        slots = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(slots, list):
        return None
    return sum(1 for slot in slots if isinstance(slot, dict) and slot.get("is_processing") is True)


def _finite(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


async def look(engine: EngineClient) -> Reading:
    """Ask the engine for its health, metrics and slots. Never raises: silence about health is `DOWN`.

    Metrics and slots may have to wait for a long prompt to be worked in; they are missing then.
    """
    health, metrics, slots = await asyncio.gather(
        *(engine.get(path) for path in ("/health", "/metrics", "/slots")), return_exceptions=True
    )
    if isinstance(health, Undecided):
        return Reading("DOWN", None, None)
    text = metrics.decode("utf-8", "replace") if isinstance(metrics, bytes) else ""
    busy = read_slots(slots) if isinstance(slots, bytes) else None
    return Reading(
        "HEALTHY" if health is not None else "DEGRADED",
        busy if busy is not None else read_metrics(text, BUSY),
        read_metrics(text, QUEUED),
    )


def available_memory_mb(path: Path = Path("/proc/meminfo")) -> int:
    """Memory that the machine could still give, in MiB; 0 where the system does not say."""
    try:
        match = _AVAILABLE.search(path.read_text("ascii", "replace"))
    except OSError:
        return 0
    return int(match[1]) // 1024 if match else 0


class SpeedMeter:
    """Prefill and decode rates of one model in tokens per second."""

    def __init__(self) -> None:
        self._prefill: float | None = None
        self._decode: float | None = None

    @property
    def prefill_tps(self) -> int:
        return int(self._prefill or 0)

    @property
    def decode_tps(self) -> int:
        return int(self._decode or 0)

    def note(
        self, *, fresh_tokens: int, output_tokens: int, prefill_tps: float | None, decode_tps: float | None
    ) -> None:
        """One run's rates. Runs too short to measure change nothing."""
        if prefill_tps is not None and fresh_tokens >= MIN_TOKENS:
            self._prefill = _mean(self._prefill, prefill_tps)
        if decode_tps is not None and output_tokens >= MIN_TOKENS:
            self._decode = _mean(self._decode, decode_tps)


def _mean(before: float | None, now: float) -> float:
    return now if before is None else before + WEIGHT * (now - before)
