"""What our domain signs about runs: the durable commitment before, the Execution receipt after.

The commitment *is* the Execution as it would read if we crashed now (`failed`, nothing stated). So a
crash leaves nothing to reconstruct: what is unsettled at the next start is issued as it stands.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from broker.placing.policy_block import policy_block
from broker.shelf import INTENT, UNKNOWN, Intent, own_receipts
from receipts.log import Draft, Issued, Keep, Recorded, TransparencyLog
from receipts.retention import retention
from receipts.statements.fields import (
    NO_USAGE,
    Attestation,
    Capability,
    Commitment,
    Link,
    NodeRecord,
    Price,
    RequestRef,
    Times,
    Usage,
)
from receipts.statements.node import NodeStatement, verify_node_statement
from receipts.statements.receipt import (
    ExecutionDraft,
    ExecutionReceipt,
    Outcome,
    PlacementReceipt,
)
from receipts.statements.statement import Statement
from schemas.descriptors.capability import Rates, check_price
from schemas.errors import Refused
from schemas.keys import VerifyKey
from schemas.messages.answer import ReceiptDelivery
from schemas.messages.execute import Execute
from schemas.messages.message import Received
from schemas.messages.negotiation import FetchReceipt, Offer
from schemas.policy.layers import Decision
from schemas.primitives import format_time

COMMITMENT: Final = "commitment"
CRASHED: Final = "run.crashed"


@dataclass(slots=True)
class Run:
    """One run as the border sees it from outside the seal."""

    order: Received[Execute]
    offer: Offer
    decision: Decision
    node_key: VerifyKey
    attestation: Attestation | None
    """What our agent's evidence of the node was, by digest."""
    trace: str | None
    started: datetime
    statement: Statement[NodeStatement] | None = None
    failure: str | None = None
    cancelled: bool = False
    opened: bool = False
    """Whether the node could open the order: then it began to answer."""

    def note_statement(self, data: bytes) -> None:
        """The node's word in the clear. One about another order, or by another key, counts as none.

        Raises `Refused`, also where nobody could be billed for what it counts.
        """
        statement = verify_node_statement(data, self.node_key)
        if statement.body.header == self.order.digest.hex():
            cost_of(statement.body.usage, self.offer.rates)
            self.statement = statement

    @property
    def outcome(self) -> Outcome:
        if self.statement is not None:
            return self.statement.body.outcome
        return "cancelled" if self.cancelled else "failed"

    @property
    def code(self) -> str:
        if self.statement is not None:
            return self.statement.body.code
        return self.failure or ("run.cancelled" if self.cancelled else "run.no_statement")


@dataclass(slots=True)
class Executions:
    """The provider's receipts. All writing goes through the log's one writer."""

    domain: str
    currency: str
    log: TransparencyLog = field(repr=False)
    retention: tuple[str, ...] = ()
    """Retention classes of what we sign as provider."""

    async def commit(self, run: Run) -> None:
        """Make the commitment durable; only then may anything leave for the node.

        For our own tenant it is durable already: the Placement stands in this very log, with its intent.
        """
        if run.order.body.iss == self.domain:
            return
        row = Recorded(COMMITMENT, run.order.body.nid, self._pessimistic(run).write())
        kept = Keep(run.order.body.request_id, evidence=_facts(run.decision))
        await self.log.issue([], keep=kept, record=[row])

    async def conclude(self, run: Run) -> Issued:
        """Sign and log what became of the run, then settle its commitment."""
        execute = run.order.body
        changes: dict[str, Any] = {"outcome": run.outcome, "code": run.code}
        if run.statement is not None:
            changes |= self._stated(run, run.statement)
        draft = self._pessimistic(run).model_copy(update=changes)
        said = [run.statement.envelope] if run.statement else []
        kept = Keep(execute.request_id, envelopes=said, evidence=_facts(run.decision))
        own = execute.iss == self.domain
        settled = (INTENT, execute.nid) if own else (COMMITMENT, execute.nid)
        (issued,) = await self.log.issue([Draft(draft)], keep=kept, settle=[settled])
        return issued

    async def recover(self) -> list[Issued]:
        """At start: every run that a crash cut off gets the receipt that its commitment promised."""
        issued: list[Issued] = []
        for row in await self.log.unsettled(COMMITMENT):
            draft = ExecutionDraft.read(row.data)
            issued += await self.log.issue([Draft(draft)], settle=[(COMMITMENT, row.key)])
        for row in await self.log.unsettled(INTENT):
            intent = Intent.read(row.data)
            if intent.provider == self.domain:
                issued += await self._recover_own(intent)
        return issued

    async def _recover_own(self, intent: Intent) -> list[Issued]:
        """A run for our own tenant: its Placement says all that its Execution needs, unless there is one."""
        placement: tuple[str, PlacementReceipt] | None = None
        for digest, body in (await own_receipts(self.log, intent.request_id)).items():
            if body.request.commitment != intent.commitment:
                continue
            if isinstance(body, ExecutionReceipt):
                await self.log.settle(INTENT, intent.row)
                return []
            if isinstance(body, PlacementReceipt) and body.peer == self.domain:
                placement = digest, body
        assert placement is not None, "an intent is recorded with its Placement, in one transaction"
        draft = _crashed(*placement)
        return await self.log.issue([Draft(draft)], settle=[(INTENT, intent.row)])

    async def deliver(self, consumer: str, wanted: FetchReceipt) -> ReceiptDelivery:
        """The newest Execution of this consumer's attempt, from the log: a restart forgets none.

        With it goes the node's statement, which a consumer that crashed in mid-answer never opened.
        Raises `Refused` (`UNKNOWN`) when there is none.
        """
        body = await self._find(consumer, wanted)
        issued = await self.log.issued(body.receipt_id) if body else None
        if body is None or issued is None:
            raise Refused(UNKNOWN, "no Execution of yours of this attempt")
        proof = await self.log.proof(issued.receipt_id)
        said = [bytes.fromhex(link.digest) for link in body.links if link.rel == "node"]
        statement = await self.log.kept(said[0]) if said else None
        return ReceiptDelivery(
            receipt_id=issued.receipt_id,
            execution=issued.envelope.decode(),
            promise=issued.promise.decode(),
            proof=proof.decode() if proof else None,
            statement=statement.decode() if statement else None,
        )

    async def _find(self, consumer: str, wanted: FetchReceipt) -> ExecutionReceipt | None:
        own = await own_receipts(self.log, wanted.request_id)
        executed = (body for body in reversed(own.values()) if isinstance(body, ExecutionReceipt))
        named = (consumer, wanted.commitment)
        return next((body for body in executed if (body.peer, body.request.commitment) == named), None)

    def _pessimistic(self, run: Run) -> ExecutionDraft:
        execute = run.order.body
        return ExecutionDraft(
            audience=sorted({execute.iss, self.domain}),
            peer=execute.iss,
            request=RequestRef(id=execute.request_id, commitment=execute.input_commitment),
            times=Times(started=format_time(run.started), issued=format_time(datetime.now(UTC))),
            trace=run.trace,
            links=[Link(rel="placement", digest=execute.placement)],
            outcome="failed",
            code=CRASHED,
            capability=Capability(
                name=execute.capability,
                artifact_digest=execute.model_digest,
                model_signing_digest=execute.model_signing,
            ),
            nodes=[NodeRecord(id=execute.node_sign, role="inference", attestation=run.attestation)],
            usage=NO_USAGE,
            retention=retention(self.retention, datetime.now(UTC)) if self.retention else None,
            policy=policy_block(run.decision, input_commitment=execute.tags_digest),
        )

    def _stated(self, run: Run, statement: Statement[NodeStatement]) -> dict[str, Any]:
        """What the node's own statement adds: the fields that only it knows (receipts.md 3.3)."""
        execute, said = run.order.body, statement.body
        return {
            "links": [
                Link(rel="placement", digest=execute.placement),
                Link(rel="node", digest=statement.digest.hex()),
            ],
            "response": Commitment(commitment=said.response.commitment),
            "capability": said.capability,
            "usage": said.usage,
            "price": Price(micro=cost_of(said.usage, run.offer.rates), currency=self.currency),
            "times": Times(
                started=format_time(run.started),
                finished=said.times.finished,
                issued=format_time(datetime.now(UTC)),
            ),
        }


def cost_of(usage: Usage, rates: Rates) -> int:
    """Micro-units for these counters: who ran bills them, and who asked acknowledges no others.

    Raises `Refused` (`price.beyond_count`) for counters that no run has.
    """
    total = rates.total(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cached_tokens=usage.cached_tokens,
    )
    return check_price(total)


def _facts(decision: Decision) -> list[bytes]:
    """What our own policy decided over: kept, so that an auditor of our log can decide again."""
    return [decision.record] if decision.record else []


def _crashed(digest: str, placement: PlacementReceipt) -> ExecutionDraft:
    """The Execution of a run that was cut off here, after its Placement and before anything was stated."""
    return ExecutionDraft(
        audience=placement.audience,
        peer=placement.peer,
        request=placement.request,
        times=Times(issued=format_time(datetime.now(UTC))),
        trace=placement.trace,
        links=[Link(rel="placement", digest=digest)],
        outcome="failed",
        code=CRASHED,
        capability=placement.capability,
        nodes=placement.nodes,
        usage=NO_USAGE,
        policy=placement.policy,
    )
