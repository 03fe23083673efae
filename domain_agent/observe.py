"""Logs and spans of an agent or node: JSON lines, ids and counts, never content.

Foreign exceptions may quote what they choked on, so that of those only the type and the places in
our code are written. A crash loses at most the last spans of the file.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BufferedWriter
from pathlib import Path
from typing import Any, Final, TextIO

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from domain_agent.toml_file import Section
from schemas.canonical import Json, write_json
from schemas.errors import ComityError, ConfigurationError

MAX_TEXT: Final = 2000  # characters of one field
MAX_FRAMES: Final = 20  # innermost frames of a traceback
MAX_SPAN_FILE_BYTES: Final = 256 * 1024 * 1024  # then it becomes `<name>.1` and a new one begins
LEVELS: Final = ("debug", "info", "warning", "error")
_STANDARD: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


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
        processors.append(BatchSpanProcessor(_otlp(settings.otlp)))
    if processors:
        provider = TracerProvider(resource=Resource({"service.name": service, "service.namespace": domain}))
        for processor in processors:
            provider.add_span_processor(processor)
        trace.set_tracer_provider(provider)


def start_logging(level: str, stream: TextIO | None = None) -> None:
    """Send all logging of this process to `stream` (stderr) as JSON lines."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


class JsonLines(logging.Formatter):
    """One JSON object per record: time, level, logger, event, and what was given as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage()[:MAX_TEXT],
        }
        line.update((name, value) for name, value in record.__dict__.items() if name not in _STANDARD)
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            frames = traceback.extract_tb(record.exc_info[2])[-MAX_FRAMES:]
            line["error"] = str(error)[:MAX_TEXT] if isinstance(error, ComityError) else type(error).__name__
            line["at"] = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
        return json.dumps(line, ensure_ascii=False, default=str)


class SpanFile(SpanProcessor):
    """Appends each finished span as a line of JSON. Owned by one process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = _append(path)

    def on_end(self, span: ReadableSpan) -> None:
        with contextlib.suppress(OSError, ValueError):  # a full disk or a closed file stops no request
            self._file.write(write_json(span_json(span)) + b"\n")
            if span.parent is None or span.parent.is_remote:
                self._file.flush()
                self._turn_over()

    def shutdown(self) -> None:
        self._file.close()

    def _turn_over(self) -> None:
        if self._file.tell() > MAX_SPAN_FILE_BYTES:
            self._file.close()
            self._path.replace(self._path.with_name(self._path.name + ".1"))
            self._file = _append(self._path)


def span_json(span: ReadableSpan) -> dict[str, Json]:
    """One span as plain JSON, in the shape that the broker writes too; times are POSIX microseconds."""
    assert span.context is not None
    start_ns, end_ns = span.start_time or 0, span.end_time or 0
    return {
        "name": span.name,
        "trace": f"{span.context.trace_id:032x}",
        "span": f"{span.context.span_id:016x}",
        "parent": f"{span.parent.span_id:016x}" if span.parent else None,
        "start_us": start_ns // 1000,
        "duration_us": max(0, end_ns - start_ns) // 1000,
        "status": span.status.status_code.name.lower(),
        "errors": [],
        "attributes": {name: _json(value) for name, value in (span.attributes or {}).items()},
        "links": [f"{link.context.trace_id:032x}" for link in span.links],
    }


def _append(path: Path) -> BufferedWriter:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")
    except OSError as error:
        raise ConfigurationError("config.spans", f"observe.spans: {path}: {error.strerror}") from None


def _otlp(endpoint: str) -> Any:
    try:
        library = importlib.import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    except ImportError:
        raise ConfigurationError(
            "config.otlp", "observe.otlp: install opentelemetry-exporter-otlp-proto-http, or remove the key"
        ) from None
    return library.OTLPSpanExporter(endpoint=endpoint)


def _json(value: object) -> Json:
    if isinstance(value, bool | int | str):
        return value
    return [_json(part) for part in value] if isinstance(value, Sequence) else str(value)
