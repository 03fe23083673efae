"""What a plan will take: speeds and waits, as they were seen, else read from the summary's bands.

Exact decimals throughout, so that a prediction replays bit for bit. The table is owned by the
broker's event loop; a restart begins again from the bands, which claim less than was measured. What was
seen grows old: a domain that was slow or full once is not shunned for it for ever. Runs correct a domain's
word downwards alone: one that is slower than it says is found out, and none buys rank with bursts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, TypeAlias, TypeVar

from schemas.descriptors.request import RequestDescriptor
from schemas.descriptors.summary import Cell

DEFAULT_RTT_MS: Final = 50  # milliseconds assumed for a peer never measured: a wide-area guess
DEFAULT_RATE_TPS: Final = 10  # tokens a second assumed where a domain discloses none
FULL_QUEUE_MS: Final = Decimal(2_000)  # wait assumed where no slot is free and none was observed
COLD_START_MS: Final = Decimal(5_000)  # loading a model that no node has resident
BYTES_PER_MS: Final = 12_500  # 100 Mbit/s: a modest link between domains
EXPECTED_OUTPUT_TOKENS: Final = 256  # answers rarely use their whole limit; price is bound by the limit
TAIL_PERCENTILE: Final = 90  # from here on the advertised p95 counts, not only the mean
LEARNING: Final = Decimal("0.25")  # weight of the newest observation; the first ones weigh more
OUTLIER: Final = 4  # times slower than known is the most that one run can say: a hiccup is no machine
LEAST_PROMPT: Final = 256  # input tokens; below, the time to the first token is road and handing over
LEAST_ANSWER: Final = 16  # output tokens; below, it is frames that are timed, which go out every 20 ms
MAX_ERROR: Final = Decimal(10)  # relative error that counts at most: ten times off says it all
MAX_TRACKED: Final = 20_000  # (domain, capability) pairs; a federation has far fewer
LEARNED_S: Final = 600.0  # seconds that a measured speed counts; then a domain may show itself anew
WAIT_S: Final = 30.0  # seconds that a stated wait counts; a summary lives as long
MS: Final = Decimal("0.001")  # times are kept to the microsecond
TPS: Final = Decimal("0.001")


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast one capability of one domain has been lately."""

    prefill_tps: Decimal
    decode_tps: Decimal
    queue_ms: Decimal
    samples: int = 0
    """Observed runs; 0 means that the rates come from the summary."""


@dataclass(frozen=True, slots=True)
class Learned:
    """What runs showed of one capability of one domain."""

    prefill_tps: Decimal
    decode_tps: Decimal
    samples: int
    at: float
    """When the newest of them ended; POSIX seconds."""


@dataclass(frozen=True, slots=True)
class Waited:
    """The wait for one capability of one domain, as it was stated or seen."""

    queue_ms: Decimal
    at: float
    """POSIX seconds."""


Name: TypeAlias = tuple[str, str]
"""A domain, and the label of a capability of it."""
S = TypeVar("S", Learned, Waited)


@dataclass(frozen=True, slots=True)
class Observed:
    """What one finished run took."""

    input_tokens: int
    """As they were estimated for its prediction, less those taken from a cache; 0: not known."""
    output_tokens: int
    queue_ms: int
    prefill_ms: int
    decode_ms: int


@dataclass(frozen=True, slots=True)
class Prediction:
    """Times of one plan at the percentile that was asked for, milliseconds."""

    ttft_ms: Decimal
    tpot_ms: Decimal
    total_ms: Decimal
    """To the last token of the longest answer."""

    def as_json(self) -> dict[str, str]:
        return {
            "ttftMs": str(self.ttft_ms),
            "tpotMs": str(self.tpot_ms),
            "totalMs": str(self.total_ms),
        }


@dataclass(slots=True)
class Predictor:
    """The profile table, `(domain, capability) → speeds`, with its own errors."""

    _learned: dict[Name, Learned] = field(default_factory=dict)
    _waited: dict[Name, Waited] = field(default_factory=dict)
    _rtts_ms: dict[str, Decimal] = field(default_factory=dict)
    _errors: dict[str, Decimal] = field(default_factory=dict)

    @classmethod
    def of(cls, learned: Mapping[Name, Learned], waited: Mapping[Name, Waited]) -> Predictor:
        """One that has seen this and no more."""
        return cls(dict(learned), dict(waited))

    def learned(self, domain: str, label: str, at: float) -> Learned | None:
        """What runs showed, while it counts. at: POSIX seconds."""
        known = self._learned.get((domain, label))
        return known if known and at - known.at <= LEARNED_S else None

    def waited(self, domain: str, label: str, at: float) -> Waited | None:
        """The last wait, while it counts. at: POSIX seconds."""
        known = self._waited.get((domain, label))
        return known if known and at - known.at <= WAIT_S else None

    def speed(self, domain: str, cell: Cell, at: float) -> Speed:
        """What was seen lately, else the cell's bands. at: POSIX seconds."""
        told = advertised(cell)
        rates = self.learned(domain, cell.label, at) or told
        wait = self.waited(domain, cell.label, at) or told
        return Speed(rates.prefill_tps, rates.decode_tps, wait.queue_ms, rates.samples)

    def rtts_ms(self) -> Mapping[str, int]:
        """Round trips per domain, whole milliseconds, rounded up."""
        return {domain: math.ceil(rtt) for domain, rtt in self._rtts_ms.items()}

    def errors(self) -> Mapping[str, Decimal]:
        """Moving mean of the relative error per term (`network`, `prefill`, `decode`, `queue`)."""
        return dict(self._errors)

    def observe_rtt(self, domain: str, milliseconds: Decimal) -> None:
        """Take in one measured round trip; what is no time is left out."""
        if not milliseconds.is_finite() or milliseconds < 0:
            return
        old = self._rtts_ms.get(domain)
        if old is not None:
            self._note_error("network", old, milliseconds)
        if old is not None or len(self._rtts_ms) < MAX_TRACKED:
            self._rtts_ms[domain] = _ewma(old, milliseconds, MS)

    def observe_queue(self, domain: str, cell: Cell, milliseconds: int, at: float) -> None:
        """The wait that an offer stated: fresher than any summary, so it replaces what was known."""
        _keep(self._waited, (domain, cell.label), Waited(Decimal(milliseconds), at))

    def observe(self, domain: str, cell: Cell, run: Observed, at: float) -> None:
        """Take in one finished run. Parts that took no time or had few tokens teach nothing."""
        speed, told = self.speed(domain, cell, at), advertised(cell)
        prefill = _rate(run.input_tokens, run.prefill_ms, least=LEAST_PROMPT)
        decode = _rate(run.output_tokens, run.decode_ms, least=LEAST_ANSWER)
        queue = Decimal(max(0, run.queue_ms))
        self._note_error("prefill", speed.prefill_tps, prefill)
        self._note_error("decode", speed.decode_tps, decode)
        self._note_error("queue", speed.queue_ms, queue)
        weight = max(LEARNING, 1 / Decimal(speed.samples + 2))  # the domain's own word is the first sample
        learned = Learned(
            prefill_tps=_learn(speed.prefill_tps, prefill, told.prefill_tps, weight),
            decode_tps=_learn(speed.decode_tps, decode, told.decode_tps, weight),
            samples=speed.samples + 1,
            at=at,
        )
        wait = _ewma(None if speed.samples == 0 else speed.queue_ms, queue, MS)
        _keep(self._learned, (domain, cell.label), learned)
        _keep(self._waited, (domain, cell.label), Waited(wait, at))

    def _note_error(self, term: str, predicted: Decimal, seen: Decimal | None) -> None:
        if seen is None or seen <= 0:
            return
        error = min(MAX_ERROR, abs(predicted - seen) / seen).quantize(TPS)
        self._errors[term] = _ewma(self._errors.get(term), error, TPS)


def advertised(cell: Cell) -> Speed:
    """The speeds that a cell discloses; cautious values for what it does not."""
    return Speed(
        prefill_tps=Decimal(cell.prefill_tps or DEFAULT_RATE_TPS),
        decode_tps=Decimal(cell.decode_tps or DEFAULT_RATE_TPS),
        queue_ms=FULL_QUEUE_MS if cell.headroom == 0 else Decimal(0),
    )


def predict(
    request: RequestDescriptor, cell: Cell, speed: Speed, *, rtt_ms: int, reusable_tokens: int = 0
) -> Prediction:
    """Times of serving the request there.

    The tail that the domain advertises counts where the caller asked for a tail.
    """
    fresh = max(0, request.input_tokens - reusable_tokens)
    ttft = network_ms(rtt_ms, request.body_bytes) + speed.queue_ms + 1000 * fresh / speed.prefill_tps
    tpot = 1000 / speed.decode_tps
    if cell.cold:
        ttft += COLD_START_MS
    if request.slo.percentile >= TAIL_PERCENTILE:
        ttft = max(ttft, Decimal(rtt_ms + (cell.ttft_p95_ms or 0)))
        tpot = max(tpot, Decimal(cell.tpot_p95_ms or 0))
    total = ttft + request.max_output_tokens * tpot
    return Prediction(ttft.quantize(MS), tpot.quantize(MS), total.quantize(MS))


def network_ms(rtt_ms: int, body_bytes: int) -> Decimal:
    """Round trip and the request's bytes over the road; nothing inside our own domain."""
    if rtt_ms == 0:
        return Decimal(0)
    return (rtt_ms + Decimal(body_bytes) / BYTES_PER_MS).quantize(MS)


def _keep(table: dict[Name, S], name: Name, seen: S) -> None:
    """Where there are too many, the one that was longest unseen gives way."""
    table.pop(name, None)
    while len(table) >= MAX_TRACKED:
        del table[next(iter(table))]
    table[name] = seen


def _rate(tokens: int, milliseconds: int, *, least: int) -> Decimal | None:
    """Tokens a second; None where there were too few of them, or no time, to tell."""
    if tokens < least or milliseconds <= 0:
        return None
    return max(TPS, (Decimal(1000) * tokens / milliseconds).quantize(TPS))


def _learn(old: Decimal, seen: Decimal | None, told: Decimal, weight: Decimal) -> Decimal:
    """Nearer to what was seen, within bounds: never faster than the domain says, one run is not all."""
    if seen is None:
        return min(old, told)
    bounded = min(told, max(seen, old / OUTLIER))
    return max(TPS, min(told, old + weight * (bounded - old)).quantize(TPS))


def _ewma(old: Decimal | None, seen: Decimal | int, unit: Decimal) -> Decimal:
    value = Decimal(seen)
    return (value if old is None else old + LEARNING * (value - old)).quantize(unit)
