"""One request on its way: what was tried, what came back, where the time went.

Mutable and short-lived: it belongs to the one task that serves the request, and dies with it. What
must last is in receipts.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any, cast

from opentelemetry import trace
from opentelemetry.trace import Span

from broker.edge.exchange import Accepted, Finished
from broker.edge.replying.latency import NS_PER_MS, Latency
from broker.placing.attempt import Ended
from receipts.log import Issued
from schemas.canonical import length_prefixed, sha256
from schemas.descriptors.request import RequestDescriptor
from schemas.descriptors.tags import PolicyTags
from schemas.keys import base64url
from schemas.messages.answer import Usage


@dataclass(slots=True)
class Segment:
    """One attempt that reached a node."""

    domain: str
    node_sign: str
    placement: Issued
    model: str
    model_digest: str
    engine_class: str
    header_digest: bytes
    nid: str
    began: bool = False
    """Whether the node opened the order: until then, its border may give the place back."""
    ended: Ended | None = None
    lost: str | None = None
    """Reason code, when it was cut."""


@dataclass(slots=True)
class Journey:
    """State of one request. `segments` grows by one per attempt."""

    accepted: Accepted
    span: Span
    wire_id: str
    """The request's name outside this broker: unique per tenant, and it tells neither."""
    text: bytearray = field(default_factory=bytearray, repr=False)
    """Plain text so far, over all segments: what a continuation goes on from."""
    delivered: bool = False
    """True once the application has seen anything of the answer."""
    started: bool = False
    recorded: bool = False
    """True once the log knows whose request this is."""
    segments: list[Segment] = field(default_factory=list)
    excluded_nodes: list[str] = field(default_factory=list)
    lowered: tuple[str, ...] = ()
    """What was let go because the caller allowed it (`allow_degraded`) and nobody could meet it."""
    _descriptor: RequestDescriptor | None = None
    agreement_ns: int = 0
    run_ns: int = 0

    @classmethod
    def begin(cls, accepted: Accepted) -> Journey:
        named = length_prefixed(
            b"comity request v1", accepted.tenant.name.encode(), accepted.request_id.encode()
        )
        return cls(accepted, trace.get_current_span(), base64url(sha256(named)))

    @property
    def descriptor(self) -> RequestDescriptor:
        """What is asked for: as the caller stated it, or with less where that had to be let go."""
        return self._descriptor or self.accepted.descriptor

    def lower(self) -> bool:
        """Let go of what may be let go of. False when nothing may, or nothing is left."""
        asked = self.accepted.descriptor
        if self.lowered or not asked.policy.allow_degraded:
            return False
        freed, names = asked.lowered()
        if names:
            self._descriptor, self.lowered = freed, names
        return bool(names)

    def restore(self) -> None:
        """What was let go of did not help: the request stands as it was stated."""
        self._descriptor, self.lowered = None, ()

    @property
    def tags(self) -> PolicyTags:
        return self.descriptor.policy

    @property
    def trace_id(self) -> str | None:
        context = self.span.get_span_context()
        return f"{context.trace_id:032x}" if context.is_valid else None

    @property
    def model_digest(self) -> str | None:
        """Once text was shown, only the very same model may go on with it."""
        return self.segments[0].model_digest if self.text and self.segments else None

    @property
    def parent(self) -> str | None:
        """Header digest of the attempt that the next one continues, hex."""
        return self.segments[-1].header_digest.hex() if self.text and self.segments else None

    @property
    def regulated(self) -> bool:
        return self.tags.data_class != "public"

    def body(self) -> bytes:
        """What the next attempt sends: the application's body, and what was already answered."""
        if not self.text:
            return self.accepted.body
        body = cast(dict[str, Any], json.loads(self.accepted.body))
        body["messages"] = [
            *body.get("messages", []),
            {"role": "assistant", "content": self.text.decode("utf-8")},
        ]
        return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8")

    def may_continue(self) -> bool:
        """Nothing was shown yet, or the rest of a plain text can follow on what was (session.md 8)."""
        return not self.delivered or self.accepted.plain

    def finished(self) -> Finished:
        """The end of a complete answer, with its time divided."""
        last = self.segments[-1]
        assert last.ended is not None
        return Finished(
            finish_reason=last.ended.end.finish_reason,
            usage=self._usage(),
            receipt=last.placement.receipt_id,
            promise=last.placement.promise.decode(),
            latency=self._latency(last),
            model=last.model,
            lowered=self.lowered,
        )

    def _usage(self) -> Usage:
        """One record over all segments; a lost one counts only what its node stated."""
        ends = [segment.ended.end.usage for segment in self.segments if segment.ended]
        return Usage(**{name: sum(getattr(usage, name) for usage in ends) for name in Usage.model_fields})

    def _latency(self, last: Segment) -> Latency:
        usage = self._usage()
        queue, compute = usage.queue_ms * NS_PER_MS, usage.compute_ms * NS_PER_MS
        return Latency.of_spans(
            last.domain,
            last.engine_class,
            total_ns=time.perf_counter_ns() - self.accepted.received_ns,
            network_ns=max(0, self.run_ns - queue - compute),
            agreement_ns=self.agreement_ns,
            queue_ns=queue,
            compute_ns=compute,
        )
