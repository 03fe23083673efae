"""Our border alone: what it answers to calls that no honest consumer makes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from broker.observe import Metrics
from broker.placing.decide import ProviderPolicy, Rulebook
from broker.providing.border import Border
from broker.tests.parties import CAPABILITY, CONSUMER, MODEL, PROVIDER, Parties, call_terms, profile
from schemas.canonical import sha256
from schemas.descriptors.capability import Rates
from schemas.descriptors.tags import Home, PolicyTags, complete
from schemas.errors import Refused
from schemas.messages.interior import Hold, HoldReply, HoldRequest
from schemas.messages.negotiation import CallForOffers
from schemas.policy.tests.cases import open_set


@dataclass
class Agent:
    """Holds whatever it is asked to hold."""

    parties: Parties
    released: list[str] = field(default_factory=list)

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


@dataclass
class Verdicts:
    parties: Parties

    async def appraise(self, domain: str, digest: str) -> Any:
        del domain, digest
        return self.parties.appraise()


@pytest.mark.parametrize("counted", ["input_tokens", "max_output_tokens"])
async def test_a_call_that_costs_more_than_can_be_said_is_refused_and_holds_nothing(
    parties: Parties, counted: str
) -> None:
    """Its offer could not be composed: a stranger's number was a defect of ours."""
    agent: Any = Agent(parties)
    rules = Rulebook(open_set("charter"), (), {}, open_set("provider"))  # which bound no price
    policy = ProviderPolicy.of(parties.trust.charter, profile(PROVIDER), rules)
    border = Border(
        parties.peers(PROVIDER), agent, cast(Any, Verdicts(parties)), policy, cast(Any, None), Metrics()
    )
    consumer = parties.peers(CONSUMER)
    tags = complete(PolicyTags(data_class="public"), Home(CONSUMER, ("DE",)))
    terms = call_terms(tags=tags, tags_digest=tags.value_digest().hex(), **{counted: 2**53 - 1})
    call = consumer.compose(CallForOffers, PROVIDER, nid="n1", **terms)
    with pytest.raises(Refused, match=r"price\.beyond_count"):
        await border.call(CONSUMER, consumer.sign(call))
    assert agent.released == ["h1"]
