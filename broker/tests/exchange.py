"""One attempt between two domains, with both their logs: what the provider signs and the consumer keeps."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from broker.acknowledging import Arrived
from broker.observe.metrics import Metrics
from broker.placing.attempt import new_commitment
from broker.providing.acknowledgements import Acknowledgements
from broker.providing.executions import Executions, Run
from broker.shelf import INTENT, Intent, Shelf, own_receipts
from broker.tests.logs import opened
from broker.tests.parties import CONSUMER, PROVIDER, Parties
from broker.tests.test_attempt import BODY, statement
from broker.tests.test_executions import order
from receipts.log import Draft, Issued, Recorded, TransparencyLog
from receipts.retention import retention
from receipts.statements.fields import Link, Price, RequestRef
from receipts.statements.node import verify_node_statement
from receipts.statements.receipt import ACKNOWLEDGEMENT, AcknowledgementReceipt
from receipts.statements.statement import parse_receipt, receipt_kind
from receipts.tests.world import placement
from schemas import envelope
from schemas.errors import Undecided
from schemas.messages.answer import ReceiptDelivery

KEPT = retention(["ai-act-deployer"], datetime.now(UTC))


@dataclass
class _Lying:
    """A provider's log, which signs something else than was concluded."""

    log: TransparencyLog
    lies: dict[str, Any]

    async def issue(self, drafts: list[Draft], **more: Any) -> list[Issued]:
        changed = [Draft(each.body.model_copy(update=self.lies)) for each in drafts]
        return await self.log.issue(changed, **more)


class _Road:
    """A bus that leads to one provider's ear; to nobody while there is none."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.takes: Callable[[str, bytes], Awaitable[bytes]] | None = None

    async def request(self, subject: str, payload: bytes, **_: Any) -> bytes:
        assert subject == "peer.cloud_fr.acknowledge"
        if self.takes is None:
            raise Undecided("bus.absent", "nobody serves it")
        self.heard.append(payload)
        return await self.takes(CONSUMER, payload)


@dataclass
class Provider:
    """The other side, with its log open."""

    log: TransparencyLog
    taker: Acknowledgements
    heard: list[bytes]
    """What was said to it."""

    async def kept(self) -> list[str]:
        """What it keeps of its consumer's word, by status."""
        payloads = [envelope.read(data).payload for data in await self.log.kept_of("r1")]
        said = [each for each in payloads if receipt_kind(each) == ACKNOWLEDGEMENT]
        return [parse_receipt(each, AcknowledgementReceipt).status for each in said]


@dataclass
class Exchange:
    """One attempt that the consumer placed and the provider ran."""

    parties: Parties
    log: TransparencyLog
    shelf: Shelf
    run: Run
    sealed: Any
    intent: Intent
    folder: Path
    road: _Road

    said: bytes = field(init=False)
    """The node's statement, as it stood inside the seal."""

    def __post_init__(self) -> None:
        self.said = statement(self.parties, self.sealed, b"an answer")

    @property
    def arrived(self) -> Arrived:
        statement = verify_node_statement(self.said, self.parties.node.sign.public)
        return Arrived(statement, Price(micro=1, currency="EUR"))  # (3 x 1 + 3 x 2) / 1000, rounded up once

    @property
    def placed(self) -> Link:
        return Link(rel="placement", digest=self.run.order.body.placement)

    async def deliver(self, said: bytes | None = b"", **lies: Any) -> bytes:
        """The provider's Execution over the node's statement, or over none; `lies` replace fields of it."""
        if said is not None:
            self.run.note_statement(said or self.said)
        async with opened(self.folder, self.parties, PROVIDER) as log:
            executions = Executions(PROVIDER, "EUR", _Lying(log, lies))  # type: ignore[arg-type]
            issued = await executions.conclude(self.run)
        return ReceiptDelivery(
            receipt_id=issued.receipt_id, execution=issued.envelope.decode(), promise=issued.promise.decode()
        ).write()

    @asynccontextmanager
    async def provider(self) -> AsyncIterator[Provider]:
        """It serves while this is open."""
        async with opened(self.folder, self.parties, PROVIDER) as log:
            taker = Acknowledgements(self.parties.peers(PROVIDER), log, Metrics())
            self.road.takes = taker.take
            yield Provider(log, taker, self.road.heard)
            self.road.takes = None

    async def acknowledged(self) -> list[AcknowledgementReceipt]:
        own = await own_receipts(self.log, self.intent.request_id)
        return [body for body in own.values() if isinstance(body, AcknowledgementReceipt)]


@asynccontextmanager
async def begun(parties: Parties, folder: Path) -> AsyncIterator[Exchange]:
    """Placed by the consumer, whose log is open; run by the provider, and not concluded yet."""
    secret, commitment = new_commitment(BODY)
    async with opened(folder, parties, CONSUMER) as log:
        intent = Intent(provider=PROVIDER, request_id="r1", commitment=commitment)
        (placed,) = await log.issue(
            [Draft(placement(request=RequestRef(id="r1", commitment=commitment), retention=KEPT))],
            record=[Recorded(INTENT, intent.row, intent.write())],
        )
        run, sealed = order(parties, secret=secret, placement=placed.digest.hex())
        road = _Road()
        shelf = Shelf(replace(parties.peers(CONSUMER), bus=road), log)  # type: ignore[arg-type]
        yield Exchange(parties, log, shelf, run, sealed, intent, folder, road)
