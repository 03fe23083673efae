"""`CapabilitySummary`: what a domain tells its peers about its load, coarsely and for a short time.

It may only rank, never permit. It names no node and counts none; values come in buckets that claim
*less* than was measured, and a cell that fewer than `k_min` nodes stand behind shows class and
jurisdiction only. CATS Level 1: categories scored 0–10, higher is better.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from schemas.canonical import Wire
from schemas.descriptors.capability import ClassName, Context, Rates, Tier, VariantName
from schemas.descriptors.profile import Place
from schemas.primitives import Count, Digest, DomainName, Label, Seconds

MAX_SUMMARY_BYTES: Final = 16 * 1024  # nats.md 6
MAX_CELLS: Final = 64
DROP_AFTER_TTLS: Final = 3  # beyond iat + this many ttl_s a summary is forgotten

HEADROOM_BUCKETS: Final = (0, 2, 5, 8, 10)
LATENCY_BANDS_MS: Final = (5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000)
RATE_BANDS_TPS: Final = tuple(
    mantissa * 10**exponent // 10 for exponent in range(1, 6) for mantissa in (10, 15, 20, 30, 50, 70)
)
"""Six bands a decade, 1 to 70,000 tokens a second: wide enough to hide one job, narrow enough to rank."""


Score = Annotated[int, Field(ge=0, le=10)]
Headroom = Literal[0, 2, 5, 8, 10]
Milliseconds = Annotated[int, Field(ge=0, le=60_000)]
Rate = Annotated[int, Field(ge=0, le=100_000)]


class Cell(Wire):
    """One class (and variant) at one place. Fields left out are not disclosed: call to learn them."""

    cls: ClassName
    jur: Place
    variant: VariantName | None = None
    version: Label | None = None
    digest: Digest | None = None
    """Digest of the capability: the model that would run."""
    tier: Tier = 0
    context_limit: Context | None = None
    params_m: Count = 0
    tee: Literal["none", "snp", "tdx", "simulated"] = "none"
    ar_min: Annotated[int, Field(ge=0, le=4)] = 0
    """Lowest assurance of the nodes behind this cell: claimed, so it prefilters only."""
    confidential_gpu: bool = False
    seal_min: Annotated[int, Field(ge=0, le=4)] = 0
    rates: Rates | None = None
    """The price book itself: prices are public, load is not."""
    ttft_p95_ms: Milliseconds | None = None
    """Upper edge of the band."""
    tpot_p95_ms: Milliseconds | None = None
    prefill_tps: Rate | None = None
    """Lower edge of the band, tokens per second."""
    decode_tps: Rate | None = None
    headroom: Headroom = 0
    cold: bool = False
    """True when no node has the model loaded."""
    carbon_band: Score | None = None
    computing_comb: Score = 0
    communication_comb: Score = 0
    """Computed by the consumer's prober; a claim here is ignored."""
    service_comb: Score = 0

    @property
    def label(self) -> str:
        """`class/variant`, or the class alone where the variant is not disclosed."""
        return f"{self.cls}/{self.variant}" if self.variant else self.cls


class CapabilitySummary(Wire):
    """The payload of an advert."""

    v: Literal[1] = 1
    federation: Label
    iss: DomainName
    epoch: Count
    seq: Count
    iat: Seconds
    ttl_s: Annotated[int, Field(ge=1, le=3600)]
    challenge: Digest
    """The domain's current 32-byte challenge, hex (session.md 2)."""
    trust_epoch: Count
    """Rises with every revocation, so that a lost push is noticed (session.md 5)."""
    profile_digest: Digest
    k_min: Annotated[int, Field(ge=1, le=1000)]
    cells: Annotated[list[Cell], Field(max_length=MAX_CELLS)]
    prev: Digest | None = None
    source: Literal["aggregation", "normalization"] = "aggregation"
    measurement_window_s: Annotated[int, Field(ge=1, le=3600)] = 10
    draining: bool = False
    collateral: Digest | None = None
    """Index of the domain's bundle of collateral; it and its pieces are fetched by digest, as evidence is."""

    @model_validator(mode="after")
    def _no_cell_twice(self) -> Self:
        names = [(cell.cls, cell.variant, cell.jur, cell.tee) for cell in self.cells]
        if len(set(names)) != len(names):
            raise ValueError("two cells describe the same thing")
        return self

    @classmethod
    def read(cls, data: bytes, *, limit: int = MAX_SUMMARY_BYTES) -> Self:
        return super().read(data, limit=limit)

    @property
    def version(self) -> tuple[int, int]:
        """`(epoch, seq)`: strictly increasing."""
        return self.epoch, self.seq


def headroom_bucket(free: int, total: int) -> Headroom:
    """The largest bucket that does not claim more free capacity than there is."""
    share = 10 * max(0, free) // total if total > 0 else 0
    buckets: tuple[Headroom, ...] = (0, 2, 5, 8, 10)
    return max(bucket for bucket in buckets if bucket <= share)


def latency_band(milliseconds: int) -> int:
    """The upper edge of the band: never faster than measured. Saturates at the last band."""
    return LATENCY_BANDS_MS[min(bisect_left(LATENCY_BANDS_MS, milliseconds), len(LATENCY_BANDS_MS) - 1)]


def rate_band(tokens_per_second: int) -> int:
    """The lower edge of the band: never faster than measured. 0 below one token a second."""
    return _below(RATE_BANDS_TPS, tokens_per_second)


def _below(bands: Sequence[int], value: int) -> int:
    at = bisect_right(bands, value)
    return bands[at - 1] if at else 0
