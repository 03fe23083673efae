"""Capacity that is promised and not used comes back: at once to losers, and by itself from the silent."""

from __future__ import annotations

from typing import Any

import pytest

from broker.peers import Peers
from broker.placing.negotiate import Offered, call_for_offers
from domain_agent.offer.capacity import Capacity
from federation_tests.plan import CLINIC, CLOUD, HYPER
from federation_tests.sse import read, request
from federation_tests.world import Domain, World, until
from receipts.statements.receipt import EXECUTION, ExecutionReceipt
from receipts.statements.statement import parse_receipt, receipt_kind
from schemas import envelope
from schemas.descriptors.tags import Home, PolicyTags, effective
from schemas.errors import Refused
from schemas.messages.negotiation import CallForOffers, Release

PUBLIC = effective(None, PolicyTags(data_class="public"), Home(CLINIC, ("DE",))).tags


def used(domain: Domain) -> int:
    """Places promised on all nodes of a domain, as its agent's books say."""
    capacity, now = domain.agent.capacity, domain.agent.clock.steady()
    return sum(capacity.used(node, now) for node in domain.nodes)


def terms(**changed: Any) -> dict[str, Any]:
    """What a call says; `changed` replaces fields."""
    return {
        "capability": "chat.small",
        "model_digest": None,
        "tags": PUBLIC,
        "tags_digest": PUBLIC.value_digest().hex(),
        "tenant_policy_digest": "0" * 64,
        "request_commitment": "1" * 64,
        "input_length": 256,
        "input_tokens": 16,
        "max_output_tokens": 16,
        "max_price": None,
        "hold_ms": 500,
        "exclude_nodes": [],
    } | changed


async def call(world: World, domain: str, **changed: Any) -> Offered:
    peers = world[CLINIC].broker.parts.service.peers
    (answer,) = await call_for_offers(peers, [(domain, terms(**changed))])
    assert isinstance(answer, Offered), answer
    return answer


async def test_losers_are_released_before_the_answer_is_complete(calm: World) -> None:
    """All three hold a place for the request; when the winner answers, the others are free again."""
    seen: list[dict[str, int]] = []
    peers = calm[CLINIC].broker.parts.service.peers
    releases: list[str] = []
    tell = Peers.tell

    async def noting(self: Peers, domain: str, op: str, payload: bytes) -> None:
        seen.append({name: used(each) for name, each in calm.domains.items()})
        releases.append(domain)
        await tell(self, domain, op, payload)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Peers, "tell", noting)
        stream = await read(calm.http(), request("who wins"))
    assert stream.complete
    winner = stream.comity["domain"]
    assert winner == HYPER
    assert sorted(releases) == sorted({CLINIC, CLOUD, HYPER} - {winner})
    assert seen[0] == {CLINIC: 1, CLOUD: 1, HYPER: 1}
    assert peers.domain == CLINIC
    await until(
        lambda: {name: used(each) for name, each in calm.domains.items()} == dict.fromkeys(calm.domains, 0)
    )


async def test_an_offer_that_nobody_takes_expires_by_itself(calm: World) -> None:
    offered = await call(calm, CLOUD)
    assert used(calm[CLOUD]) == 1
    assert 0 < offered.body.hold_ms <= 500
    await until(lambda: used(calm[CLOUD]) == 0, within=2.0)
    held = calm[CLOUD].broker.parts.border.holds.get(offered.body.nid)
    assert held
    await until(lambda: held.state == "RELEASED", within=2.0)


async def test_a_release_gives_the_place_back_now(calm: World) -> None:
    offered = await call(calm, CLOUD, hold_ms=10_000)
    assert used(calm[CLOUD]) == 1
    peers = calm[CLINIC].broker.parts.service.peers
    message = peers.compose(
        Release,
        CLOUD,
        nid=offered.body.nid,
        seq=2,
        prev=offered.offer.digest.hex(),
        hold_id=offered.body.hold_id,
        reason="not-chosen",
    )
    await peers.tell(CLOUD, "release", peers.sign(message))
    await until(lambda: used(calm[CLOUD]) == 0, within=1.0)


async def test_only_its_own_consumer_may_release_a_hold(calm: World) -> None:
    """hyper.us knows the hold's name, and gives it back in its own: nothing happens."""
    offered = await call(calm, CLOUD, hold_ms=2_000)
    thief = calm[HYPER].broker.parts.service.peers
    message = thief.compose(
        Release,
        CLOUD,
        nid=offered.body.nid,
        seq=2,
        prev=offered.offer.digest.hex(),
        hold_id=offered.body.hold_id,
        reason="not-chosen",
    )
    with pytest.raises(Refused) as refused:
        await calm[CLOUD].broker.parts.border.release(HYPER, thief.sign(message))
    assert refused.value.code == "hold.unknown"
    assert used(calm[CLOUD]) == 1
    await until(lambda: used(calm[CLOUD]) == 0, within=3.0)


async def test_a_call_under_anothers_name_takes_no_hold_away(calm: World) -> None:
    """hyper.us, with a bus that tells it, calls under the negotiation that clinic.de has begun."""
    offered = await call(calm, CLOUD, hold_ms=2_000)
    thief, border = calm[HYPER].broker.parts.service.peers, calm[CLOUD].broker.parts.border
    message = thief.compose(CallForOffers, CLOUD, nid=offered.body.nid, **terms())
    with pytest.raises(Refused, match=r"negotiate\.nid_reused"):
        await border.call(HYPER, thief.sign(message))
    await border.interior.snapshot()  # the agent has heard by now whatever the border told it
    capacity, now = calm[CLOUD].agent.capacity, calm[CLOUD].agent.clock.steady()
    held = capacity.held_for(offered.body.nid, now)
    assert held is not None
    assert held.hold_id == offered.body.hold_id
    await until(lambda: used(calm[CLOUD]) == 0, within=3.0)


async def test_a_place_given_away_ends_the_run_that_began_under_it(calm: World) -> None:
    """The node begins while its agent books the place; when there is none, nothing of the run comes out."""

    def given_away(self: Capacity, hold_id: str, nid: str, now: float) -> None:
        self.release(hold_id, nid, now)

    before = set(await calm[CLOUD].broker.parts.log.requests(lambda _: True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Capacity, "commit", given_away)
        stream = await read(
            calm.http(), request("too late", policy={"data_class": "public", "residency": ["FR"]})
        )
    assert stream.failed
    assert stream.text == ""
    assert stream.code == "hold.expired"
    log = calm[CLOUD].broker.parts.log
    (request_id,) = set(await log.requests(lambda _: True)) - before
    ran = [
        parse_receipt(payload, ExecutionReceipt)
        for payload in (envelope.read(data).payload for data in await log.of_request(request_id))
        if receipt_kind(payload) == EXECUTION
    ]
    assert {(each.outcome, each.code) for each in ran} == {("failed", "hold.expired")}
    assert used(calm[CLOUD]) == 0
