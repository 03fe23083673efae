"""Lies of a consumer about what it was given: it goes back on its word, or says nothing."""

from __future__ import annotations

import json

import pytest

from broker.shelf import own_receipts
from federation_tests.conftest import MakeWorld
from federation_tests.hostile.lie import Lie, lie
from federation_tests.plan import CLINIC, CLOUD, Changes
from federation_tests.stories.test_acknowledged import executed, shown_by_provider, words
from receipts.audit.commands import main as audit
from receipts.log import Draft
from receipts.statements.receipt import AcknowledgementDraft, AcknowledgementReceipt, Dispute
from schemas.errors import Refused

PAIR = Changes(domains=(CLINIC, CLOUD))


@lie(
    "a consumer",
    "goes back on what it agreed to",
    by="the provider, which keeps one word of each Execution, with the promise of the consumer's log",
    codes="ack.second",
    receipt="in the provider's bundle the first word stands, and the counters are proved",
)
async def test_a_word_is_given_once(make_world: MakeWorld, told: Lie) -> None:
    world = await make_world(PAIR)
    papers, execution = await executed(world)
    shelf = world[CLINIC].broker.parts.answering.shelf
    own = (await own_receipts(shelf.log, execution.request.id)).values()
    (said,) = (body for body in own if isinstance(body, AcknowledgementReceipt))
    same = {name: getattr(said, name) for name in AcknowledgementDraft.model_fields}
    taken_back = {"status": "disputed", "usage_agreed": None, "dispute": Dispute(code="ack.price")}
    (second,) = await shelf.log.issue([Draft(AcknowledgementDraft(**same | taken_back))])
    with pytest.raises(Refused) as refusal:
        await shelf._hand_over(CLOUD, second)
    assert refusal.value.code == told.code
    found = shown_by_provider(world, papers, execution)
    assert words(found) == [CLINIC]
    assert found.verdicts("execution", "usage") == ["proved"]


@lie(
    "a consumer",
    "takes an answer and says nothing of it",
    by="an audit of the pair: the consumer's log keeps the Execution, and no word of what arrived",
    codes="audit.not_acknowledged",
    receipt="`usage` is asserted by the domain that ran it",
)
async def test_silence_shows_in_an_audit_of_the_pair(
    make_world: MakeWorld, told: Lie, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await make_world(PAIR)
    monkeypatch.setattr("broker.shelf._acknowledged", lambda *_: True)
    papers, execution = await executed(world)
    found = shown_by_provider(world, papers, execution)
    assert words(found) == []
    assert found.verdicts("execution", "usage") == [f"asserted-by({CLOUD})"]
    logs = [str(world[domain].database) for domain in (CLINIC, CLOUD)]
    shared = str(world[CLINIC].folder / "shared")
    code = audit(["--pair", *logs, "--trust", str(world.trust_file()), "--papers", shared, "--json"])
    report = json.loads(capsys.readouterr().out)
    found_there = [(each["domain"], each["code"]) for each in report["findings"]]
    assert (code, found_there) == (1, [(CLINIC, told.code)])
