"""One trace per request: the agent and the node continue what the bus headers carry (nats.md 9).

Inside a domain the sender is our own broker, so its context is the parent. Attributes hold ids,
counts and times; never a prompt, an answer or a key, and no exception's text. Who exports spans is
the program's matter (domain_agent.observe).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, Status, StatusCode, TraceFlags, Tracer

from federation.observe.tracing import extract


@cache
def tracer() -> Tracer:
    """The interior's tracer. Made before a provider is set, it turns to that provider once there is one."""
    return trace.get_tracer("comity.interior")


@contextmanager
def working(name: str, headers: Mapping[str, str]) -> Iterator[Span]:
    """A span around the block, under the span that these bus headers name."""
    with tracer().start_as_current_span(
        name, context=_parent_of(headers), record_exception=False, set_status_on_exception=False
    ) as span:
        try:
            yield span
        except BaseException:
            span.set_status(Status(StatusCode.ERROR))
            raise


def past(name: str, began: float, ended: float) -> None:
    """A span for work that is over. began, ended: `time.monotonic()` seconds."""
    offset = time.time_ns() - round(time.monotonic() * 1e9)
    span = tracer().start_span(name, start_time=offset + round(began * 1e9))
    span.end(offset + round(ended * 1e9))


def _parent_of(headers: Mapping[str, str]) -> Context:
    found = extract(headers)
    if found is None:
        return Context()
    span = SpanContext(
        trace_id=int(found.trace_id, 16),
        span_id=int(found.span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED if found.sampled else TraceFlags.DEFAULT),
    )
    return trace.set_span_in_context(NonRecordingSpan(span), Context())
