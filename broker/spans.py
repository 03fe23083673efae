"""OpenTelemetry spans across the bus: one trace per request through broker, peer, agent and node.

A header that comes over the bus is a claim that links spans and decides nothing (nats.md 9).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, TraceFlags, Tracer, set_span_in_context

from federation.tracing import TraceContext, extract, inject


def trace_headers() -> dict[str, str]:
    """The current span as a `traceparent` header; empty outside any trace."""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return {}
    sampled = bool(context.trace_flags & TraceFlags.SAMPLED)
    return inject(TraceContext(f"{context.trace_id:032x}", f"{context.span_id:016x}", sampled))


def trace_id() -> str | None:
    """The current trace's id, 32 hex digits."""
    context = trace.get_current_span().get_span_context()
    return f"{context.trace_id:032x}" if context.is_valid else None


@contextmanager
def span(name: str, headers: Mapping[str, str] | None = None, **attributes: Any) -> Iterator[Span]:
    """A span under the current one, or under what `headers` claim."""
    remote = extract(headers) if headers else None
    context = None
    if remote is not None:
        flags = TraceFlags(TraceFlags.SAMPLED if remote.sampled else TraceFlags.DEFAULT)
        parent = SpanContext(
            int(remote.trace_id, 16), int(remote.span_id, 16), is_remote=True, trace_flags=flags
        )
        context = set_span_in_context(NonRecordingSpan(parent))
    named = {f"comity.{key}": value for key, value in attributes.items()}
    with tracer().start_as_current_span(name, context, attributes=named) as current:
        yield current


@cache
def tracer() -> Tracer:
    """The broker's tracer. Made before a provider is set, it turns to that provider once there is one."""
    return trace.get_tracer("comity.broker")
