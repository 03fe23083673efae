"""One execution at the node, top to bottom: what is read, checked, opened, run, sealed and signed.

What fails before the secret is open is a typed Problem in the clear, which quotes nothing. From
then on every end is the node's own signed statement, sealed as the end marker: a border can neither
invent one nor leave it out unseen (session.md 8). A crash in the middle leaves nothing: keys and
slots die with the process, and no answer without a statement counts as complete.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from domain_agent.membership import Membership
from domain_agent.node.engine.body import EngineRequest, read_body
from domain_agent.node.engine.client import Finished
from domain_agent.node.engine.serving import Clockwork, Serving
from domain_agent.node.engine.slots import Scope
from domain_agent.node.keys import NodeKeys
from domain_agent.node.running.answer import AnswerWriter, Send
from domain_agent.node.running.feed import Feed
from domain_agent.node.running.order import Order, open_body, read_order
from domain_agent.node.running.statement import Ending, sign_statement
from domain_agent.spans import past
from schemas.errors import ComityError, Undecided
from schemas.messages import answer
from schemas.messages.answer import EndOfRun, Problem, Usage

BUSY_RETRY_MS: Final = 1000  # what a refused border is asked to wait

ReadBody = Callable[[], Awaitable[tuple[bytes, ...]]]


@dataclass(frozen=True, slots=True)
class Resident:
    """A model that lies on this node."""

    capability: str
    digest: str
    """SHA-256 of its file, computed here at load."""
    name: str
    """What the engine calls it."""


@dataclass(slots=True, eq=False)
class Stop:
    """How a run is told to end early: by its consumer, or because the node is stopping."""

    ending: asyncio.Future[Ending] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def now(self, ending: Ending) -> None:
        """End the run with this. Only the first call counts."""
        if not self.ending.done():
            self.ending.set_result(ending)


@dataclass(frozen=True, slots=True)
class Executor:
    """What every run of this node uses. Owned by the node program."""

    membership: Membership
    keys: NodeKeys
    serving: Serving
    residents: tuple[Resident, ...]

    @property
    def models(self) -> Mapping[str, str]:
        return {resident.capability: resident.digest for resident in self.residents}

    def resident(self, order: Order) -> Resident:
        """The model that an order names; `read_order` has seen that it lies here."""
        return next(each for each in self.residents if each.digest == order.header.model_digest)


@dataclass(frozen=True, slots=True)
class _Run:
    """One order that was opened."""

    node: Executor
    order: Order
    writer: AnswerWriter
    stop: Stop
    received: datetime
    clock: Clockwork = field(default_factory=Clockwork)


async def execute(node: Executor, head: bytes, body: ReadBody, send: Send, stop: Stop) -> Ending | None:
    """Run one sealed order. Returns how it ended; None when it was refused before it was opened.

    Raises `Undecided` only when nobody reads the answer any more.
    """
    received = datetime.now(UTC)
    # 1. The head: a header signed by the consumer itself, for this node's living keys, never run before.
    # 2. Its secret, which opens under this header alone; from here on the same order is refused.
    try:
        order = _read(node, head, received)
    except ComityError as error:
        await send(answer.tag(answer.PROBLEM, _problem(error)))
        return None
    # 3. The run's own nonce, which makes the answer key; whatever happens now ends in a statement.
    run = _Run(node, order, AnswerWriter(send, order), stop, received)
    await run.writer.start()
    try:
        # 4. The body: every chunk in order, complete, and the one that the header commits to.
        # 5. Judged against the allow-list; nothing in it reaches out or chooses a slot.
        request = read_body(open_body(order, await body()))
        # 6. The engine, in a slot of this order's own scope, streamed on as it speaks.
        end = await _stream(run, request)
    except ComityError as error:
        end = stop.ending.result() if stop.ending.done() else _failed(error, partial=run.writer.has_output)
    # 7. The node's word on it: sealed as the end marker, and in the clear for our own border.
    return await _conclude(run, end)


def _read(node: Executor, head: bytes, now: datetime) -> Order:
    return read_order(
        head,
        trust=node.membership.trust,
        domain=node.membership.domain,
        keys=node.keys,
        models=node.models,
        now=now,
        clock=time.monotonic(),
    )


async def _stream(run: _Run, request: EngineRequest) -> Finished | Ending:
    header = run.order.header
    events = run.node.serving.run(
        request,
        model=run.node.resident(run.order).name,
        max_tokens=header.limits.output_tokens,
        scope=scope_of(run.order),
        retention_s=header.retention_s,
        clock=run.clock,
    )
    deadline = run.clock.asked + header.limits.time_ms / 1000
    async with Feed(events) as feed:
        run.stop.ending.add_done_callback(lambda _: feed.wake())
        return await _deliver(run, feed, deadline)


async def _deliver(run: _Run, feed: Feed, deadline: float) -> Finished | Ending:
    """Pass events on until the last, or until the run is told to end or out of time."""
    writer, ending = run.writer, run.stop.ending
    while True:
        now = time.monotonic()
        if ending.done():
            return ending.result()
        event = feed.take()
        if isinstance(event, Finished):
            return event
        if now >= deadline:
            return Ending("partial", "limit.time", "deadline")
        if event is not None:
            await writer.add(event, now)
        else:
            await writer.due(now)
            await feed.sleep(min(writer.patience(now), deadline - now))


async def _conclude(run: _Run, end: Finished | Ending) -> Ending:
    ending = end if isinstance(end, Ending) else Ending("ok", "ok", end.finish_reason)
    usage = _usage(run, end)
    _trace(run.clock)
    await run.writer.flush()
    statement = sign_statement(
        run.node.keys.sign,
        run.order,
        ending,
        usage,
        capability=run.node.resident(run.order).capability,
        commitment=run.writer.commitment,
        received=run.received,
    )
    await run.writer.finish(
        EndOfRun(statement=statement.decode("utf-8"), usage=usage, finish_reason=ending.finish_reason)
    )
    await run.writer.statement(statement)
    return ending


def _usage(run: _Run, end: Finished | Ending) -> Usage:
    """The engine's counts; where it broke off, what came from it."""
    counted = end if isinstance(end, Finished) else None
    return Usage(
        input_tokens=counted.input_tokens if counted else 0,
        output_tokens=counted.output_tokens if counted else run.writer.deltas,
        cached_tokens=counted.cached_tokens if counted else 0,
        queue_ms=run.clock.queue_ms,
        compute_ms=run.clock.compute_ms,
    )


def _trace(clock: Clockwork) -> None:
    """Two spans under the run's own: waiting for a slot, and the engine at work."""
    now = time.monotonic()
    past("node.queue", clock.asked, clock.seated or now)
    if clock.seated is not None:
        past("node.compute", clock.seated, now)


def scope_of(order: Order) -> Scope | None:
    """Whose cached state this run may meet: by the signed header alone."""
    header = order.header
    if header.cache_scope == "public":
        return Scope("*", "public", header.cache_key or "")
    if header.cache_scope == "none" or header.cache_key is None:
        return None
    return Scope(header.iss, header.cache_scope, header.cache_key)


def _failed(error: ComityError, *, partial: bool) -> Ending:
    if partial:
        return Ending("partial", error.code, "error")
    if isinstance(error, Undecided):
        return Ending("failed", error.code, "error")
    return Ending("refused", error.code, "refused")


def _problem(error: ComityError) -> bytes:
    retry = BUSY_RETRY_MS if error.code == "node.busy" else None
    return Problem(code=error.code, text=error.text[:512], retry_after_ms=retry).write()
