"""Starts tracing, metrics and logs of one broker, and stops them.

OpenTelemetry has one tracer provider per process; several brokers in one process (tests) share it
and each hangs its own processors into it. Owned by the program: start before the first request,
stop after the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Tracer

from broker.observe.metrics import Metrics
from broker.observe.traces import TraceStore
from broker.starting.config import Observe
from federation.observe.logs import start_logging
from federation.observe.spans import SpanFile, otlp_processor

TRACER: Final = "comity.broker"
MAX_ATTRIBUTES: Final = 64  # per span
MAX_ATTRIBUTE_CHARS: Final = 512
MAX_EVENTS: Final = 64  # per span: five steps an attempt and domain, and exceptions on their way out
MAX_LINKS: Final = 4


class _Fan(SpanProcessor):
    """Hands spans to the processors of whoever runs in this process at the moment."""

    def __init__(self) -> None:
        self.processors: tuple[SpanProcessor, ...] = ()

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        for processor in self.processors:
            processor.on_start(span, parent_context)

    def on_end(self, span: ReadableSpan) -> None:
        for processor in self.processors:
            processor.on_end(span)


_fan: _Fan | None = None


@dataclass(frozen=True, slots=True)
class Observability:
    """What a running broker observes with. Make it with `start`."""

    metrics: Metrics
    traces: TraceStore
    tracer: Tracer
    _processors: tuple[SpanProcessor, ...]

    @classmethod
    def start(cls, settings: Observe, domain: str, *, logs: bool = True) -> Observability:
        """Begin to observe. `logs`: whether this process's logging is ours to set up.

        Raises `ConfigurationError` when a file or a library that the settings ask for is not there.
        """
        store = TraceStore(domain, settings.traces_kept)
        processors: list[SpanProcessor] = [store]
        if settings.spans is not None:
            processors.append(SpanFile(settings.spans))
        if settings.otlp is not None:
            processors.append(otlp_processor(settings.otlp))
        if logs:
            start_logging(settings.log_level)
        _hang(domain, processors)
        return cls(Metrics(), store, trace.get_tracer(TRACER), tuple(processors))

    def stop(self) -> None:
        """Write out what is still held, and let go."""
        if _fan is not None:
            _fan.processors = tuple(one for one in _fan.processors if one not in self._processors)
        for processor in self._processors:
            processor.shutdown()


def _hang(domain: str, processors: Sequence[SpanProcessor]) -> None:
    """Add the processors to this process's provider, which is made at the first call."""
    global _fan
    if _fan is None:
        _fan = _Fan()
        provider = trace.get_tracer_provider()
        if not isinstance(provider, TracerProvider):
            provider = _provider(domain)
            trace.set_tracer_provider(provider)
        provider.add_span_processor(_fan)
    _fan.processors = (*_fan.processors, *processors)


def _provider(domain: str) -> TracerProvider:
    return TracerProvider(
        sampler=ALWAYS_ON,
        resource=Resource({"service.name": "comity-broker", "service.namespace": domain}),
        span_limits=SpanLimits(
            max_span_attributes=MAX_ATTRIBUTES,
            max_events=MAX_EVENTS,
            max_links=MAX_LINKS,
            max_span_attribute_length=MAX_ATTRIBUTE_CHARS,
        ),
        shutdown_on_exit=False,
    )
