"""Step 7: carry the sealed body to the node, open what comes back, and tell a loss from an end.

Everything that ends a run without the node's verified statement is `Interrupted`; dispatch decides
whether another node may go on. The Execution receipt follows the answer and is filed in the
background: the application does not wait for it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from dataclasses import dataclass, field
from typing import Final

from broker.acknowledging import Arrived
from broker.edge.exchange import Choices, Event, Started, Text
from broker.journey import Journey, Segment
from broker.observe.pace import Pace
from broker.observe.spans import span, trace_headers
from broker.peers import Peers
from broker.placing.agreement import Placed
from broker.placing.appraisals import Appraisals
from broker.placing.attempt import AnswerReader, Ended
from broker.problems import Invalid, RequestProblem
from broker.providing.border import Border
from broker.providing.executions import cost_of
from broker.select.predict import Predictor
from broker.shelf import Intent, Shelf
from federation.stream import open_stream
from receipts.statements.fields import Price
from receipts.statements.node import NodeStatement
from schemas.errors import ComityError, Refused, Undecided
from schemas.messages import answer
from schemas.primitives import subject_token

FRAMES: Final = answer.RUN + answer.CHUNK + answer.EXECUTION + answer.PROBLEM
DELIVERY_S: Final = 5.0  # seconds that the Execution may take after the end before it counts as withheld
log = logging.getLogger("comity.receipts")


class Interrupted(ComityError):
    """The run ended without the node's word that it is complete."""


@dataclass(slots=True)
class Answering:
    """Runs placed attempts. One per broker; each stream belongs to the task that reads it."""

    peers: Peers
    border: Border
    appraisals: Appraisals
    shelf: Shelf
    predictor: Predictor
    _filing: set[asyncio.Task[None]] = field(default_factory=set)

    async def stream(self, journey: Journey, placed: Placed) -> AsyncGenerator[Event, None]:
        """The answer's events. Raises `Interrupted` when the run is lost."""
        segment = placed.segment()
        journey.segments.append(segment)
        reader, frames = AnswerReader(placed.sealed, placed.appraisal), self._frames(placed)
        pace = Pace(frames)
        intent = self._begin(journey, placed)
        began = time.perf_counter_ns()
        arrived: Arrived | None = None
        try:
            with span("execute", domain=placed.domain):
                async for data in pace:
                    events = self._events(journey, segment, reader, answer.untag(data, FRAMES))
                    if reader.output:
                        pace.began()
                    for event in events:
                        yield event
                    if reader.ended is not None:
                        break
            if reader.ended is None:
                raise Undecided("attempt.no_statement", "the stream ended without the node's statement")
            arrived = self._arrived(placed, reader.ended)
            segment.ended = reader.ended
            self.shelf.under_way[intent.commitment] = arrived
            self._spawn(self._receive_execution(intent, arrived, frames))
            _check_outcome(reader.ended.statement.body)
            self._learn(journey, placed, pace, reader.ended.end.usage, len(reader.output))
        except RequestProblem:
            raise
        except ComityError as error:
            raise Interrupted(error.code, error.text) from error
        finally:
            journey.run_ns += time.perf_counter_ns() - began
            if arrived is None:
                self._spawn(self._receive_loss(intent))
                await frames.aclose()

    def _begin(self, journey: Journey, placed: Placed) -> Intent:
        """What is owed for this attempt. Its Execution is not acknowledged before the answer is read."""
        header = placed.sealed.header
        self.shelf.under_way[header.input_commitment] = None
        return Intent(
            provider=placed.domain,
            request_id=journey.wire_id,
            commitment=header.input_commitment,
            nid=header.nid,
        )

    def _arrived(self, placed: Placed, ended: Ended) -> Arrived:
        """What came out of the seal, and what that costs. Raises `Refused` for counters that no run has."""
        cost = cost_of(ended.statement.body.usage, placed.offered.body.rates)
        return Arrived(ended.statement, Price(micro=cost, currency=self.peers.trust.charter.currency))

    def _learn(self, journey: Journey, placed: Placed, pace: Pace, usage: answer.Usage, size: int) -> None:
        """What a finished run took counts in the next ranking (routing.md 3).

        The prompt of a continuation is longer than the one that was described: it teaches no prefill.
        """
        plan = placed.plan.candidate
        run = pace.observed(
            usage,
            input_tokens=0 if placed.sealed.header.parent else journey.descriptor.input_tokens,
            size=size,
            rtt_ms=plan.rtt_ms,
            wait_ms=placed.offered.body.queue_ms,
        )
        self.predictor.observe(placed.domain, plan.cell, run, time.time())

    def _events(
        self, journey: Journey, segment: Segment, reader: AnswerReader, frame: answer.Tagged
    ) -> list[Event]:
        """What one frame tells the application. Raises `ComityError` for a frame that ends the run."""
        if frame.kind == answer.PROBLEM:
            problem = answer.Problem.read(frame.content)
            raise Undecided(problem.code, problem.text)
        if frame.kind == answer.EXECUTION:
            raise Undecided("attempt.no_statement", "the provider ended the run without the node's statement")
        if self.appraisals.revocation(segment.domain, segment.node_sign) == "compromise":
            raise Refused("trust.node_revoked", "the node was revoked while it answered")
        delta = reader.read(frame)
        segment.began = True
        events: list[Event] = []
        if not journey.started:
            journey.started = True
            events.append(Started(segment.domain, segment.placement.receipt_id))
        if delta is None:
            return events
        journey.delivered = True
        if delta.text is None:
            return [*events, Choices(delta.choices or [])]
        journey.text += delta.text.encode()
        return [*events, Text(delta.text)]

    async def _frames(self, placed: Placed) -> AsyncGenerator[bytes, None]:
        """The road: through our own border in process, or over the bus to a peer's."""
        sealed, domain = placed.sealed, placed.domain
        if domain == self.peers.domain:
            frames = self.border.run(domain, sealed.head, sealed.chunks)
            try:
                async for frame in frames:
                    yield frame
            finally:
                await frames.aclose()
            return
        subject = f"peer.{subject_token(domain)}.execute"
        async with open_stream(
            self.peers.bus, subject, sealed.head, sealed.chunks, headers=trace_headers()
        ) as stream:
            async for frame in stream:
                yield frame

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._filing.add(task)
        task.add_done_callback(self._filing.discard)

    async def _receive_loss(self, intent: Intent) -> None:
        """A run that was lost or given up has an Execution, too; who is away is asked again at our start."""
        self.shelf.under_way.pop(intent.commitment, None)
        if intent.provider != self.peers.domain and await self.shelf.fetch(intent, due=False):
            await self.shelf.close(intent)

    async def _receive_execution(
        self, intent: Intent, arrived: Arrived, frames: AsyncGenerator[bytes, None]
    ) -> None:
        """Read on to the Execution, verify and keep it; ask for it when it does not come.

        Our own border has logged its own already, with the node's statement: then only its end counts.
        """
        try:
            async with asyncio.timeout(DELIVERY_S):
                delivery = await _first(frames, answer.EXECUTION)
            if intent.provider != self.peers.domain:
                filed = await self.shelf.file(intent, delivery)
                await self.shelf.close(intent, filed.said)
        except (ComityError, TimeoutError) as error:
            code = error.code if isinstance(error, ComityError) else "attempt.execution_late"
            log.warning("no Execution with the answer", extra={"code": code, "peer": intent.provider})
            await self.shelf.keep(intent.request_id, statement=arrived.statement.envelope)
            if await self.shelf.fetch(intent):
                await self.shelf.close(intent)
        finally:
            self.shelf.under_way.pop(intent.commitment, None)
            await frames.aclose()

    async def settle(self) -> None:
        """Wait until everything that was being filed is filed."""
        await asyncio.gather(*self._filing, return_exceptions=True)


def _check_outcome(said: NodeStatement) -> None:
    """Raise unless the node itself says that the run is whole."""
    if said.outcome == "refused":
        raise Invalid(said.code, "the node does not run this request as it stands")
    if said.outcome != "ok":
        raise Undecided(said.code, f"the node ended the run as {said.outcome}")


async def _first(frames: AsyncIterator[bytes], kind: bytes) -> bytes:
    async for data in frames:
        frame = answer.untag(data, FRAMES)
        if frame.kind == kind:
            return frame.content
    raise Undecided("attempt.no_execution", "the stream ended without an Execution")
