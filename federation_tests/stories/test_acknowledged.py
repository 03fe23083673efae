"""What the consumer acknowledges reaches the domain that ran the request: it can show what was agreed."""

from __future__ import annotations

import json

import pytest

from broker.providing.acknowledgements import Acknowledgements
from broker.shelf import INTENT, own_receipts
from federation_tests.conftest import MakeWorld
from federation_tests.plan import CLINIC, CLOUD, Changes
from federation_tests.receipts import Verified, fetch, verify
from federation_tests.world import World, ask, until
from receipts import bundle as bundles
from receipts.audit.commands import main as audit
from receipts.audit.logfile import LogFile
from receipts.commands.take import take
from receipts.statements.receipt import EXECUTION, AcknowledgementReceipt, ExecutionReceipt
from receipts.statements.statement import parse_receipt, receipt_kind
from schemas import envelope
from schemas.errors import Undecided

EU = {"data_class": "personal", "residency": ["EU"]}
PAIR = Changes(domains=(CLINIC, CLOUD))


async def executed(world: World) -> tuple[bundles.Bundle, ExecutionReceipt]:
    """A request that crosses the border: its bundle as the application takes it, and its Execution."""
    answer = await world.client().chat.completions.create(**ask("one two three", policy=EU))
    assert answer.model_extra
    await world[CLINIC].broker.parts.answering.settle()
    bundle = bundles.read(await fetch(world.http(), answer.model_extra["comity"]["receipt"]))
    payloads = [envelope.read(data).payload for data in bundle.envelopes.values()]
    (found,) = (each for each in payloads if receipt_kind(each) == EXECUTION)
    return bundle, parse_receipt(found, ExecutionReceipt)


def shown_by_provider(world: World, papers: bundles.Bundle, execution: ExecutionReceipt) -> Verified:
    """What an auditor finds in the bundle that the provider takes out of its own log's file."""
    with LogFile(world[CLOUD].database) as log:
        held = take(log, execution.receipt_id, papers, {}, explained=False)
    return verify(world, bundles.write(held))


def words(found: Verified) -> list[str]:
    return [each["issuer"] for each in found.report["receipts"] if each["kind"] == "acknowledgement"]


async def test_the_provider_shows_what_its_consumer_agreed_to(calm: World) -> None:
    papers, execution = await executed(calm)
    found = shown_by_provider(calm, papers, execution)
    assert words(found) == [CLINIC]
    assert found.verdicts("acknowledgement", "signature") == ["proved"]
    assert found.verdicts("execution", "ack-link") == ["proved"]
    (usage,) = found.claims("execution", "usage")
    assert usage["verdict"] == "proved", usage
    assert found.failed == []


async def test_a_provider_that_could_not_take_it_is_told_at_the_next_start(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await make_world(PAIR)

    async def is_away(*_: object) -> bytes:
        raise Undecided("log.cannot_commit", "the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(Acknowledgements, "take", is_away)
        papers, execution = await executed(world)
        assert len(await world[CLINIC].broker.parts.log.unsettled(INTENT)) == 1
        assert words(shown_by_provider(world, papers, execution)) == []
    await world[CLINIC].stop_broker()
    await world[CLINIC].start_broker()
    await until(lambda: words(shown_by_provider(world, papers, execution)))
    await until(lambda: not _owed(world))


async def test_it_says_where_the_provider_s_log_stood_and_an_audit_holds_the_log_to_it(
    make_world: MakeWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    world = await make_world(PAIR)
    parts = world[CLINIC].broker.parts
    (log,) = parts.service.peers.trust.manifest(CLOUD).logs
    witness = parts.service.witness
    assert witness
    await executed(world)
    await until(lambda: witness.latest(log.origin))
    _, execution = await executed(world)
    own = (await own_receipts(parts.log, execution.request.id)).values()
    (said,) = (body for body in own if isinstance(body, AcknowledgementReceipt))
    assert [each.origin for each in said.seen] == [log.origin]
    logs = [str(world[domain].database) for domain in PAIR.domains]
    shared = str(world[CLINIC].folder / "shared")
    assert audit(["--pair", *logs, "--trust", str(world.trust_file()), "--papers", shared, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["findings"] == []


def _owed(world: World) -> list[str]:
    with LogFile(world[CLINIC].database) as log:
        rows = log.connection.execute("SELECT key FROM ahead WHERE kind = ? AND NOT settled", (INTENT,))
        return [key for (key,) in rows]
