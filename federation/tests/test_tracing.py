"""Trace headers: carried exactly, and nothing malformed is read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.observe.tracing import TraceContext, extract, inject


def test_round_trip_beside_other_headers() -> None:
    context = TraceContext.root()
    headers = inject(context, {"other": "kept"})
    assert headers["other"] == "kept"
    assert extract(headers) == context
    child = context.child()
    assert (child.trace_id, child.sampled) == (context.trace_id, True)
    assert child.span_id != context.span_id
    assert extract(inject(TraceContext.root(sampled=False))).sampled is False  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "value",
    [
        "",
        "00-" + "0" * 32 + "-" + "1" * 16 + "-01",
        "00-" + "1" * 32 + "-" + "0" * 16 + "-01",
        "ff-" + "1" * 32 + "-" + "1" * 16 + "-01",
        "00-" + "A" * 32 + "-" + "1" * 16 + "-01",
        "00-" + "1" * 32 + "-" + "1" * 16 + "-01\n",
    ],
)
def test_malformed_is_absent(value: str) -> None:
    assert extract({"traceparent": value}) is None


@given(st.text(max_size=80))
def test_any_text_is_read_or_absent(value: str) -> None:
    context = extract({"traceparent": value})
    assert context is None or len(context.trace_id) == 32
