"""The parts of the latency sentence always add up, whatever several clocks measured."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broker.edge.replying.latency import NS_PER_MS, Latency

spans_ns = st.integers(-(10**9), 10**12)


@given(st.integers(0, 10**12), spans_ns, spans_ns, spans_ns, spans_ns)
def test_parts_add_up_to_what_was_measured(
    total: int, network: int, agreement: int, queue: int, compute: int
) -> None:
    latency = Latency.of_spans(
        "cloud.fr", "cpu/llama.cpp", total_ns=total, network_ns=network, agreement_ns=agreement,
        queue_ns=queue, compute_ns=compute,
    )  # fmt: skip
    parts = [
        latency.network_ms,
        latency.agreement_ms,
        latency.queue_ms,
        latency.compute_ms,
        latency.broker_ms,
    ]
    assert sum(parts) == latency.total_ms == (total + NS_PER_MS // 2) // NS_PER_MS
    assert min(parts) >= 0
    if min(network, agreement, queue, compute) >= 0 and network + agreement + queue + compute <= total:
        measured = [network, agreement, queue, compute]
        assert all(abs(part * NS_PER_MS - ns) < NS_PER_MS for part, ns in zip(parts, measured, strict=False))


def test_the_sentence() -> None:
    latency = Latency.of_spans(
        "cloud.fr", "cpu/llama.cpp", total_ns=411_600_000, network_ns=3_000_000, agreement_ns=1_200_000,
        queue_ns=0, compute_ns=404_700_000,
    )  # fmt: skip
    assert latency.sentence() == (
        "served by cloud.fr on cpu/llama.cpp in 412 ms: 3 ms network, 1 ms agreement, 0 ms queue, "
        "405 ms compute, 3 ms broker"
    )
