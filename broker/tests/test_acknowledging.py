"""What the consumer's broker says of an Execution: agreed only where it is what came out of the seal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from broker.shelf import INTENT
from broker.tests.exchange import KEPT, Exchange, begun
from broker.tests.parties import PROVIDER, Parties
from broker.tests.test_attempt import statement
from receipts import checkpoint
from receipts.log import Draft, Issued, TransparencyLog
from receipts.statements.fields import NO_USAGE, Capability, Commitment, Link, Price
from schemas import envelope
from schemas.errors import Refused, Undecided
from schemas.messages.answer import ReceiptDelivery


@pytest.fixture
async def exchange(parties: Parties, tmp_path: Path) -> AsyncIterator[Exchange]:
    async with begun(parties, tmp_path) as exchange:
        yield exchange


async def test_what_came_out_of_the_seal_is_agreed(exchange: Exchange) -> None:
    exchange.shelf.under_way[exchange.intent.commitment] = exchange.arrived
    filed = await exchange.shelf.file(exchange.intent, await exchange.deliver())
    found = filed.execution
    (said,) = await exchange.acknowledged()
    assert [each.receipt_id for each in filed.said] == [said.receipt_id]
    assert (said.status, said.peer, said.role) == ("agreed", PROVIDER, "broker")
    assert {link.rel: link.digest for link in said.links} == {
        "placement": exchange.run.order.body.placement,
        "execution": found.digest.hex(),
    }
    assert said.response == found.body.response
    assert said.usage_agreed == found.body.usage
    assert said.retention == KEPT
    assert len(await exchange.log.unsettled(INTENT)) == 1, "its provider was not told yet"
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


@dataclass
class _Witness:
    """Ours, as far as an Acknowledgement asks it."""

    notes: dict[str, bytes]
    broken: bool = False

    def latest(self, origin: str) -> bytes | None:
        if self.broken:
            raise Undecided("witness.cannot_read", "the disk is gone")
        return self.notes.get(origin)


async def test_it_says_where_the_provider_s_log_stood_for_our_witness(exchange: Exchange) -> None:
    async with exchange.provider() as provider:
        note, root = await provider.log.checkpoint(), await provider.log.root_at(0)
    (origin,) = (each.origin for each in exchange.parties.trust.manifest(PROVIDER).logs)
    stated = checkpoint.read(note).checkpoint
    witness: Any = _Witness({origin: note, "log.of.another": b"never asked for"})
    exchange.shelf.witness = witness
    await exchange.shelf.file(exchange.intent, await exchange.deliver())
    (said,) = await exchange.acknowledged()
    assert [(each.origin, each.size, each.root) for each in said.seen] == [(stated.origin, 0, root.hex())]


async def test_without_a_witness_s_word_nothing_was_seen(exchange: Exchange) -> None:
    witness: Any = _Witness({}, broken=True)
    exchange.shelf.witness = witness
    await exchange.shelf.file(exchange.intent, await exchange.deliver())
    assert [each.seen for each in await exchange.acknowledged()] == [[]]


async def test_while_the_answer_is_read_an_execution_is_kept_and_not_acknowledged(exchange: Exchange) -> None:
    delivery = await exchange.deliver()
    exchange.shelf.under_way[exchange.intent.commitment] = None
    filed = await exchange.shelf.file(exchange.intent, delivery)
    assert (list(filed.said), await exchange.acknowledged()) == ([], [])
    assert len(await exchange.log.unsettled(INTENT)) == 1
    assert await exchange.log.kept(filed.execution.digest)
    exchange.shelf.under_way[exchange.intent.commitment] = exchange.arrived
    await exchange.shelf.file(exchange.intent, delivery)
    assert [each.status for each in await exchange.acknowledged()] == ["agreed"]


async def test_who_fetches_while_the_answer_is_read_takes_the_last_word_from_nobody(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was kept early counted as being filed when the answer's end came: then nobody acknowledged it."""
    delivery, shelf, commitment = await exchange.deliver(), exchange.shelf, exchange.intent.commitment
    keeping, go_on, issue = asyncio.Event(), asyncio.Event(), TransparencyLog.issue

    async def keep_slowly(log: TransparencyLog, drafts: Sequence[Draft], **more: Any) -> list[Issued]:
        if not drafts:
            keeping.set()
            await go_on.wait()
        return await issue(log, drafts, **more)

    monkeypatch.setattr(TransparencyLog, "issue", keep_slowly)
    shelf.under_way[commitment] = None
    fetching = asyncio.create_task(shelf.file(exchange.intent, delivery))
    await keeping.wait()
    shelf.under_way[commitment] = exchange.arrived
    ending = asyncio.create_task(shelf.file(exchange.intent, delivery))
    go_on.set()
    early, last = await asyncio.gather(fetching, ending)
    assert (len(early.said), len(last.said)) == (0, 1)
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
    assert len(await exchange.acknowledged()) == 1
    assert await exchange.log.kept(envelope.read(exchange.said).digest)
