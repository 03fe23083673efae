"""Summaries claim less than was measured, stay small, and say nothing about nodes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.descriptors.capability import CapabilityDescriptor, CapabilityQuality, Rates
from schemas.descriptors.summary import (
    LATENCY_BANDS_MS,
    MAX_SUMMARY_BYTES,
    RATE_BANDS_TPS,
    CapabilitySummary,
    Cell,
    headroom_bucket,
    latency_band,
    rate_band,
)
from schemas.errors import ComityError, Unreadable

RATES = Rates(input=1_000, output=3_000, cached=100)


def cell(**changes: Any) -> Cell:
    values: dict[str, Any] = {
        "cls": "chat.small",
        "variant": "smollm2-135m-q4_1",
        "version": "1",
        "digest": "a" * 64,
        "jur": "DE-HE",
        "context_limit": 4096,
        "params_m": 135,
        "tee": "snp",
        "ar_min": 3,
        "rates": RATES,
        "ttft_p95_ms": 200,
        "tpot_p95_ms": 20,
        "prefill_tps": 150,
        "decode_tps": 70,
        "headroom": 8,
    }
    return Cell.model_validate(values | changes)


def summary(cells: list[Cell]) -> CapabilitySummary:
    return CapabilitySummary(
        federation="demo",
        iss="clinic.de",
        epoch=1,
        seq=2,
        iat=1_780_000_000,
        ttl_s=30,
        challenge="0" * 64,
        trust_epoch=3,
        profile_digest="1" * 64,
        k_min=5,
        cells=cells,
    )


def test_a_summary_of_twelve_cells_fits_and_survives_the_wire() -> None:
    twelve = summary([cell(variant=f"v{number}") for number in range(12)])
    data = twelve.write()
    assert len(data) < MAX_SUMMARY_BYTES // 2
    assert CapabilitySummary.read(data) == twelve
    assert twelve.version == (1, 2)


def test_a_cell_below_k_min_names_class_and_place_only() -> None:
    bare = Cell(cls="chat.small", jur="DE")
    assert bare.label == "chat.small"
    assert cell().label == "chat.small/smollm2-135m-q4_1"
    assert CapabilitySummary.read(summary([bare]).write()).cells == [bare]


@pytest.mark.parametrize(
    "change",
    [
        {"headroom": 7},
        {"jur": "EUROPE"},
        {"ar_min": 5},
        {"node_id": "n1"},
        {"decode_tps": -1},
        {"cls": "Chat Small"},
    ],
)
def test_a_cell_outside_its_buckets_is_refused(change: dict[str, Any]) -> None:
    data = summary([]).as_json() | {"cells": [cell().as_json() | change]}
    with pytest.raises(Unreadable, match="cells"):
        CapabilitySummary.from_json(data)


def test_the_same_cell_twice_and_an_oversized_summary_are_refused() -> None:
    with pytest.raises(Unreadable, match="two cells"):
        CapabilitySummary.from_json(summary([]).as_json() | {"cells": [cell().as_json(), cell().as_json()]})
    with pytest.raises(Unreadable, match="at most"):
        CapabilitySummary.read(b" " * (MAX_SUMMARY_BYTES + 1))


@given(st.integers(0, 200), st.integers(0, 200))
def test_headroom_never_claims_more_than_there_is(free: int, total: int) -> None:
    bucket = headroom_bucket(free, total)
    assert bucket in (0, 2, 5, 8, 10)
    assert bucket * total <= 10 * free or bucket == 0


@given(st.integers(0, 200_000))
def test_bands_never_claim_to_be_faster(measured: int) -> None:
    assert latency_band(measured) >= min(measured, LATENCY_BANDS_MS[-1])
    assert rate_band(measured) <= measured
    assert rate_band(measured) in (0, *RATE_BANDS_TPS)
    assert list(RATE_BANDS_TPS) == sorted(set(RATE_BANDS_TPS))


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_total_is_rounded_up_once(fresh: int, cached: int, output: int) -> None:
    exact = fresh * 1_000 + cached * 100 + output * 3_000
    total = RATES.total(input_tokens=fresh + cached, output_tokens=output, cached_tokens=cached)
    assert exact <= total * 1_000 < exact + 1_000


def test_a_capability_needs_version_and_digest() -> None:
    offered = CapabilityDescriptor(
        name="chat.small",
        variant="tiny",
        version="1",
        digest="a" * 64,
        task="chat",
        quality=CapabilityQuality(tier=2, context_limit=4096),
        rates=RATES,
    )
    assert offered.label == "chat.small/tiny"
    assert CapabilityDescriptor.read(offered.write()) == offered
    for name in ("version", "digest"):
        without = {key: value for key, value in offered.as_json().items() if key != name}
        with pytest.raises(Unreadable, match=name):
            CapabilityDescriptor.from_json(without)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_summary_or_unreadable(data: bytes) -> None:
    with pytest.raises(ComityError):
        CapabilitySummary.read(data)
