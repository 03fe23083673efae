"""What a consumer acknowledges reaches the provider, which keeps one word of each Execution and no lie."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import pytest

from broker.shelf import INTENT, RECOVER_ROUNDS, Shelf
from broker.tests.exchange import Exchange, Provider, begun
from broker.tests.parties import CONSUMER, PROVIDER, Parties
from receipts.log import Draft, Issued
from receipts.statements.fields import NO_USAGE, Commitment, Link
from receipts.statements.receipt import AcknowledgementDraft, AcknowledgementReceipt, Dispute
from schemas import envelope
from schemas.errors import ComityError, Refused, Undecided
from schemas.keys import SigningKey
from schemas.messages.negotiation import ReceiptAck, StatusReply


@pytest.fixture
async def exchange(parties: Parties, tmp_path: Path) -> AsyncIterator[Exchange]:
    """The answer was read to its end, and its Execution is here and acknowledged."""
    async with begun(parties, tmp_path) as exchange:
        exchange.shelf.under_way[exchange.intent.commitment] = exchange.arrived
        await exchange.shelf.file(exchange.intent, await exchange.deliver())
        yield exchange


async def word(exchange: Exchange, **changes: Any) -> Issued:
    """Our Acknowledgement as our log gives it out; or another one, that says something else."""
    (said,) = await exchange.acknowledged()
    if changes:
        same = {name: getattr(said, name) for name in AcknowledgementDraft.model_fields}
        (other,) = await exchange.log.issue([Draft(AcknowledgementDraft(**same | changes))])
        return other
    issued = await exchange.log.issued(said.receipt_id)
    assert issued is not None
    return issued


def message(exchange: Exchange, said: bytes, promise: bytes, sender: str = CONSUMER) -> bytes:
    peers = exchange.parties.peers(sender)
    body = peers.compose(
        ReceiptAck, PROVIDER, nid="n1", acknowledgement=said.decode(), promise=promise.decode()
    )
    return peers.sign(body)


async def test_the_provider_keeps_what_was_agreed_and_then_nothing_is_owed(exchange: Exchange) -> None:
    async with exchange.provider() as provider:
        assert await exchange.shelf.close(exchange.intent)
        assert await provider.kept() == ["agreed"]
        issued = await word(exchange)
        kept = await provider.log.kept_of("r1")
        assert {issued.envelope, issued.promise} <= set(kept), "byte for byte, with our log's promise"
        samples = provider.taker.metrics.exposition()[0].decode()
        assert 'comity_acknowledgements_total{status="agreed"} 1.0' in samples
    assert await exchange.log.unsettled(INTENT) == []


async def test_who_is_away_is_told_later(exchange: Exchange) -> None:
    assert not await exchange.shelf.close(exchange.intent)
    assert len(await exchange.log.unsettled(INTENT)) == 1
    async with exchange.provider() as provider:
        assert await exchange.shelf.close(exchange.intent)
        assert await provider.kept() == ["agreed"]
    assert await exchange.log.unsettled(INTENT) == []


async def test_a_provider_that_wants_none_is_not_asked_again(exchange: Exchange) -> None:
    async def wants_none(*_: object) -> bytes:
        raise Refused("border.operation", "no operation")

    exchange.road.takes = wants_none
    assert await exchange.shelf.close(exchange.intent)
    assert await exchange.log.unsettled(INTENT) == []


async def test_the_same_word_again_changes_nothing(exchange: Exchange) -> None:
    async with exchange.provider() as provider:
        await asyncio.gather(*(exchange.shelf.close(exchange.intent) for _ in range(3)))
        assert len(provider.heard) == 3
        assert await provider.kept() == ["agreed"]


async def test_the_reply_says_of_which_execution(exchange: Exchange) -> None:
    issued = await word(exchange)
    (said,) = await exchange.acknowledged()
    async with exchange.provider() as provider:
        data = message(exchange, issued.envelope, issued.promise)
        reply = await provider.taker.take(CONSUMER, data)
    body = exchange.parties.peers(CONSUMER).receive(reply, StatusReply, PROVIDER).body
    assert body.state == "CLOSED"
    assert body.execution == next(link.digest for link in said.links if link.rel == "execution")
    assert body.prev == envelope.read(data).digest.hex()


LIES: dict[str, tuple[Callable[[AcknowledgementReceipt], dict[str, Any]], str]] = {
    "another execution": (
        lambda said: {"links": [said.links[0], Link(rel="execution", digest="11" * 32)]}, "ack.unknown",
    ),
    "no execution": (lambda said: {"links": [said.links[0]]}, "ack.unknown"),
    "another placement": (
        lambda said: {"links": [Link(rel="placement", digest="22" * 32), said.links[1]]}, "ack.placement",
    ),
    "another request": (
        lambda said: {"request": said.request.model_copy(update={"id": "r2"})}, "ack.unknown",
    ),
    "agrees on other counters": (lambda _: {"usage_agreed": NO_USAGE}, "ack.agreed"),
    "agrees on another answer": (
        lambda _: {"response": Commitment(commitment="33" * 32)}, "ack.agreed",
    ),
    "not for us": (lambda _: {"audience": [CONSUMER]}, "receipt.audience"),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
async def test_a_word_that_is_not_about_our_execution_is_not_kept(exchange: Exchange, lie: str) -> None:
    told, code = LIES[lie]
    (said,) = await exchange.acknowledged()
    issued = await word(exchange, **told(said))
    async with exchange.provider() as provider:
        await _refused(provider, message(exchange, issued.envelope, issued.promise), code)


async def test_a_dispute_after_an_agreement_is_refused(exchange: Exchange) -> None:
    """Both are signed: whoever shows the second one finds the first one here."""
    second = {"status": "disputed", "usage_agreed": None, "dispute": Dispute(code="ack.price")}
    first, other = await word(exchange), await word(exchange, **second)
    async with exchange.provider() as provider:
        await provider.taker.take(CONSUMER, message(exchange, first.envelope, first.promise))
        with pytest.raises(Refused, match=r"ack\.second"):
            await provider.taker.take(CONSUMER, message(exchange, other.envelope, other.promise))
        assert await provider.kept() == ["agreed"]


async def test_two_words_at_once_are_one_and_a_refusal(exchange: Exchange) -> None:
    second = {"status": "disputed", "usage_agreed": None, "dispute": Dispute(code="ack.price")}
    both = [await word(exchange), await word(exchange, **second)]
    async with exchange.provider() as provider:
        sent = (provider.taker.take(CONSUMER, message(exchange, x.envelope, x.promise)) for x in both)
        found = await asyncio.gather(*sent, return_exceptions=True)
        assert [type(each) for each in found] in ([bytes, Refused], [Refused, bytes])
        assert len(await provider.kept()) == 1


async def test_keys_that_may_not(exchange: Exchange) -> None:
    issued, stranger = await word(exchange), SigningKey.generate()
    forged = envelope.sign(envelope.STATEMENT, envelope.read(issued.envelope).payload, stranger)
    promised = envelope.sign(envelope.STATEMENT, envelope.read(issued.promise).payload, stranger)
    async with exchange.provider() as provider:
        signature = "envelope.signature_invalid"
        await _refused(provider, message(exchange, forged, issued.promise), signature)
        await _refused(provider, message(exchange, issued.envelope, promised), signature)


async def test_the_promise_is_for_this_very_word(exchange: Exchange) -> None:
    issued, other = await word(exchange), await word(exchange, status="timeout", usage_agreed=None)
    async with exchange.provider() as provider:
        await _refused(provider, message(exchange, issued.envelope, other.promise), "promise.receipt")


async def test_nobody_speaks_for_another_member(exchange: Exchange) -> None:
    """The provider itself takes the consumer's word as its own."""
    issued = await word(exchange)
    data = message(exchange, issued.envelope, issued.promise, sender=PROVIDER)
    async with exchange.provider() as provider:
        with pytest.raises(Refused, match=r"envelope\.signature_invalid|envelope\.key_unknown"):
            await provider.taker.take(PROVIDER, data)
        assert await provider.kept() == []


@pytest.mark.parametrize("said", ["", "{}", "[" * 5000, "null"])
async def test_what_is_no_statement_is_one_clear_error(exchange: Exchange, said: str) -> None:
    issued = await word(exchange)
    async with exchange.provider() as provider:
        with pytest.raises(ComityError):
            await provider.taker.take(CONSUMER, message(exchange, said.encode(), issued.promise))
        assert await provider.kept() == []


async def _refused(provider: Provider, data: bytes, code: str) -> None:
    with pytest.raises(Refused) as error:
        await provider.taker.take(CONSUMER, data)
    assert error.value.code == code
    assert await provider.kept() == []


async def test_who_files_last_waits_for_the_word_and_hands_it_over(parties: Parties, tmp_path: Path) -> None:
    """An application that fetches its receipt as the answer ends files the Execution too: its word was not in
    the log yet when the other filing closed, so that nobody ever told the provider."""
    looking, go_on = threading.Event(), threading.Event()

    class Witness:
        def latest(self, _: str) -> None:
            looking.set()
            go_on.wait(10)

    async with begun(parties, tmp_path) as exchange:
        shelf, intent, delivery = exchange.shelf, exchange.intent, await exchange.deliver()
        shelf.witness = cast(Any, Witness())
        shelf.under_way[intent.commitment] = exchange.arrived

        async def end() -> bool:
            return await shelf.close(intent, (await shelf.file(intent, delivery)).said)

        async with exchange.provider() as provider:
            fetching = asyncio.create_task(shelf.file(intent, delivery))
            await asyncio.to_thread(looking.wait, 10)
            ending = asyncio.create_task(end())
            go_on.set()
            await fetching
            assert await ending
            assert await provider.kept() == ["agreed"]
        assert await exchange.log.unsettled(INTENT) == []


async def test_where_nothing_was_said_yet_it_is_still_owed(parties: Parties, tmp_path: Path) -> None:
    async with begun(parties, tmp_path) as exchange, exchange.provider():
        assert not await exchange.shelf.close(exchange.intent)
        assert len(await exchange.log.unsettled(INTENT)) == 1


@pytest.mark.parametrize(
    ("answers", "owed"),
    [(Refused("receipt.unknown", "no Execution of yours"), 0), (Undecided("bus.absent", "nobody"), 1)],
    ids=["it has none", "it is away"],
)
async def test_an_order_that_never_arrived_is_not_asked_for_at_every_start(
    parties: Parties, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: ComityError, owed: int
) -> None:
    monkeypatch.setattr("broker.shelf.RECOVER_PAUSE_S", 0.0)
    async with begun(parties, tmp_path) as exchange:
        asked = 0

        async def ask(*_: Any) -> bytes:
            nonlocal asked
            asked += 1
            raise answers

        monkeypatch.setattr(Shelf, "_ask", ask)
        await exchange.shelf.recover()
        assert asked == RECOVER_ROUNDS, "it may only be starting, as we are"
        assert len(await exchange.log.unsettled(INTENT)) == owed
        assert exchange.shelf.missing == 1
