"""Our border alone: what it answers to calls that no honest consumer makes."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from broker.observe import Metrics
from broker.placing.attempt import new_commitment, seal_attempt
from broker.placing.decide import ProviderPolicy, Rulebook
from broker.placing.negotiate import Offered
from broker.providing.border import Border
from broker.providing.executions import COMMITMENT, Executions
from broker.providing.holds import CALL_BUDGET
from broker.shelf import own_receipts
from broker.tests.logs import opened
from broker.tests.parties import CAPABILITY, CONSUMER, MODEL, PROVIDER, Parties, call_terms, profile
from receipts.log import TransparencyLog
from receipts.statements.receipt import ExecutionReceipt
from schemas import envelope
from schemas.canonical import read_json, sha256
from schemas.descriptors.capability import Rates
from schemas.descriptors.tags import Home, PolicyTags, complete
from schemas.errors import Refused
from schemas.messages.execute import Limits
from schemas.messages.interior import Hold, HoldReply, HoldRequest
from schemas.messages.message import Received
from schemas.messages.negotiation import CallForOffers, Offer
from schemas.policy.tests.cases import open_set


@dataclass
class Agent:
    """Holds whatever it is asked to hold."""

    parties: Parties
    released: list[str] = field(default_factory=list)
    done_with: list[str] = field(default_factory=list)

    async def hold(self, wanted: HoldRequest) -> HoldReply:
        node = self.parties.node
        hold = Hold(
            hold_id="h1",
            node_id=node.node_id,
            node_sign=node.sign.public.thumbprint,
            seal_key=node.seal.public,
            evidence=sha256(node.evidence()).hex(),
            capability=CAPABILITY,
            model_digest=MODEL,
            rates=Rates(input=2_000, output=2_000, cached=0),
            hold_ms=wanted.hold_ms,
            queue_ms=0,
            headroom=10,
        )
        return HoldReply(hold=hold)

    async def release(self, hold_id: str, nid: str) -> None:
        del nid
        self.released.append(hold_id)

    async def done(self, hold_id: str, nid: str) -> None:
        del nid
        self.done_with.append(hold_id)


@dataclass
class Verdicts:
    parties: Parties

    async def appraise(self, domain: str, digest: str) -> Any:
        del domain, digest
        return self.parties.appraise()


def border_of(parties: Parties, agent: Agent, executions: Executions | None = None, **more: Any) -> Border:
    """The provider's border, whose rules deny nothing."""
    rules = Rulebook(open_set("charter"), (), {}, open_set("provider"))
    policy = ProviderPolicy.of(parties.trust.charter, profile(PROVIDER), rules)
    peers, verdicts = parties.peers(PROVIDER), cast(Any, Verdicts(parties))
    return Border(peers, cast(Any, agent), verdicts, policy, cast(Any, executions), Metrics(), **more)


def call(parties: Parties, nid: str, sender: str = CONSUMER, **changes: Any) -> bytes:
    tags = complete(PolicyTags(data_class="public"), Home(sender, ("DE",)))
    terms = call_terms(tags=tags, tags_digest=tags.value_digest().hex(), **changes)
    peers = parties.peers(sender)
    return peers.sign(peers.compose(CallForOffers, PROVIDER, nid=nid, **terms))


def answered(reply: bytes) -> str:
    """`Offer`, or the code of a refusal."""
    said = read_json(envelope.read(reply).payload)
    assert isinstance(said, dict)
    return str(said["code"] if said["typ"] == "Refuse" else said["typ"])


@pytest.mark.parametrize("counted", ["input_tokens", "max_output_tokens"])
async def test_a_call_that_costs_more_than_can_be_said_is_refused_and_holds_nothing(
    parties: Parties, counted: str
) -> None:
    """Its offer could not be composed: a stranger's number was a defect of ours."""
    agent = Agent(parties)
    border = border_of(parties, agent)
    with pytest.raises(Refused, match=r"price\.beyond_count"):
        await border.call(CONSUMER, call(parties, "n1", **dict[str, Any]({counted: 2**53 - 1})))
    assert agent.released == ["h1"]


async def test_our_own_calls_spend_no_budget_and_are_answered_while_we_drain(parties: Parties) -> None:
    """They came in by the gate, which bounds them and lets what is inside end: what others win, often,
    must leave room for what stays at home."""
    border = border_of(parties, Agent(parties), draining=True)
    assert answered(await border.call(CONSUMER, call(parties, "foreign"))) == "DRAINING"
    border.draining = False
    for sender, refused in ((PROVIDER, set()), (CONSUMER, {"RATE"})):
        said = set()
        for number in range(CALL_BUDGET + 10):
            nid = f"{sender[:5]}{number}"
            said.add(answered(await border.call(sender, call(parties, nid, sender))))
            if held := border.holds.get(nid):
                border.holds.move(held, "RELEASED", time.monotonic())
        assert said == {"Offer"} | refused
    border.draining = True
    assert answered(await border.call(PROVIDER, call(parties, "home", PROVIDER))) == "Offer"


async def test_a_run_that_is_cut_off_while_its_commitment_is_written_ends_all_the_same(
    parties: Parties, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, writing, issue = Agent(parties), asyncio.Event(), TransparencyLog.issue

    async def written(log: TransparencyLog, *drafts: Any, **more: Any) -> Any:
        issued = await issue(log, *drafts, **more)
        if more.get("record"):
            writing.set()
            await asyncio.Event().wait()
        return issued

    monkeypatch.setattr(TransparencyLog, "issue", written)
    async with opened(tmp_path, parties, PROVIDER) as log:
        border = border_of(parties, agent, Executions(PROVIDER, "EUR", log))
        secret, commitment = new_commitment(b"{}")
        consumer = parties.peers(CONSUMER)
        data = call(parties, "n1", request_commitment=commitment)
        sent = Received(CallForOffers.read(envelope.read(data).payload), envelope.read(data).digest, "", data)
        offer = consumer.receive(await border.call(CONSUMER, data), Offer, PROVIDER)
        sealed = seal_attempt(
            consumer,
            Offered(PROVIDER, sent, offer),
            parties.appraise(),
            secret=secret,
            body=b"{}",
            placement="88" * 32,
            request_id="r1",
            attempt=0,
            parent=None,
            tags_digest=sent.body.tags_digest,
            cache_scope="none",
            retention_s=0,
            limits=Limits(output_tokens=16, body_bytes=2, time_ms=1000),
        )
        run = asyncio.create_task(anext(border.run(CONSUMER, sealed.head, sealed.chunks)))
        await writing.wait()
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        held = border.holds.get("n1")
        assert held is not None
        assert (held.state, agent.done_with) == ("CANCELLED", ["h1"])
        assert border.holds.running == 0
        assert await log.unsettled(COMMITMENT) == []
        (execution,) = (await own_receipts(log, "r1")).values()
        assert isinstance(execution, ExecutionReceipt)
        assert (execution.outcome, execution.code) == ("cancelled", "run.cancelled")
