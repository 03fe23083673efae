"""Named numbers from engines, whatever their pages say."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain_agent.node.engine.client import EngineAddress, EngineClient
from domain_agent.node.engine.telemetry import (
    BUSY,
    Reading,
    SpeedMeter,
    available_memory_mb,
    look,
    read_metrics,
    read_slots,
)
from domain_agent.tests.engines import ScriptedEngine


async def test_an_engine_that_is_gone_is_down() -> None:
    client = EngineClient(EngineAddress("http://127.0.0.1:1"), connections=1)
    assert (await look(client)).health == "DOWN"
    await client.close()


async def test_an_engine_that_works_in_a_long_prompt_is_not_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """llama.cpp answers /health at once, and /slots when its batch is done."""
    monkeypatch.setattr("domain_agent.node.engine.client.TELEMETRY_S", 0.1)
    async with ScriptedEngine() as engine:
        engine.slow_pages = True
        client = EngineClient(EngineAddress(engine.address), connections=4)
        assert await look(client) == Reading("HEALTHY", None, None)
        await client.close()


PAGE = """# HELP llamacpp:requests_processing x
llamacpp:requests_processing 2
vllm:num_requests_running{model="a, b"} 3
vllm:num_requests_running{model="c"} 4 1700000000
"""


def test_named_metrics_are_summed_over_labels() -> None:
    assert read_metrics(PAGE, BUSY) == 2
    assert read_metrics(PAGE, BUSY[1:]) == 7
    assert read_metrics(PAGE, ("absent",)) is None


@given(st.text(max_size=300))
def test_any_metrics_page_gives_a_count_or_nothing(text: str) -> None:
    value = read_metrics(text + "\n" + "vllm:num_requests_running " + text, BUSY)
    assert value is None or 0 <= value <= 2**31


@given(st.binary(max_size=200))
def test_any_slots_page_gives_a_count_or_nothing(data: bytes) -> None:
    value = read_slots(data)
    assert value is None or value >= 0


def test_slots_that_process_are_counted_and_nothing_else_is_read() -> None:
    page = [{"is_processing": True, "prompt": "secret"}, {"is_processing": False}, "x", {}]
    assert read_slots(json.dumps(page).encode()) == 1
    assert read_slots(b"{}") is None


def test_rates_follow_what_runs_and_ignore_what_is_too_short() -> None:
    meter = SpeedMeter()
    meter.note(fresh_tokens=50, output_tokens=20, prefill_tps=100.0, decode_tps=50.0)
    meter.note(fresh_tokens=1, output_tokens=1, prefill_tps=9e6, decode_tps=9e6)
    assert (meter.prefill_tps, meter.decode_tps) == (100, 50)
    meter.note(fresh_tokens=50, output_tokens=20, prefill_tps=200.0, decode_tps=None)
    assert (meter.prefill_tps, meter.decode_tps) == (120, 50)


def test_memory_is_a_number_or_nothing(tmp_path: Any) -> None:
    assert available_memory_mb(tmp_path / "none") == 0
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    2048000 kB\n")
    assert available_memory_mb(tmp_path / "meminfo") == 2000
