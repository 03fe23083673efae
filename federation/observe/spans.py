"""Where every program's finished spans go: a file of JSON lines, and an OTLP collector if asked.

A span's exception events may quote what was being handled, so that only their type is ever written;
attributes are ours (ids, counts, codes). A crash loses the spans of the last moments.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
from collections.abc import Sequence
from io import BufferedWriter
from pathlib import Path
from typing import Final

import msgspec
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Status

from schemas.canonical import Json
from schemas.errors import ConfigurationError

MAX_SPAN_FILE_BYTES: Final = 256 * 1024 * 1024  # then it becomes `<name>.1` and a new one begins
WRITE_EVERY_S: Final = 0.1  # s that finished spans wait: no request pays for the writing of its own
MAX_WAITING: Final = 512  # finished spans held at most; some sixty requests
NS_PER_US: Final = 1000
OURS: Final = "comity."  # attributes with this prefix hold ids, counts and codes
TOOK_US: Final = "comity.took_us"
"""On an event that tells of a step: microseconds that the step took, up to the event's time."""
FAILED: Final = "comity.failed"
"""On such an event: the type of the exception that the step ended with."""
_ERROR_TYPE: Final = "exception.type"


class SpanFile(SpanProcessor):
    """Appends each finished span as a line of JSON, a moment later. Owned by one process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = _append(path)
        self._waiting: list[ReadableSpan] = []
        self._timer: asyncio.TimerHandle | None = None

    def on_end(self, span: ReadableSpan) -> None:
        """Keep it for the next writing; outside an event loop, or when there are many, write now."""
        self._waiting.append(span)
        if len(self._waiting) >= MAX_WAITING:
            self._write()
        elif self._timer is None:
            try:
                self._timer = asyncio.get_running_loop().call_later(WRITE_EVERY_S, self._write)
            except RuntimeError:
                self._write()

    def _write(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, spans, self._waiting = None, self._waiting, []
        with contextlib.suppress(OSError, ValueError):  # a full disk or a closed file stops no request
            self._file.writelines(map(_line, spans))
            self._file.flush()
            self._turn_over()

    def _turn_over(self) -> None:
        if self._file.tell() > MAX_SPAN_FILE_BYTES:
            self._file.close()
            self._path.replace(self._path.with_name(self._path.name + ".1"))
            self._file = _append(self._path)

    def shutdown(self) -> None:
        """Write what waits, and close."""
        self._write()
        self._file.close()


def _line(span: ReadableSpan) -> bytes:
    try:
        return msgspec.json.encode(span_json(span)) + b"\n"
    except (ValueError, OverflowError):  # an attribute that JSON cannot hold loses its own span, no other
        return b""


def span_json(span: ReadableSpan) -> dict[str, Json]:
    """One span as plain JSON; times are POSIX microseconds."""
    assert span.context is not None
    start, end = span.start_time or 0, span.end_time or 0
    return {
        "name": span.name,
        "trace": f"{span.context.trace_id:032x}",
        "span": f"{span.context.span_id:016x}",
        "parent": f"{span.parent.span_id:016x}" if span.parent else None,
        "start_us": start // NS_PER_US,
        "duration_us": max(0, end - start) // NS_PER_US,
        "status": span.status.status_code.name.lower(),
        "steps": [_step(event) for event in span.events if TOOK_US in (event.attributes or {})],
        "errors": [
            str((event.attributes or {})[_ERROR_TYPE])
            for event in span.events
            if _ERROR_TYPE in (event.attributes or {})
        ],
        "attributes": {name: _json(value) for name, value in (span.attributes or {}).items()},
        "links": [f"{link.context.trace_id:032x}" for link in span.links],
    }


def _step(event: Event) -> dict[str, Json]:
    """What a step told of itself: its name, when it ended, how long it took, and its attributes."""
    told = {name.removeprefix(OURS): _json(value) for name, value in (event.attributes or {}).items()}
    return {"name": event.name, "ended_us": event.timestamp // NS_PER_US, **told}


def without_texts(span: ReadableSpan) -> ReadableSpan:
    """The same span without what exceptions said: for exporters that send everything."""
    events = [
        Event(
            event.name,
            {name: value for name, value in (event.attributes or {}).items() if _is_plain(name)},
            event.timestamp,
        )
        for event in span.events
    ]
    return ReadableSpan(
        name=span.name,
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=span.attributes,
        events=events,
        links=span.links,
        kind=span.kind,
        status=Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _is_plain(name: str) -> bool:
    return name.startswith(OURS) or name == _ERROR_TYPE


def _append(path: Path) -> BufferedWriter:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")
    except OSError as error:
        raise ConfigurationError("config.spans", f"observe.spans: {path}: {error.strerror}") from None


def _json(value: object) -> Json:
    if isinstance(value, bool | int | str):
        return value
    if isinstance(value, Sequence):
        return [_json(part) for part in value]
    return str(value)


def otlp_processor(endpoint: str) -> SpanProcessor:
    """Sends spans, without exception texts, to an OTLP/HTTP collector. Raises `ConfigurationError`."""
    return BatchSpanProcessor(_WithoutTexts(_otlp_exporter(endpoint)))


class _WithoutTexts(SpanExporter):
    """Takes exception texts out before another exporter sends the spans away."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return self._exporter.export([without_texts(span) for span in spans])

    def shutdown(self) -> None:
        self._exporter.shutdown()


def _otlp_exporter(endpoint: str) -> SpanExporter:
    try:
        library = importlib.import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    except ImportError:
        raise ConfigurationError(
            "config.otlp",
            "observe.otlp: install opentelemetry-exporter-otlp-proto-http, or remove the key",
        ) from None
    exporter: SpanExporter = library.OTLPSpanExporter(endpoint=endpoint)
    return exporter
