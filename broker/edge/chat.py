"""`POST /v1/chat/completions`: the hot path of the edge, one ASGI endpoint.

Whatever goes wrong ends in a typed problem: as a status before the answer began, as a last event
without `[DONE]` after it. A caller that leaves cancels the work at once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, TraceFlags
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from broker.edge.accepting.accept import Acceptance
from broker.edge.accepting.auth import Authenticator
from broker.edge.accepting.body import CallerLeft, read_body
from broker.edge.exchange import Accepted, Dispatch, Event, Finished, Started
from broker.edge.gate import Gate, Inside
from broker.edge.replying.answer import Answer, answer_for
from broker.edge.replying.reply import Reply
from broker.observe import Observability, log_fields
from broker.observe.traces import BROKER, LATENCY, REQUEST, TENANT
from broker.problems import Deadline, Defect, Infeasible, RequestProblem, problem_of
from federation.observe.tracing import extract
from schemas.descriptors.request import RequestDescriptor
from schemas.primitives import parse_time

BODY_S: Final = 30.0  # seconds for a body to arrive; 4 MiB at little more than 1 Mbit/s
MS_PER_S: Final = 1_000
NS_PER_S: Final = 1_000_000_000

_log = logging.getLogger("comity.broker.edge")


@dataclass(frozen=True, slots=True)
class Edge:
    """Everything that the HTTP routes need. One per broker."""

    domain: str
    dispatch: Dispatch
    authenticator: Authenticator
    acceptance: Acceptance
    gate: Gate
    observability: Observability


class ChatCompletions:
    """The endpoint. Holds nothing of a request."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request from its head to its last byte. Raises only when the server itself is stopped."""
        received_ns, reply, outcome = time.perf_counter_ns(), Reply(send), "cancelled"
        try:
            await self._serve(scope, receive, reply, received_ns)
            outcome = "ok"
        except CallerLeft:
            pass
        except Exception as error:
            problem = self._reported(error, reply.request_id)
            outcome = problem.word
            await reply.fail(problem)
        finally:
            self._edge.observability.metrics.ended(outcome)

    async def _serve(self, scope: Scope, receive: Receive, reply: Reply, received_ns: int) -> None:
        """Who asks? Is there room? What do they ask? Then serve it, unless they leave."""
        edge, headers = self._edge, Headers(scope=scope)
        tenant = edge.authenticator.authenticate(scope["headers"])
        with edge.gate.enter() as inside, _ended_from_outside(inside):
            async with within(BODY_S, "request.body_slow", "the body did not arrive in time"):
                data = await read_body(receive, headers.get("content-length"))
            accepted = edge.acceptance.accept(data, headers, tenant, received_ns)
            reply.request_id = accepted.request_id
            allowed_s = _allowed_s(edge.gate.limits.request_ms, accepted.descriptor)
            with log_fields(request=accepted.request_id), self._span(accepted, headers) as span:
                async with within(allowed_s, "request.deadline", "the request's time is over"):
                    await self._answer(accepted, receive, inside, reply, span)

    async def _answer(
        self, accepted: Accepted, receive: Receive, inside: Inside, reply: Reply, span: Span
    ) -> None:
        """Let dispatch work, pass on what comes, and report the end only when it was said."""
        first_ns: list[int] = []
        async with self._running(inside, accepted, receive) as (events, watcher):
            started = await anext(events, None)
            if not isinstance(started, Started):
                raise Defect("broker.exchange", "an answer began without Started")
            answer = answer_for(accepted, started, reply)
            await answer.begin()
            finished = await _pass_on(events, answer, first_ns)
            watcher.cancel()  # from here on the connection's end is no news
            await answer.end(finished)
            self._measure(accepted, finished, first_ns, span)
            async for _ in events:
                raise Defect("broker.exchange", "an answer went on after Finished")

    @asynccontextmanager
    async def _running(
        self, inside: Inside, accepted: Accepted, receive: Receive
    ) -> AsyncIterator[tuple[AsyncGenerator[Event, None], asyncio.Task[None]]]:
        """A place at the gate, dispatch at work, and an eye on the connection."""
        watcher = asyncio.create_task(_watch(receive, inside))
        try:
            async with (
                self._edge.gate.run(inside, accepted.descriptor),
                aclosing(self._edge.dispatch.run(accepted)) as events,
            ):
                yield events, watcher
        finally:
            watcher.cancel()

    @contextmanager
    def _span(self, accepted: Accepted, headers: Headers) -> Iterator[Span]:
        """The root span. A caller's own trace is linked, never continued: it decides nothing here."""
        age_ns = time.perf_counter_ns() - accepted.received_ns
        tenant, request = accepted.tenant.name, accepted.request_id
        with self._edge.observability.tracer.start_as_current_span(
            "request",
            Context(),
            SpanKind.SERVER,
            attributes={BROKER: self._edge.domain, TENANT: tenant, REQUEST: request},
            links=_links(headers),
            start_time=time.time_ns() - age_ns,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            yield span

    def _measure(self, accepted: Accepted, finished: Finished, first_ns: list[int], span: Span) -> None:
        sentence, now_ns = finished.latency.sentence(), time.perf_counter_ns()
        span.set_attribute(LATENCY, sentence)
        first_s = (first_ns[0] - accepted.received_ns) / NS_PER_S if first_ns else None
        total_s, tokens = (now_ns - accepted.received_ns) / NS_PER_S, finished.usage.output_tokens
        self._edge.observability.metrics.answered(total_s=total_s, first_s=first_s, output_tokens=tokens)
        _log.info(
            "answered",
            extra={"tenant": accepted.tenant.name, "receipt": finished.receipt, "latency": sentence},
        )

    def _reported(self, error: Exception, request_id: str | None) -> RequestProblem:
        """The problem behind an exception, counted and logged. Defects of ours leave a traceback."""
        problem = problem_of(error)
        if isinstance(problem, Infeasible):
            self._edge.observability.metrics.infeasible()
        fields = {"request": request_id, "code": problem.code, "outcome": problem.word}
        if isinstance(problem, Defect):
            _log.error("defect", extra=fields, exc_info=error)
        else:
            _log.info("refused", extra=fields)
        return problem


async def _pass_on(events: AsyncGenerator[Event, None], answer: Answer, first_ns: list[int]) -> Finished:
    async for event in events:
        if isinstance(event, Finished):
            return event
        if isinstance(event, Started):
            raise Defect("broker.exchange", "an answer began twice")
        if not first_ns:
            first_ns.append(time.perf_counter_ns())
        await answer.piece(event)
    raise Defect("broker.exchange", "an answer ended without Finished")


async def _watch(receive: Receive, inside: Inside) -> None:
    """Cancel the request when its connection ends."""
    while (await receive())["type"] != "http.disconnect":
        pass
    inside.leave()


@contextmanager
def _ended_from_outside(inside: Inside) -> Iterator[None]:
    """Turn a cancellation that the gate or the caller caused into what it means."""
    try:
        yield
    except asyncio.CancelledError:
        if not inside.caller_left and inside.ended_by is None:
            raise
        inside.task.uncancel()
        raise inside.ended_by or CallerLeft() from None


@asynccontextmanager
async def within(seconds: float, code: str, text: str) -> AsyncIterator[None]:
    """Bound what happens inside. Raises `Deadline` with this code when the time is over."""
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise
        raise Deadline(code, text) from None


def _allowed_s(request_ms: int, descriptor: RequestDescriptor) -> float:
    """Seconds that this request may take: the broker's limit, or its own deadline if that is sooner."""
    if descriptor.deadline is None:
        return request_ms / MS_PER_S
    left = (parse_time(descriptor.deadline) - datetime.now(UTC)).total_seconds()
    if left <= 0:
        raise Deadline("request.deadline", "the request's deadline has passed")
    return min(request_ms / MS_PER_S, left)


def _links(headers: Headers) -> list[Link]:
    if "traceparent" not in headers:
        return []
    claimed = extract(headers)
    if claimed is None:
        return []
    flags = TraceFlags(TraceFlags.SAMPLED if claimed.sampled else TraceFlags.DEFAULT)
    context = SpanContext(
        int(claimed.trace_id, 16), int(claimed.span_id, 16), is_remote=True, trace_flags=flags
    )
    return [Link(context)]
