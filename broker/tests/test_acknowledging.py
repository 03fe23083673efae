"""What the consumer's broker says of an Execution: agreed only where it is what came out of the seal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from broker.acknowledging import Arrived
from broker.placing.attempt import new_commitment
from broker.providing.executions import Executions, Run
from broker.shelf import INTENT, Intent, Shelf, own_receipts
from broker.tests.logs import opened
from broker.tests.parties import CONSUMER, PROVIDER, Parties
from broker.tests.test_attempt import BODY, statement
from broker.tests.test_executions import order
from receipts.log import Draft, Issued, Keep, Recorded, TransparencyLog
from receipts.retention import retention
from receipts.statements.fields import NO_USAGE, Capability, Commitment, Link, Price, RequestRef
from receipts.statements.node import verify_node_statement
from receipts.statements.receipt import AcknowledgementReceipt
from receipts.tests.world import placement
from schemas import envelope
from schemas.errors import Refused
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

    async def acknowledged(self) -> list[AcknowledgementReceipt]:
        own = await own_receipts(self.log, self.intent.request_id)
        return [body for body in own.values() if isinstance(body, AcknowledgementReceipt)]


@pytest.fixture
async def exchange(parties: Parties, tmp_path: Path) -> AsyncIterator[Exchange]:
    secret, commitment = new_commitment(BODY)
    async with opened(tmp_path, parties, CONSUMER) as log:
        intent = Intent(provider=PROVIDER, request_id="r1", commitment=commitment)
        (placed,) = await log.issue(
            [Draft(placement(request=RequestRef(id="r1", commitment=commitment), retention=KEPT))],
            record=[Recorded(INTENT, commitment, intent.write())],
        )
        run, sealed = order(parties, secret=secret, placement=placed.digest.hex())
        shelf = Shelf(parties.peers(CONSUMER), log)
        yield Exchange(parties, log, shelf, run, sealed, intent, tmp_path)


async def test_what_came_out_of_the_seal_is_agreed(exchange: Exchange) -> None:
    exchange.shelf.under_way[exchange.intent.commitment] = exchange.arrived
    found = await exchange.shelf.file(exchange.intent, await exchange.deliver())
    (said,) = await exchange.acknowledged()
    assert (said.status, said.peer, said.role) == ("agreed", PROVIDER, "broker")
    assert {link.rel: link.digest for link in said.links} == {
        "placement": exchange.run.order.body.placement,
        "execution": found.digest.hex(),
    }
    assert said.response == found.body.response
    assert said.usage_agreed == found.body.usage
    assert said.retention == KEPT
    assert await exchange.log.unsettled(INTENT) == []
    assert exchange.shelf.disputed == 0


LIES: dict[str, tuple[Callable[[Exchange], dict[str, Any]], str]] = {
    "more tokens": (
        lambda _: {"usage": NO_USAGE.model_copy(update={"output_tokens": 9000})},
        "verify.usage",
    ),
    "another answer": (lambda _: {"response": Commitment(commitment="11" * 32)}, "verify.response"),
    "another model": (
        lambda _: {"capability": Capability(name="chat.small/tiny", artifact_digest="22" * 32)},
        "verify.capability",
    ),
    "another price": (lambda _: {"price": Price(micro=2, currency="EUR")}, "ack.price"),
    "another currency": (lambda _: {"price": Price(micro=1, currency="CHF")}, "ack.price"),
    "no statement": (lambda each: {"links": [each.placed]}, "ack.statement"),
    "another statement": (
        lambda each: {"links": [each.placed, Link(rel="node", digest="33" * 32)]},
        "ack.statement",
    ),
}


@pytest.mark.parametrize("lie", LIES)
async def test_what_differs_is_disputed_and_nothing_of_it_agreed(exchange: Exchange, lie: str) -> None:
    change, code = LIES[lie]
    exchange.shelf.under_way[exchange.intent.commitment] = exchange.arrived
    await exchange.shelf.file(exchange.intent, await exchange.deliver(**change(exchange)))
    (said,) = await exchange.acknowledged()
    assert (said.status, said.usage_agreed) == ("disputed", None)
    assert said.dispute is not None
    assert said.dispute.code == code
    assert said.response == exchange.arrived.statement.body.response
    assert exchange.shelf.disputed == 1


async def test_of_several_placements_the_one_that_was_ours_is_acknowledged(exchange: Exchange) -> None:
    node = Link(rel="node", digest=envelope.read(exchange.said).digest.hex())
    links = [Link(rel="placement", digest="55" * 32), exchange.placed, node]
    exchange.shelf.under_way[exchange.intent.commitment] = exchange.arrived
    await exchange.shelf.file(exchange.intent, await exchange.deliver(links=links))
    (said,) = await exchange.acknowledged()
    assert [link for link in said.links if link.rel == "placement"] == [exchange.placed]


async def test_while_the_answer_is_read_an_execution_is_kept_and_not_acknowledged(exchange: Exchange) -> None:
    delivery = await exchange.deliver()
    exchange.shelf.under_way[exchange.intent.commitment] = None
    found = await exchange.shelf.file(exchange.intent, delivery)
    assert await exchange.acknowledged() == []
    assert len(await exchange.log.unsettled(INTENT)) == 1
    assert await exchange.log.kept(found.digest)
    exchange.shelf.under_way[exchange.intent.commitment] = exchange.arrived
    await exchange.shelf.file(exchange.intent, delivery)
    assert [each.status for each in await exchange.acknowledged()] == ["agreed"]


async def test_who_fetches_while_the_answer_is_read_takes_the_last_word_from_nobody(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was kept early counted as being filed when the answer's end came: then nobody acknowledged it."""
    delivery, shelf, commitment = await exchange.deliver(), exchange.shelf, exchange.intent.commitment
    keeping, go_on, keep = asyncio.Event(), asyncio.Event(), exchange.log.keep

    async def keep_slowly(_: TransparencyLog, kept: Keep) -> None:
        keeping.set()
        await go_on.wait()
        await keep(kept)

    monkeypatch.setattr(TransparencyLog, "keep", keep_slowly)
    shelf.under_way[commitment] = None
    fetching = asyncio.create_task(shelf.file(exchange.intent, delivery))
    await keeping.wait()
    shelf.under_way[commitment] = exchange.arrived
    await shelf.file(exchange.intent, delivery)
    go_on.set()
    await fetching
    assert [each.status for each in await exchange.acknowledged()] == ["agreed"]


async def test_an_answer_that_was_not_read_to_its_end_is_not_agreed(exchange: Exchange) -> None:
    await exchange.shelf.file(exchange.intent, await exchange.deliver())
    (said,) = await exchange.acknowledged()
    assert (said.status, said.response, said.usage_agreed, said.dispute) == ("timeout", None, None, None)


@pytest.mark.parametrize("arrived", [False, True])
async def test_where_nothing_is_stated_it_is_agreed_that_nothing_is_owed(
    exchange: Exchange, arrived: bool
) -> None:
    """Nothing ran; or an answer came, and the provider's broker crashed before it could write that down."""
    if arrived:
        exchange.shelf.under_way[exchange.intent.commitment] = exchange.arrived
    await exchange.shelf.file(exchange.intent, await exchange.deliver(None))
    (said,) = await exchange.acknowledged()
    assert (said.status, said.response, said.usage_agreed) == ("agreed", None, NO_USAGE)


async def test_a_bill_for_a_run_without_a_statement_is_not_agreed(exchange: Exchange) -> None:
    billed = NO_USAGE.model_copy(update={"output_tokens": 9000})
    await exchange.shelf.file(exchange.intent, await exchange.deliver(None, usage=billed))
    (said,) = await exchange.acknowledged()
    assert (said.status, said.usage_agreed) == ("timeout", None)


async def test_one_execution_is_acknowledged_once(exchange: Exchange) -> None:
    """Whether it comes again later, or twice at the same time."""
    delivery = await exchange.deliver()
    exchange.shelf.under_way[exchange.intent.commitment] = exchange.arrived
    await asyncio.gather(*(exchange.shelf.file(exchange.intent, delivery) for _ in range(3)))
    await exchange.shelf.file(exchange.intent, delivery)
    del exchange.shelf.under_way[exchange.intent.commitment]
    await exchange.shelf.file(exchange.intent, delivery)
    assert len(await exchange.acknowledged()) == 1


async def test_one_about_another_placement_is_neither_kept_nor_acknowledged(exchange: Exchange) -> None:
    delivery = await exchange.deliver(links=[Link(rel="placement", digest="44" * 32)])
    with pytest.raises(Refused, match=r"shelf\.link"):
        await exchange.shelf.file(exchange.intent, delivery)
    assert await exchange.acknowledged() == []
    assert len(await exchange.log.unsettled(INTENT)) == 1


async def test_another_statement_than_the_execution_names_is_refused(exchange: Exchange) -> None:
    delivery = ReceiptDelivery.read(await exchange.deliver())
    other = statement(exchange.parties, exchange.sealed, b"another answer").decode()
    with pytest.raises(Refused, match=r"shelf\.statement"):
        await exchange.shelf.file(exchange.intent, delivery.model_copy(update={"statement": other}).write())
    assert len(await exchange.log.unsettled(INTENT)) == 1
    named = delivery.model_copy(update={"statement": exchange.said.decode()})
    await exchange.shelf.file(exchange.intent, named.write())
    assert await exchange.log.unsettled(INTENT) == []
    assert await exchange.log.kept(envelope.read(exchange.said).digest)
