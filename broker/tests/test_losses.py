"""A run that is lost before its order was accepted: the place is given back, and the request goes on."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest

from broker.answering import Answering
from broker.dispatch import Dispatcher
from broker.journey import Journey
from broker.peers import Peers
from broker.placing.agreement import Placed
from broker.placing.attempt import new_commitment, seal_attempt
from broker.placing.negotiate import Offered, call_for_offers
from broker.problems import Upstream
from broker.select.predict import Predictor
from broker.shelf import Shelf
from broker.tests.parties import CONSUMER, PROVIDER, Parties, call_terms
from broker.tests.test_border import Agent, border_of
from broker.tests.test_journey import journey
from receipts.log import Issued
from schemas.descriptors.tags import Home, PolicyTags, complete
from schemas.errors import Undecided
from schemas.messages.execute import MAX_BODY_BYTES, Limits


@dataclass(slots=True)
class Placing:
    """Hands out one attempt, and notes with what the next one is looked for."""

    peers: Peers
    placed: Placed
    journeys: list[Journey] = field(default_factory=list)

    async def place(self, journey: Journey) -> Placed:
        self.journeys.append(journey)
        if len(self.journeys) > 1:
            raise Upstream("agree.no_offer", "the request went on elsewhere")
        return self.placed


@dataclass(slots=True)
class TurnedAway(Answering):
    """What happens to an order that its provider's border never accepted."""

    code: str = ""

    async def _frames(self, placed: Placed) -> AsyncGenerator[bytes, None]:
        del placed
        raise Undecided(self.code, "it was turned away")
        yield b""


@dataclass(slots=True)
class Lost:
    parties: Parties
    agent: Agent
    placing: Placing
    dispatcher: Dispatcher
    tags: PolicyTags

    async def run(self) -> Upstream:
        each = journey()
        descriptor = each.accepted.descriptor.model_copy(update={"policy": self.tags})
        with pytest.raises(Upstream) as ended:
            async for _ in self.dispatcher.run(replace(each.accepted, descriptor=descriptor)):
                pass
        await self.dispatcher.answering.settle()
        return ended.value


async def lost(parties: Parties, data_class: Any, code: str) -> Lost:
    """The provider offers for real; whatever it is sent then ends with `code` before it is looked at."""
    agent = Agent(parties)
    border = border_of(parties, agent)

    class Road(Peers):
        async def ask(self, domain: str, op: str, payload: bytes, **_: Any) -> bytes:
            del domain
            if op == "receipt":
                raise Undecided("bus.timeout", "no answer")
            return await getattr(border, op)(CONSUMER, payload)  # type: ignore[no-any-return]

        async def tell(self, domain: str, op: str, payload: bytes) -> None:
            del domain
            await getattr(border, op)(CONSUMER, payload)

    own, nothing = parties.peers(CONSUMER), cast(Any, None)
    peers = Road(nothing, own.trust, own.domain, own.key, own.local)
    tags = complete(PolicyTags(data_class=data_class), Home(CONSUMER, ("DE",)))
    secret, commitment = new_commitment(b"{}")
    named = {"tags_digest": tags.value_digest().hex(), "request_commitment": commitment}
    (offered,) = await call_for_offers(
        peers, [(PROVIDER, call_terms(tags=tags, max_output_tokens=16, **named))]
    )
    assert isinstance(offered, Offered), offered
    sealed = seal_attempt(
        peers,
        offered,
        parties.appraise(),
        secret=secret,
        body=b"{}",
        placement="88" * 32,
        request_id="r1",
        attempt=0,
        parent=None,
        tags_digest=named["tags_digest"],
        cache_scope="none",
        retention_s=0,
        limits=Limits(output_tokens=16, body_bytes=2, time_ms=1000),
    )
    receipt = Issued("x", b"\1" * 32, 0, b"{}", lambda: b"{}")
    placing = Placing(peers, Placed(nothing, offered, parties.appraise(), receipt, sealed))
    shelf = Shelf(peers, nothing)
    answering = TurnedAway(peers, nothing, nothing, shelf, Predictor(), code=code)
    dispatcher = Dispatcher(cast(Any, placing), answering, shelf, 2, lambda: None)
    return Lost(parties, agent, placing, dispatcher, tags)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.shelf.FETCH_PAUSE_S", 0.0)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("code", ["stream.busy", "hold.expired"])
@pytest.mark.parametrize("data_class", ["public", "phi"])
async def test_an_order_that_was_turned_away_surely_never_runs(
    parties: Parties, data_class: str, code: str
) -> None:
    """Regulated data goes on only once the run has surely ended: a hold given back takes no order."""
    run = await lost(parties, data_class, code)
    await run.run()
    assert len(run.placing.journeys) == 2, "it went on"
    assert run.agent.released == ["h1"], "nobody waits for the hold to lapse"
    node = run.placing.placed.offered.body.node_sign
    excluded = run.placing.journeys[-1].excluded_nodes
    assert excluded == ([] if code == "hold.expired" else [node]), (
        "a place that is gone is no fault of its node"
    )


@pytest.mark.usefixtures("quick")
async def test_an_answer_that_grew_too_long_to_go_on_from_ends_as_the_loss_that_it_is(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await lost(parties, "public", "bus.disconnected")
    monkeypatch.setattr(Journey, "body", lambda _: bytes(MAX_BODY_BYTES + 1))
    ended = await run.run()
    assert (ended.code, len(run.placing.journeys)) == ("bus.disconnected", 1)
