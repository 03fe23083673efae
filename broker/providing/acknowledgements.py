"""What consumers acknowledge of our Executions, kept beside them: a domain that was paid can show it (3.4).

A consumer's word is taken once for each Execution; another one about the same is refused, and both are
signed. What is kept stands in the bundle of its request.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from dataclasses import dataclass, field

from broker.observe.metrics import Metrics
from broker.peers import Peers
from broker.shelf import own_receipts
from receipts.log import Keep, TransparencyLog
from receipts.statements.receipt import ACKNOWLEDGEMENT, AcknowledgementReceipt, ExecutionReceipt
from receipts.statements.statement import Statement, parse_receipt, receipt_kind
from schemas import envelope
from schemas.errors import Refused
from schemas.messages.negotiation import ReceiptAck, StatusReply

log = logging.getLogger("comity.receipts")


@dataclass(slots=True)
class Acknowledgements:
    """The provider's copies. Durable through the log's one writer."""

    peers: Peers
    log: TransparencyLog = field(repr=False)
    metrics: Metrics = field(repr=False)
    _turns: defaultdict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))
    """One word of a member at a time: two at once would both be the first."""

    async def take(self, consumer: str, payload: bytes) -> bytes:
        """ReceiptAck → StatusReply, once it is kept. The same word again changes nothing.

        Raises `Unreadable` or `Refused`; nothing is kept then.
        """
        asked = self.peers.receive(payload, ReceiptAck, consumer)
        said, promise = asked.body.acknowledgement.encode(), asked.body.promise.encode()
        # With its log's promise: what it gives us, it may not leave out of its log again.
        found = self.peers.receive_receipt(consumer, AcknowledgementReceipt, said, promise)
        async with self._turns[consumer]:
            execution = await self._execution(consumer, found.body)
            if await self._is_new(found, execution):
                await self.log.keep(Keep(found.body.request.id, envelopes=[said, promise]))
                self._tell(found.body)
        reply = self.peers.compose(
            StatusReply,
            consumer,
            nid=asked.body.nid,
            seq=asked.body.seq + 1,
            prev=asked.digest.hex(),
            state="CLOSED",
            execution=execution,
        )
        return self.peers.sign(reply)

    async def _execution(self, consumer: str, said: AcknowledgementReceipt) -> str:
        """Digest (hex) of our Execution that it is about. Raises `Refused`."""
        named = {link.rel: link.digest for link in said.links}
        digest = named.get("execution", "")
        executed = (await own_receipts(self.log, said.request.id)).get(digest)
        if not isinstance(executed, ExecutionReceipt) or executed.peer != consumer:
            raise Refused("ack.unknown", "no Execution of ours for you, of this request")
        if [link.digest for link in executed.links if link.rel == "placement"] != [named.get("placement")]:
            raise Refused("ack.placement", "the Execution is about another Placement")
        if said.status == "agreed" and (said.response, said.usage_agreed) != (
            executed.response, executed.usage,
        ):  # fmt: skip
            raise Refused("ack.agreed", "what is agreed is not what the Execution states")
        return digest

    async def _is_new(self, found: Statement[AcknowledgementReceipt], execution: str) -> bool:
        """False for the word that is kept already. Raises `Refused` (`ack.second`) for another one."""
        for data in await self.log.kept_of(found.body.request.id):
            parsed = envelope.read(data)
            if receipt_kind(parsed.payload) != ACKNOWLEDGEMENT:
                continue
            earlier = parse_receipt(parsed.payload, AcknowledgementReceipt)
            if any(link.digest == execution for link in earlier.links):
                if parsed.digest != found.digest:
                    raise Refused("ack.second", "another Acknowledgement of this Execution is here")
                return False
        return True

    def _tell(self, said: AcknowledgementReceipt) -> None:
        self.metrics.acknowledged(said.status)
        if said.dispute is not None:
            extra = {"peer": said.issuer, "code": said.dispute.code, "request": said.request.id}
            log.warning("a consumer disputes an Execution of ours", extra=extra)
