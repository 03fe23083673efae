"""What the edge hands to dispatch, and what dispatch answers: the only words between the two.

The edge knows HTTP and OpenAI's shapes; dispatch knows domains, policy and receipts. A request is
an `Accepted`; its answer is an iteration of events: one `Started`, any number of `Text` or `Choices`,
one `Finished`. Whatever ends otherwise raises an exception of `broker.problems`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from broker.edge.replying.latency import Latency
from schemas.canonical import Json
from schemas.descriptors.request import RequestDescriptor, TagFloor
from schemas.messages.answer import Usage

__all__ = [
    "Accepted",
    "Choices",
    "Dispatch",
    "Event",
    "Finished",
    "Latency",
    "Model",
    "Started",
    "Tenant",
    "Text",
]


@dataclass(frozen=True, slots=True)
class Tenant:
    """Who is asking, as its credential proved."""

    name: str
    floor: TagFloor
    """Tags that each of its requests carries; a request may only add to them."""
    policy_layer: str | None
    """Name of its own policy set among the configured ones; None when it has none."""
    weights: str
    """Name of its weights for ranking."""
    retention: tuple[str, ...] = ()
    """Retention classes that its receipts fall under."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """One well-formed request of a known tenant. It holds the prompt: it is never logged or stored."""

    tenant: Tenant
    descriptor: RequestDescriptor
    body: bytes = field(repr=False)
    """What the application sent, less the `comity` object: its very bytes where there was none,
    otherwise compact JSON with all other members as they were."""
    plain: bool
    """Plain text, one choice, no tools, grammar, logprobs or seed: may be continued after a loss."""
    received_ns: int
    """`time.perf_counter_ns()` when the request's head had arrived."""
    include_usage: bool = False
    """Whether a stream should end with usage (OpenAI's `stream_options`); the edge's own affair."""

    @property
    def request_id(self) -> str:
        """The caller's idempotency id, or one of ours. Unique only together with the tenant."""
        return self.descriptor.request_id

    @property
    def overrides(self) -> tuple[str, ...]:
        """Tags in which the caller asked for less than its tenant allows; the tenant's counted."""
        return tuple(self.descriptor.overridden)


@dataclass(frozen=True, slots=True)
class Started:
    """A node is about to answer: domain and receipt id are fixed and go out in headers."""

    domain: str
    receipt: str


@dataclass(frozen=True, slots=True)
class Text:
    """The next piece of the only choice."""

    delta: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Choices:
    """OpenAI *chunk* choices, verbatim from the engine: tool calls, several choices, logprobs."""

    choices: list[Json] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Finished:
    """The answer is complete: NodeStatement verified, receipts durable."""

    finish_reason: str
    usage: Usage
    """One record over all segments of a continued answer."""
    receipt: str
    promise: str
    """The log's signed inclusion promise, an envelope as JSON text."""
    latency: Latency
    model: str
    """Capability label that ran: `class/variant`."""
    lowered: tuple[str, ...]
    """Fields that were let go of, as the caller had allowed (`allow_degraded`); mostly none."""


Event: TypeAlias = Started | Text | Choices | Finished


@dataclass(frozen=True, slots=True)
class Model:
    """One capability that some domain offers to this tenant."""

    id: str
    """Class or `class/variant`, as it may be named in `model`."""
    owned_by: tuple[str, ...]
    """Domains that offer it."""


class Dispatch(Protocol):
    """What the edge needs behind it. The product is `broker.dispatch`; tests script it."""

    def run(self, accepted: Accepted) -> AsyncGenerator[Event, None]:
        """Serve one request. Raises a `RequestProblem`.

        When the caller leaves, the task is cancelled and the generator closed: what must still
        happen (releases, receipts) belongs to dispatch, shielded in a `finally`.
        """
        ...

    async def explain(self, accepted: Accepted) -> Mapping[str, Json]:
        """What would happen to this request, domain by domain, without running it."""
        ...

    async def receipt(self, receipt_id: str, tenant: Tenant) -> bytes | None:
        """The `.receipt` bundle (a zip); None when there is none or it is another tenant's."""
        ...

    async def models(self, tenant: Tenant) -> list[Model]:
        """What may be asked for right now."""
        ...

    def ready(self) -> str | None:
        """None when requests can be served; otherwise what is missing, in a few words."""
        ...
