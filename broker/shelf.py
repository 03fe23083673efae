"""Step 8 and after: what the consumer keeps of each run, and how an application gets its receipt.

The Execution is the provider's to deliver; one that does not come is asked for, and its absence is
an alarm (the peer's next sequence number will show the gap). Each is acknowledged in the transaction that
keeps it, once; an attempt that is still under way waits for what comes out of the seal.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final
from weakref import WeakValueDictionary

from broker.acknowledging import Arrived, acknowledge
from broker.peers import Peers, new_negotiation, only
from broker.providing.holds import TERMINAL
from receipts import checkpoint
from receipts.log import Draft, Issued, Keep, TransparencyLog
from receipts.statements.fields import SeenCheckpoint
from receipts.statements.node import parse_node_statement
from receipts.statements.receipt import (
    MODELS,
    PLACEMENT,
    AcknowledgementDraft,
    AcknowledgementReceipt,
    ExecutionReceipt,
    PlacementReceipt,
    Receipt,
)
from receipts.statements.statement import Statement, parse_receipt, receipt_kind
from receipts.witnessing.state import WitnessState
from schemas import envelope
from schemas.canonical import Wire
from schemas.errors import ComityError, Refused, Undecided
from schemas.messages.answer import ReceiptDelivery
from schemas.messages.negotiation import FetchReceipt, ReceiptAck, Status, StatusReply
from schemas.primitives import Digest, DomainName, Token

FETCH_S: Final = 2.0  # seconds for a peer to hand over a receipt or a proof
FETCH_TRIES: Final = 4
FETCH_PAUSE_S: Final = 0.1  # seconds before the second try; doubled each time
RECOVER_ROUNDS: Final = 9  # times that a provider is asked after our start, over about four minutes
RECOVER_PAUSE_S: Final = 1.0  # seconds before the second time; doubled each time
MAX_DELIVERY_BYTES: Final = 512 * 1024  # three envelopes and a proof
REQUEST: Final = "request"  # write-ahead rows: request id on the wire → tenant
UNKNOWN: Final = "receipt.unknown"  # a provider's answer about an attempt that it has no Execution of
INTENT: Final = "intent"  # write-ahead rows: negotiation of an attempt → what is still owed for it
log = logging.getLogger("comity.receipts")


class Intent(Wire):
    """What is still owed for a Placement: its Execution to us, what we say of it to its provider.

    Digests only (session.md 11).
    """

    provider: DomainName
    request_id: Token
    commitment: Digest
    """Of this attempt's body: it tells the attempts of one request apart."""
    nid: Token | None = None
    """Its negotiation, which names the row. Rows that older logs hold do without."""

    @property
    def row(self) -> str:
        return self.nid or self.commitment


async def own_receipts(log: TransparencyLog, request_id: str) -> dict[str, Receipt]:
    """Our own receipts of a request by their digests (hex), in the order of our log."""
    parsed = [envelope.read(data) for data in await log.of_request(request_id)]
    return {
        each.digest.hex(): parse_receipt(each.payload, MODELS[receipt_kind(each.payload)]) for each in parsed
    }


@dataclass(frozen=True, slots=True)
class Filed:
    """An Execution that is kept, and what came of it at once."""

    execution: Statement[ExecutionReceipt]
    said: Sequence[Issued] = ()
    """The Acknowledgement that this filing issued; none where an earlier one had, or a later one will."""


@dataclass(slots=True)
class Shelf:
    """The consumer's copies. Durable through the log's one writer."""

    peers: Peers
    log: TransparencyLog = field(repr=False)
    witness: WitnessState | None = field(default=None, repr=False)
    """Ours, which cosigns the others' logs; None where this domain runs none."""
    missing: int = 0
    """Executions that were due and did not come: an alarm for the operator."""
    disputed: int = 0
    """Executions that say something else than came out of the seal: likewise."""
    under_way: dict[str, Arrived | None] = field(default_factory=dict, repr=False)
    """Commitments of attempts that answering has not left, and what came out of the seal, once it did."""
    _turns: WeakValueDictionary[bytes, asyncio.Lock] = field(default_factory=WeakValueDictionary)
    """By Execution: two deliveries of one are filed one after the other, and acknowledged once."""

    async def file(self, intent: Intent, data: bytes) -> Filed:
        """Verify a delivered Execution, keep it with the node's statement, acknowledge it.

        Raises `Unreadable` or `Refused`; nothing is kept then.
        """
        delivery = ReceiptDelivery.read(data, limit=MAX_DELIVERY_BYTES)
        execution, promise = delivery.execution.encode(), delivery.promise.encode()
        found = self.peers.receive_receipt(intent.provider, ExecutionReceipt, execution, promise)
        links = {link.rel: link.digest for link in found.body.links}
        async with self._turns.setdefault(found.digest, asyncio.Lock()):
            arrived = self.under_way.get(intent.commitment)
            said = arrived.statement.envelope if arrived else _linked_statement(delivery, links.get("node"))
            proofs = {found.digest: delivery.proof.encode()} if delivery.proof else {}
            envelopes = [execution, promise, *([said] if said else [])]
            kept = Keep(intent.request_id, envelopes=envelopes, proofs=proofs)
            own = await own_receipts(self.log, intent.request_id)
            placed = own.get(links.get("placement", ""))
            if not isinstance(placed, PlacementReceipt) or placed.request.commitment != intent.commitment:
                raise Refused("shelf.link", "the Execution is about another Placement")
            if found.body.request.commitment != intent.commitment:
                raise Refused("shelf.request", "the Execution is about another request")
            # Who reads the answer files this again, with the last word: until then it is kept, and no more.
            early = arrived is None and intent.commitment in self.under_way
            due = not early and not _acknowledged(found, own.values())
            drafts = [Draft(await self._acknowledgement(placed, found, arrived))] if due else []
            return Filed(found, await self.log.issue(drafts, keep=kept))

    async def close(self, intent: Intent, said: Sequence[Issued] = ()) -> bool:
        """Hand the provider what we acknowledge of its Execution; then nothing is owed any more.

        said: what was just issued; otherwise our log tells. False for a provider that is away, and where we
        said nothing yet: that is made up for at our next start. One that refuses has our word in our log all
        the same.
        """
        words = said or await self._said(intent)
        for issued in words:
            try:
                await self._hand_over(intent.provider, issued)
            except ComityError as error:
                extra = {"peer": intent.provider, "code": error.code, "request": intent.request_id}
                if isinstance(error, Undecided):
                    log.info("acknowledgement not delivered yet", extra=extra)
                    return False
                log.warning("acknowledgement refused", extra=extra)
        if words:
            await self.log.settle(INTENT, intent.row)
        return bool(words)

    async def _said(self, intent: Intent) -> list[Issued]:
        """What our log says that we acknowledged of this attempt."""
        found = [
            await self.log.issued(body.receipt_id)
            for body in (await own_receipts(self.log, intent.request_id)).values()
            if isinstance(body, AcknowledgementReceipt)
            and (body.peer, body.request.commitment) == (intent.provider, intent.commitment)
        ]
        return [issued for issued in found if issued is not None]

    async def _hand_over(self, provider: str, issued: Issued) -> StatusReply:
        nid = new_negotiation()
        said = self.peers.compose(
            ReceiptAck,
            provider,
            nid=nid,
            acknowledgement=issued.envelope.decode(),
            promise=issued.promise.decode(),
        )
        data = self.peers.sign(said)
        reply = await self.peers.ask(provider, "acknowledge", data, within=FETCH_S)
        return only(self.peers.receive(reply, StatusReply, provider), nid, envelope.read(data).digest).body

    async def _acknowledgement(
        self, placed: PlacementReceipt, found: Statement[ExecutionReceipt], arrived: Arrived | None
    ) -> AcknowledgementDraft:
        seen = await asyncio.to_thread(self._seen, placed.peer)
        draft = acknowledge(placed, found, arrived, seen, datetime.now(UTC))
        if draft.dispute is not None:
            self.disputed += 1
            extra = {"peer": placed.peer, "code": draft.dispute.code, "request": placed.request.id}
            log.warning("an Execution is disputed", extra=extra)
        return draft

    def _seen(self, provider: str) -> list[SeenCheckpoint]:
        """Where the provider's log stood when our witness last cosigned it: a log that is shown to others
        otherwise is found out by who compares the two (receipts.md 3.4)."""
        found: list[SeenCheckpoint] = []
        try:
            for each in self.peers.trust.manifest(provider).logs:
                note = self.witness.latest(each.origin) if self.witness else None
                if note is not None:
                    stated = checkpoint.read(note).checkpoint
                    found.append(
                        SeenCheckpoint(origin=stated.origin, size=stated.size, root=stated.root.hex())
                    )
        except ComityError as error:
            log.warning("our witness cannot be read", extra={"peer": provider, "code": error.code})
        return found

    async def keep(self, request_id: str, *, statement: bytes) -> None:
        """The node's own statement, as it came inside the seal."""
        await self.log.keep(Keep(request_id, envelopes=[statement]))

    async def bundle(self, receipt_id: str, tenant: str) -> bytes | None:
        """The auditor's bundle of one of this tenant's receipts; None for any other.

        Every attempt of the request stands in it. What a peer executed is asked for once more before the
        bundle is made, because its proof follows its Execution.
        """
        issued = await self.log.issued(receipt_id)
        payload = envelope.read(issued.envelope).payload if issued else b""
        if issued is None or receipt_kind(payload) != PLACEMENT:
            return None
        request_id = parse_receipt(payload, PlacementReceipt).request.id
        owner = await self.log.recorded(REQUEST, request_id)
        if owner != tenant.encode():
            return None
        abroad = [
            Intent(provider=body.peer, request_id=request_id, commitment=body.request.commitment)
            for body in (await own_receipts(self.log, request_id)).values()
            if isinstance(body, PlacementReceipt) and body.peer != self.peers.domain
        ]
        await asyncio.gather(*(self.fetch(intent, tries=1) for intent in abroad))
        return await self.log.bundle(receipt_id)

    async def surely_ended(self, provider: str, nid: str) -> bool:
        """Whether the provider itself says that this run is over. Silence is not an answer."""
        asked = self.peers.compose(Status, provider, nid=nid, seq=3)
        data = self.peers.sign(asked)
        try:
            reply = await self.peers.ask(provider, "status", data, within=FETCH_S)
            body = only(
                self.peers.receive(reply, StatusReply, provider), nid, envelope.read(data).digest
            ).body
        except ComityError:
            return False
        return body.state in TERMINAL

    async def fetch(self, intent: Intent, *, tries: int = FETCH_TRIES, due: bool = True) -> bool:
        """Ask the provider for its Execution and proof. False, and an alarm if it was due, without one."""
        return await self._fetch(intent, tries, due=due) is None

    async def _fetch(self, intent: Intent, tries: int, *, due: bool) -> str | None:
        """Code of what stood in the way at last; None once it is filed."""
        code: str | None = None
        for attempt in range(tries):
            if attempt:
                await asyncio.sleep(FETCH_PAUSE_S * 2 ** (attempt - 1))
            try:
                await self.file(intent, await self._ask(intent))
                return None
            except ComityError as error:
                code = error.code
                extra = {"peer": intent.provider, "code": code, "request": intent.request_id}
                log.warning("execution not delivered", extra=extra)
        self.missing += due
        return code

    async def recover(self) -> None:
        """After a start: come for every Execution that was due when we stopped, and say what we say of it.

        Never a second Execute.

        A provider that is away, perhaps because it starts as well, is asked again for some minutes; later at
        our next start, or when somebody wants the receipt. One that still answers then that there is none
        never got the order, or will not show what it did: the Placement stays, and says so to an auditor.
        """
        rows = [Intent.read(row.data) for row in await self.log.unsettled(INTENT)]
        # Our own were concluded before we began to serve.
        owed = [intent for intent in rows if intent.provider != self.peers.domain]
        for attempt in range(RECOVER_ROUNDS):
            last = attempt + 1 == RECOVER_ROUNDS
            owed = [each for each in owed if not await self._come_for(each, first=not attempt, last=last)]
            if not owed or last:
                return
            await asyncio.sleep(RECOVER_PAUSE_S * 2**attempt)

    async def _come_for(self, intent: Intent, *, first: bool, last: bool) -> bool:
        code = await self._fetch(intent, tries=1, due=first)
        if last and code == UNKNOWN:
            await self.log.settle(INTENT, intent.row)
        return code is None and await self.close(intent)

    async def _ask(self, intent: Intent) -> bytes:
        provider = intent.provider
        asked = self.peers.compose(
            FetchReceipt,
            provider,
            nid=new_negotiation(),
            request_id=intent.request_id,
            commitment=intent.commitment,
        )
        return await self.peers.ask(provider, "receipt", self.peers.sign(asked), within=FETCH_S)


def _acknowledged(execution: Statement[ExecutionReceipt], own: Iterable[Receipt]) -> bool:
    said = (body for body in own if isinstance(body, AcknowledgementReceipt))
    return any(link.digest == execution.digest.hex() for body in said for link in body.links)


def _linked_statement(delivery: ReceiptDelivery, linked: str | None) -> bytes | None:
    """The node's statement as the provider kept it, if it is the one that the Execution names.

    Its signature is not checked here: who verifies the bundle does, under a key that the evidence proves.
    Raises `Unreadable` or `Refused`.
    """
    if delivery.statement is None:
        return None
    data = delivery.statement.encode()
    parsed = envelope.read(data)
    parse_node_statement(parsed.payload)
    if parsed.digest.hex() != linked:
        raise Refused("shelf.statement", "the node's statement is not the one that the Execution names")
    return data
