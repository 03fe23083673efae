"""W3C Trace Context in bus headers (nats.md 9).

Headers are unauthenticated: they join spans to one trace, across domains too, and decide nothing.
`tracestate` and baggage are never passed on.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

HEADER = "traceparent"
_FORMAT = re.compile(r"^(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})\Z")


@dataclass(frozen=True, slots=True)
class TraceContext:
    """One span's place in a trace: 16-byte trace id, 8-byte span id, both in hex."""

    trace_id: str
    span_id: str
    sampled: bool

    @classmethod
    def root(cls, *, sampled: bool = True) -> Self:
        return cls(secrets.token_hex(16), secrets.token_hex(8), sampled)

    def child(self) -> TraceContext:
        return TraceContext(self.trace_id, secrets.token_hex(8), self.sampled)


def inject(context: TraceContext, headers: Mapping[str, str] | None = None) -> dict[str, str]:
    """The headers with this context in them."""
    value = f"00-{context.trace_id}-{context.span_id}-{int(context.sampled):02x}"
    return {**(headers or {}), HEADER: value}


def extract(headers: Mapping[str, str]) -> TraceContext | None:
    """The context that the sender claims, or None. Never evidence of who sent something."""
    match = _FORMAT.match(headers.get(HEADER, ""))
    if not match or not int(match[1], 16) or not int(match[2], 16):
        return None
    return TraceContext(match[1], match[2], bool(int(match[3], 16) & 1))
