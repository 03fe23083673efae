"""The provider's receipts, and the consumer's copies: durable before shown, and whole after a crash."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.peers import new_negotiation
from broker.placing.decide import ConsumerPolicy, Rulebook
from broker.placing.policy_block import node_record
from broker.providing.executions import COMMITMENT, CRASHED, Executions, Run
from broker.shelf import INTENT, Intent, Shelf
from broker.tests.logs import opened
from broker.tests.parties import CONSUMER, PROVIDER, Parties
from broker.tests.test_attempt import sealed_order, statement
from receipts import bundle as bundles
from receipts.log import Recorded
from receipts.statements.fields import NO_USAGE, RECORD
from receipts.statements.receipt import ExecutionReceipt
from receipts.statements.statement import read_receipt
from schemas.canonical import sha256
from schemas.descriptors.capability import Rates
from schemas.errors import Refused
from schemas.keys import SigningKey
from schemas.messages.answer import ReceiptDelivery
from schemas.messages.execute import Execute, unpack
from schemas.messages.negotiation import FetchReceipt
from schemas.policy.packs import load_pack
from schemas.primitives import parse_time


def rules() -> Rulebook:
    return Rulebook(
        load_pack("charter"), (), {"default": load_pack("tenant-default")}, load_pack("provider-default")
    )


def order(parties: Parties, **changes: Any) -> Any:
    """A run at the provider's border as `Border.run` would begin it."""
    sealed, offered, appraisal = sealed_order(parties, **changes), parties.offered(), parties.appraise()
    received = parties.peers(PROVIDER).receive(unpack(sealed.head)[0], Execute, CONSUMER)
    layers = ConsumerPolicy(CONSUMER, parties.trust.charter, rules()).layers(None, local=True)
    verdict = layers.decide(_context(), _subject(parties))
    run = Run(
        order=received,
        offer=offered.body,
        decision=verdict,
        node_key=appraisal.sign_key,
        attestation=node_record(appraisal, "inference").attestation,
        trace=None,
        started=datetime.now(UTC),
    )
    return run, sealed


def _context() -> Any:
    from schemas.descriptors.tags import Home, PolicyTags, complete
    from schemas.policy.facts import RequestContext

    return RequestContext.of(
        complete(PolicyTags(data_class="public"), Home(CONSUMER, ("DE",))),
        consumer=CONSUMER,
        tenant="t",
        application="api",
        max_price=None,
        allow_debug=False,
        simulated_allowed=True,
    )


def _subject(parties: Parties) -> Any:
    from broker.placing.decide import facts_of
    from broker.tests.parties import profile
    from schemas.policy.facts import DomainFacts, Subject, Unusable

    facts = DomainFacts.of(profile(PROVIDER), PROVIDER, datetime.now(UTC))
    assert not isinstance(facts, Unusable)
    return Subject(facts, facts_of(parties.appraise(), datetime.now(UTC)), 3)


def read(parties: Parties, data: bytes) -> ExecutionReceipt:
    return read_receipt(
        data,
        ExecutionReceipt,
        keys=[parties.keys[PROVIDER]["receipt"].public],
        issuer=PROVIDER,
        federation="test",
        audience=CONSUMER,
    ).body


def wanted(parties: Parties, run: Run) -> FetchReceipt:
    """What the consumer asks for when the Execution of this run did not come."""
    execute = run.order.body
    return parties.peers(CONSUMER).compose(
        FetchReceipt,
        PROVIDER,
        nid=new_negotiation(),
        request_id=execute.request_id,
        commitment=execute.input_commitment,
    )


async def test_an_execution_states_what_the_node_stated(parties: Parties, tmp_path: Path) -> None:
    run, sealed = order(parties)
    async with opened(tmp_path, parties, PROVIDER) as log:
        executions = Executions(PROVIDER, "EUR", log)
        await executions.commit(run)
        assert len(await log.unsettled(COMMITMENT)) == 1
        run.note_statement(statement(parties, sealed, b"an answer"))
        body = read(parties, (await executions.conclude(run)).envelope)
        assert (body.outcome, body.usage.output_tokens) == ("ok", 3)
        assert {link.rel for link in body.links} == {"placement", "node"}
        assert body.price is not None
        assert body.price.micro == 1  # (3 × 1 + 3 × 2) / 1000, rounded up once
        assert await log.unsettled(COMMITMENT) == []


async def test_what_the_policy_decided_over_is_kept_before_the_run(parties: Parties, tmp_path: Path) -> None:
    """An auditor of the provider's log can decide again, also about a run that a crash cut off."""
    run, _ = order(parties)
    run.decision = replace(run.decision, record=b"facts")
    async with opened(tmp_path, parties, PROVIDER) as log:
        await Executions(PROVIDER, "EUR", log).commit(run)
    async with opened(tmp_path, parties, PROVIDER) as log:
        (issued,) = await Executions(PROVIDER, "EUR", log).recover()
        bundle = bundles.read(await log.bundle(issued.receipt_id))
    assert f"{RECORD}{sha256(b'facts').hex()}" in read(parties, issued.envelope).policy.properties
    assert bundle.blobs[sha256(b"facts")] == b"facts"


async def test_an_execution_says_how_long_it_must_be_kept(parties: Parties, tmp_path: Path) -> None:
    async with opened(tmp_path, parties, PROVIDER) as log:
        executions = Executions(PROVIDER, "EUR", log, ("ai-act-provider", "hipaa"))
        body = read(parties, (await executions.conclude(order(parties)[0])).envelope)
        silent = read(parties, (await Executions(PROVIDER, "EUR", log).conclude(order(parties)[0])).envelope)
    assert body.retention is not None
    assert body.retention.class_ == "hipaa"
    assert parse_time(body.retention.not_before) - parse_time(body.times.issued) > timedelta(days=6 * 365)
    assert silent.retention is None


async def test_counters_that_cost_more_than_can_be_said_are_no_statement(
    parties: Parties, tmp_path: Path
) -> None:
    """Nothing could be signed over them: the run had no Execution before the next start."""
    run, sealed = order(parties)
    usage = NO_USAGE.model_copy(update={"output_tokens": 2**53 - 1})
    run.offer = run.offer.model_copy(update={"rates": Rates(input=0, output=2_000, cached=0)})
    with pytest.raises(Refused, match=r"price\.beyond_count"):
        run.note_statement(statement(parties, sealed, b"an answer", usage=usage))
    async with opened(tmp_path, parties, PROVIDER) as log:
        body = read(parties, (await Executions(PROVIDER, "EUR", log).conclude(run)).envelope)
    assert (body.outcome, body.usage, body.price) == ("failed", NO_USAGE, None)


async def test_a_run_without_a_statement_is_failed_never_ok(parties: Parties, tmp_path: Path) -> None:
    run, _ = order(parties)
    run.failure = "stream.lost"
    async with opened(tmp_path, parties, PROVIDER) as log:
        body = read(parties, (await Executions(PROVIDER, "EUR", log).conclude(run)).envelope)
    assert (body.outcome, body.code) == ("failed", "stream.lost")
    assert body.usage.output_tokens == 0


async def test_a_statement_about_another_order_counts_as_none(parties: Parties) -> None:
    run, sealed = order(parties)
    run.note_statement(statement(parties, sealed, b"x", header="ab" * 32))
    assert run.outcome == "failed"
    with pytest.raises(Refused):
        run.note_statement(statement(parties, sealed, b"x", key=SigningKey.generate()))


async def test_a_crash_in_mid_run_leaves_a_failed_execution(parties: Parties, tmp_path: Path) -> None:
    run, _ = order(parties)
    async with opened(tmp_path, parties, PROVIDER) as log:
        await Executions(PROVIDER, "EUR", log).commit(run)
    async with opened(tmp_path, parties, PROVIDER) as log:
        executions = Executions(PROVIDER, "EUR", log)
        (issued,) = await executions.recover()
        body = read(parties, issued.envelope)
        assert (body.outcome, body.code) == ("failed", CRASHED)
        assert await executions.recover() == []
        delivery = await executions.deliver(CONSUMER, wanted(parties, run))
        assert delivery.receipt_id == issued.receipt_id


async def test_an_execution_can_be_fetched_after_a_restart(parties: Parties, tmp_path: Path) -> None:
    """It was written and settled, and the broker ended before it was delivered."""
    run, _ = order(parties)
    async with opened(tmp_path, parties, PROVIDER) as log:
        issued = await Executions(PROVIDER, "EUR", log).conclude(run)
    async with opened(tmp_path, parties, PROVIDER) as log:
        executions = Executions(PROVIDER, "EUR", log)
        assert await executions.recover() == []
        delivery = await executions.deliver(CONSUMER, wanted(parties, run))
    assert delivery.execution.encode() == issued.envelope
    assert delivery.promise.encode() == issued.promise


async def test_each_attempt_of_a_request_has_its_own_execution(parties: Parties, tmp_path: Path) -> None:
    """A continuation may run at the same provider: the older Execution can still be had."""
    runs = [order(parties)[0], order(parties)[0]]
    assert len({run.order.body.request_id for run in runs}) == 1
    async with opened(tmp_path, parties, PROVIDER) as log:
        executions = Executions(PROVIDER, "EUR", log)
        issued = [await executions.conclude(run) for run in runs]
        found = [await executions.deliver(CONSUMER, wanted(parties, run)) for run in runs]
    assert [each.receipt_id for each in found] == [each.receipt_id for each in issued]


async def test_the_nodes_statement_comes_with_a_fetched_execution(parties: Parties, tmp_path: Path) -> None:
    """The consumer crashed before the sealed end marker: it gets the statement from the provider."""
    run, sealed = order(parties)
    said = statement(parties, sealed, b"an answer")
    run.note_statement(said)
    async with opened(tmp_path, parties, PROVIDER) as log:
        await Executions(PROVIDER, "EUR", log).conclude(run)
    async with opened(tmp_path, parties, PROVIDER) as log:
        delivery = await Executions(PROVIDER, "EUR", log).deliver(CONSUMER, wanted(parties, run))
    assert delivery.statement
    assert delivery.statement.encode() == said


async def test_nobody_fetches_anothers_execution(parties: Parties, tmp_path: Path) -> None:
    run, _ = order(parties)
    async with opened(tmp_path, parties, PROVIDER) as log:
        executions = Executions(PROVIDER, "EUR", log)
        await executions.conclude(run)
        with pytest.raises(Refused, match=r"receipt\.unknown"):
            await executions.deliver("hyper.us", wanted(parties, run))


async def test_a_delivered_execution_must_be_about_our_placement(parties: Parties, tmp_path: Path) -> None:
    run, sealed = order(parties)
    async with opened(tmp_path, parties, PROVIDER) as log:
        issued = await Executions(PROVIDER, "EUR", log).conclude(run)
    delivery = ReceiptDelivery(
        receipt_id=issued.receipt_id, execution=issued.envelope.decode(), promise=issued.promise.decode()
    )
    intent = Intent(
        provider=PROVIDER, request_id=run.order.body.request_id, commitment=sealed.header.input_commitment
    )
    async with opened(tmp_path, parties, CONSUMER) as log:
        await log.issue([], record=[Recorded(INTENT, intent.row, intent.write())])
        shelf = Shelf(parties.peers(CONSUMER), log)
        with pytest.raises(Refused, match=r"shelf\.link"):
            await shelf.file(intent, delivery.write())
        assert len(await log.unsettled(INTENT)) == 1


async def test_a_promise_for_another_receipt_is_refused(parties: Parties, tmp_path: Path) -> None:
    one, _ = order(parties)
    two, _ = order(parties)
    async with opened(tmp_path, parties, PROVIDER) as log:
        executions = Executions(PROVIDER, "EUR", log)
        first, second = await executions.conclude(one), await executions.conclude(two)
    peers = parties.peers(CONSUMER)
    found = peers.receive_receipt(PROVIDER, ExecutionReceipt, first.envelope, first.promise)
    assert found.body.issuer == PROVIDER
    with pytest.raises(Refused, match=r"promise\.receipt"):
        peers.receive_receipt(PROVIDER, ExecutionReceipt, first.envelope, second.promise)


async def test_an_execution_under_a_message_key_is_refused(parties: Parties, tmp_path: Path) -> None:
    run, _ = order(parties)
    swapped = {**parties.keys[PROVIDER], "receipt": parties.keys[PROVIDER]["message"]}
    lying = replace(parties, keys={**parties.keys, PROVIDER: swapped})
    async with opened(tmp_path, lying, PROVIDER) as log:
        issued = await Executions(PROVIDER, "EUR", log).conclude(run)
    with pytest.raises(Refused, match=r"envelope\.signature_invalid"):
        parties.peers(CONSUMER).receive_receipt(PROVIDER, ExecutionReceipt, issued.envelope, issued.promise)
