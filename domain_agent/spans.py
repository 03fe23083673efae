"""One trace per request: the agent and the node continue what the bus headers carry (nats.md 9).

Inside a domain the sender is our own broker, so its context is the parent. Attributes hold ids,
counts and times; never a prompt, an answer or a key. Who exports spans is configured elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, Tracer

from federation.tracing import extract


def tracer() -> Tracer:
    """The interior's tracer, of whatever provider is installed by now."""
    return trace.get_tracer("comity.interior")


def parent_of(headers: Mapping[str, str]) -> Context:
    """The context that these bus headers claim; an empty one where they claim none."""
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
