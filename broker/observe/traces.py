"""Where finished spans go: a bounded store for `GET /v1/traces/{id}`, and a file of JSON lines.

A span's exception events may quote what was being handled, so that only their type is ever shown;
attributes are ours (ids, counts, codes). A crash loses what is in memory and at most the last lines
of the file.
"""

from __future__ import annotations

import contextlib
import os
from collections import OrderedDict
from collections.abc import Sequence
from io import BufferedWriter
from pathlib import Path
from typing import Final

from opentelemetry.context import Context
from opentelemetry.sdk.trace import Event, ReadableSpan, Span, SpanProcessor
from opentelemetry.trace import Status

from schemas.canonical import Json, write_json
from schemas.errors import ConfigurationError

BROKER: Final = "comity.broker"
"""Root span attribute: the domain whose broker serves the request."""
TENANT: Final = "comity.tenant"
REQUEST: Final = "comity.request"
LATENCY: Final = "comity.latency"
"""Root span attribute: the latency sentence."""

MAX_SPANS_PER_TRACE: Final = 256  # a request with three calls and two continuations makes about 60
MAX_SPAN_FILE_BYTES: Final = 256 * 1024 * 1024  # then it becomes `<name>.1` and a new one begins
NS_PER_US: Final = 1000
_ERROR_TYPE: Final = "exception.type"


class TraceStore(SpanProcessor):
    """The latest traces of requests that one broker served, in memory. Oldest go first."""

    def __init__(self, domain: str, capacity: int) -> None:
        self._domain = domain
        self._capacity = capacity
        self._traces: OrderedDict[int, list[ReadableSpan]] = OrderedDict()
        self._owners: dict[int, tuple[str, str]] = {}
        self._requests: dict[tuple[str, str], int] = {}

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:  # noqa: ARG002
        """Begin a trace at its root; spans of others' traces are not ours to show."""
        if span.parent is not None or not span.attributes or not self._capacity:
            return
        attributes = span.attributes
        if attributes.get(BROKER) != self._domain or span.context is None:
            return
        owner = str(attributes.get(TENANT)), str(attributes.get(REQUEST))
        self._traces[span.context.trace_id] = []
        self._owners[span.context.trace_id] = owner
        self._requests[owner] = span.context.trace_id
        while len(self._traces) > self._capacity:
            self._forget(next(iter(self._traces)))

    def on_end(self, span: ReadableSpan) -> None:
        if span.context is None:
            return
        spans = self._traces.get(span.context.trace_id)
        if spans is not None and len(spans) < MAX_SPANS_PER_TRACE:
            spans.append(span)

    def _forget(self, trace_id: int) -> None:
        del self._traces[trace_id]
        owner = self._owners.pop(trace_id)
        if self._requests.get(owner) == trace_id:
            del self._requests[owner]

    def find(self, tenant: str, name: str) -> dict[str, Json] | None:
        """The trace with this id, or of this request id, if the request was this tenant's."""
        trace_id = self._requests.get((tenant, name))
        if trace_id is None and len(name) == 32:
            with contextlib.suppress(ValueError):
                trace_id = int(name, 16)
        if trace_id is None or self._owners.get(trace_id, ("", ""))[0] != tenant:
            return None
        spans = sorted(self._traces[trace_id], key=lambda span: span.start_time or 0)
        root = next((span for span in spans if span.parent is None), None)
        return {
            "trace": f"{trace_id:032x}",
            "request": self._owners[trace_id][1],
            "complete": root is not None,
            "latency": _text((root.attributes or {}).get(LATENCY)) if root else None,
            "spans": [span_json(span) for span in spans],
        }


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

    def _turn_over(self) -> None:
        if self._file.tell() > MAX_SPAN_FILE_BYTES:
            self._file.close()
            self._path.replace(self._path.with_name(self._path.name + ".1"))
            self._file = _append(self._path)

    def shutdown(self) -> None:
        self._file.close()


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
        "errors": [_text((event.attributes or {}).get(_ERROR_TYPE)) for event in span.events],
        "attributes": {name: _json(value) for name, value in (span.attributes or {}).items()},
        "links": [f"{link.context.trace_id:032x}" for link in span.links],
    }


def without_texts(span: ReadableSpan) -> ReadableSpan:
    """The same span without what exceptions said: for exporters that send everything."""
    events = [
        Event(event.name, {_ERROR_TYPE: (event.attributes or {}).get(_ERROR_TYPE, "")}, event.timestamp)
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


def _text(value: object) -> str | None:
    return None if value is None else str(value)
