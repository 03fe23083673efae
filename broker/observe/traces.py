"""The latest requests' spans in memory, for `GET /v1/traces/{id}`. A crash loses them."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from typing import Final

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor

from federation.observe.spans import span_json
from schemas.canonical import Json

BROKER: Final = "comity.broker"
"""Root span attribute: the domain whose broker serves the request."""
TENANT: Final = "comity.tenant"
REQUEST: Final = "comity.request"
LATENCY: Final = "comity.latency"
"""Root span attribute: the latency sentence."""

MAX_SPANS_PER_TRACE: Final = 256  # a request with three calls and two continuations makes about 60


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


def _text(value: object) -> str | None:
    return None if value is None else str(value)
