"""How a request travels: accept, feasible, rank, agree, prove, decide, execute, receipt.

The story of DESIGN section 3, top to bottom. Each step stands in a file of its own; what happens
when a step fails stands here. Nothing leaves this broker before a node was proved by our own
appraisal and allowed by every layer of policy, and an answer is complete only with the node's signed
statement.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from typing import Final

from broker.answering import Answering, Interrupted
from broker.edge.exchange import Accepted, Event, Model, Tenant
from broker.journey import Journey
from broker.placing.agreement import Placed, Placing
from broker.placing.explain import explain, models
from broker.placing.negotiate import release
from broker.problems import RequestProblem, Upstream
from broker.shelf import Shelf
from schemas.canonical import Json
from schemas.messages.execute import MAX_BODY_BYTES

ENDED_TRIES: Final = 8  # questions to a border whether a lost run has ended
ENDED_AGAIN_S: Final = 0.25  # seconds between two of them: it concludes within its log's commit


@dataclass(slots=True)
class Dispatcher:
    """One broker's way with requests. Owned by its event loop; what must last is in the log."""

    placing: Placing
    answering: Answering
    shelf: Shelf
    continuations: int
    """Losses that one answer may survive; each proves and decides again."""
    not_ready: Callable[[], str | None]

    async def run(self, accepted: Accepted) -> AsyncGenerator[Event, None]:
        """Serve one request. Raises a `RequestProblem`; what was begun is always concluded."""
        # 1. Accept: the edge authenticated the tenant and described the request.
        journey = Journey.begin(accepted)
        while True:
            # 2. Feasible, 3. rank, 4. agree, 5. prove, 6. decide (broker/placing/agreement.py): one node that
            #    is proved and allowed, or a typed refusal. Its Placement is durable before we go on.
            placed = await self._place(journey)
            # 7. Execute (broker/answering.py): sealed to that node alone, opened here alone.
            try:
                async for event in self.answering.stream(journey, placed):
                    yield event
                break
            except Interrupted as loss:
                await self._go_on_or_fail(journey, placed, loss)
        # 8. Receipt: the node's statement was verified; the Execution is filed as it arrives
        #    (broker/shelf.py).
        yield journey.finished()

    async def _place(self, journey: Journey) -> Placed:
        """A continuation that finds nobody ends as the loss that it could not mend, not as a full queue."""
        try:
            return await self.placing.place(journey)
        except RequestProblem as error:
            if not journey.segments:
                raise
            lost = journey.segments[-1]
            text = f"the run at {lost.domain} was lost, and nobody may go on: {error.text}"
            raise Upstream(lost.lost or error.code, text[:512]) from error

    async def _go_on_or_fail(self, journey: Journey, placed: Placed, loss: Interrupted) -> None:
        """Return if another node may go on (session.md 8). Raises `Upstream` otherwise.

        Nothing shown yet: the request may start again elsewhere. Plain text: the rest may follow on
        what was shown. Regulated data only once the first run has surely ended.
        """
        offer = placed.offered.body
        segment = journey.segments[-1]
        segment.lost = loss.code
        if loss.code != "hold.expired":  # that its place was given away says nothing against the node
            journey.excluded_nodes.append(offer.node_sign)
        if not segment.began:  # where it never was accepted, it surely never will be from here on
            await release(self.placing.peers, placed.offered, "not-run")
        if len(journey.segments) > self.continuations:
            raise Upstream(loss.code, f"lost {len(journey.segments)} times, last: {loss.text}") from loss
        if not journey.may_continue() or len(journey.body()) > MAX_BODY_BYTES:
            raise Upstream(loss.code, f"the stream from {placed.domain} was lost: {loss.text}") from loss
        if journey.regulated and not await self._surely_ended(journey, placed):
            raise Upstream(
                "continue.unproved", f"{placed.domain} cannot show that its run has ended: {loss.text}"
            ) from loss

    async def _surely_ended(self, journey: Journey, placed: Placed) -> bool:
        """By the node's own signed statement, or by its border, which may need a moment to conclude."""
        if journey.segments[-1].ended is not None:
            return True
        for _ in range(ENDED_TRIES):
            if await self.shelf.surely_ended(placed.domain, placed.offered.body.nid):
                return True
            await asyncio.sleep(ENDED_AGAIN_S)
        return False

    async def explain(self, accepted: Accepted) -> Mapping[str, Json]:
        """What would happen to this request, domain by domain, without running it."""
        return explain(self.placing, accepted)

    async def receipt(self, receipt_id: str, tenant: Tenant) -> bytes | None:
        """The `.receipt` bundle; None when there is none or it is another tenant's."""
        return await self.shelf.bundle(receipt_id, tenant.name)

    async def models(self, tenant: Tenant) -> list[Model]:
        """What is on offer right now, by class and by class/variant."""
        del tenant  # every tenant may see what exists; policy decides what it may use
        return models(self.placing.directory)

    def ready(self) -> str | None:
        return self.not_ready()
