"""Step 8, the last word: what the consumer's broker acknowledges of an Execution (receipts.md 3.4).

An Execution is the word of who was paid to run. What came out of the seal here is ours: only where both say
the same is it agreed, and only then do its counters count. No I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from receipts.statements.fields import NO_USAGE, Link, Price, SeenCheckpoint, Times
from receipts.statements.node import NodeStatement
from receipts.statements.receipt import AcknowledgementDraft, Dispute, ExecutionReceipt, PlacementReceipt
from receipts.statements.statement import Statement
from receipts.verify.links import check_same_run
from schemas.errors import Refused
from schemas.primitives import format_time


@dataclass(frozen=True, slots=True)
class Arrived:
    """The end of an answer as it was opened here."""

    statement: Statement[NodeStatement]
    """The node's own, verified; it commits to the output that we read."""
    price: Price
    """What its counters cost by the rates of the offer that we took, in the charter's currency."""


def acknowledge(
    placed: PlacementReceipt,
    executed: Statement[ExecutionReceipt],
    arrived: Arrived | None,
    seen: Sequence[SeenCheckpoint],
    at: datetime,
) -> AcknowledgementDraft:
    """What to sign of an Execution. placed: our own, which it names. seen: where its log stood for us.

    arrived: None = no complete answer was opened here. Where the Execution states nothing and bills nothing,
    it is agreed that nothing is owed: so it reads after its broker crashed, whatever arrived. Without an
    answer nothing else is agreed; the status `timeout` accuses nobody, for the application may have gone.
    """
    body, draft = executed.body, _draft(placed, executed, seen, at)
    if body.response is None and body.price is None and body.usage == NO_USAGE:
        return draft.model_copy(update={"status": "agreed", "usage_agreed": NO_USAGE})
    if arrived is None:
        return draft
    opened = {"response": arrived.statement.body.response}
    try:
        _hold(executed, arrived)
    except Refused as error:
        return draft.model_copy(update={**opened, "status": "disputed", "dispute": Dispute(code=error.code)})
    return draft.model_copy(update={**opened, "status": "agreed", "usage_agreed": body.usage})


def _draft(
    placed: PlacementReceipt,
    executed: Statement[ExecutionReceipt],
    seen: Sequence[SeenCheckpoint],
    at: datetime,
) -> AcknowledgementDraft:
    named = {link.rel: link.digest for link in executed.body.links}
    return AcknowledgementDraft(
        audience=placed.audience,
        peer=executed.body.issuer,
        request=placed.request,
        times=Times(issued=format_time(at)),
        trace=placed.trace,
        links=[
            Link(rel="placement", digest=named["placement"]),
            Link(rel="execution", digest=executed.digest.hex()),
        ],
        status="timeout",
        seen=list(seen),
        retention=placed.retention,
    )


def _hold(executed: Statement[ExecutionReceipt], arrived: Arrived) -> ExecutionReceipt:
    """The Execution, if it repeats what the node told us. Raises `Refused` with what differs."""
    body, said = executed.body, arrived.statement
    check_same_run(body, said.body)
    if [link.digest for link in body.links if link.rel == "node"] != [said.digest.hex()]:
        raise Refused("ack.statement", "the Execution names another statement of the node")
    if body.price is not None and body.price != arrived.price:
        raise Refused("ack.price", f"{body.price}, where the offer makes {arrived.price}")
    return body
