"""OpenTelemetry spans across the bus: one trace per request through broker, peer, agent and node.

A header that comes over the bus is a claim that links spans and decides nothing (nats.md 9).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextvars import Token
from functools import cache
from types import TracebackType
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    set_span_in_context,
)

from federation.observe.spans import FAILED, NS_PER_US, TOOK_US
from federation.observe.tracing import TraceContext, extract, inject


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


class span:
    """A span under the current one, or under what `headers` claim: for what asks another program.

    The library's own nested generators would take a noticeable part of a request's time.
    """

    __slots__ = ("_span", "_token")

    def __init__(self, name: str, headers: Mapping[str, str] | None = None, **attributes: Any) -> None:
        named = {f"comity.{key}": value for key, value in attributes.items()}
        self._span = tracer().start_span(name, _claimed(headers) if headers else None, attributes=named)
        self._token: Token[Context] | None = None

    def __enter__(self) -> Span:
        self._token = attach(set_span_in_context(self._span))
        return self._span

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._token is not None:
            detach(self._token)
        if isinstance(error, Exception):  # leaving early (a cancellation, a closed generator) is no error
            self._span.record_exception(error)
            self._span.set_status(Status(StatusCode.ERROR, type(error).__name__))
        self._span.end()


class step:
    """A step of the current span that asks nobody: told as an event when it has ended.

    A request has five; as spans of their own they would cost it as much as all its cryptography.
    """

    __slots__ = ("_began", "_name", "_told")

    def __init__(self, name: str, **attributes: Any) -> None:
        self._name = name
        self._told = {f"comity.{key}": value for key, value in attributes.items()}

    def __enter__(self) -> None:
        self._began = time.perf_counter_ns()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._told[TOOK_US] = (time.perf_counter_ns() - self._began) // NS_PER_US
        if kind is not None:
            self._told[FAILED] = kind.__name__
        trace.get_current_span().add_event(self._name, self._told)


def _claimed(headers: Mapping[str, str]) -> Context | None:
    remote = extract(headers)
    if remote is None:
        return None
    flags = TraceFlags(TraceFlags.SAMPLED if remote.sampled else TraceFlags.DEFAULT)
    parent = SpanContext(int(remote.trace_id, 16), int(remote.span_id, 16), is_remote=True, trace_flags=flags)
    return set_span_in_context(NonRecordingSpan(parent))


@cache
def tracer() -> Tracer:
    """The broker's tracer. Made before a provider is set, it turns to that provider once there is one."""
    return trace.get_tracer("comity.broker")
