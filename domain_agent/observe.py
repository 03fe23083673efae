"""What an agent or node shows of itself: logs and spans, as its file asks (federation.observe)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

from domain_agent.toml_file import Section
from federation.observe.logs import start_logging
from federation.observe.spans import SpanFile, otlp_processor

LEVELS: Final = ("debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True)
class Observe:
    """[observe]: where spans go, and how much is logged on stderr."""

    spans: Path | None
    otlp: str | None
    log_level: str


def read_observe(section: Section) -> Observe:
    """Read `[observe]`; every key has a default."""
    write = 'spans = "state/spans.jsonl"'
    spans = section.path("spans", write=write) if section.has("spans") else None
    endpoint = "http://127.0.0.1:4318/v1/traces"
    otlp = (
        section.text("otlp", r"https?://[^\s]{1,2000}", write=f'otlp = "{endpoint}"')
        if section.has("otlp")
        else None
    )
    level = section.choice("log_level", LEVELS, default="info")
    section.finish()
    return Observe(spans, otlp, level)


def start(settings: Observe, service: str, domain: str) -> None:
    """Begin to observe this process. Raises `ConfigurationError` when a file or library is missing."""
    start_logging(settings.log_level)
    processors: list[SpanProcessor] = []
    if settings.spans is not None:
        processors.append(SpanFile(settings.spans))
    if settings.otlp is not None:
        processors.append(otlp_processor(settings.otlp))
    if processors:
        provider = TracerProvider(resource=Resource({"service.name": service, "service.namespace": domain}))
        for processor in processors:
            provider.add_span_processor(processor)
        trace.set_tracer_provider(provider)
