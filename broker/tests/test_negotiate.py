"""The consumer's side of Contract Net: what counts as an answer, and what is held against it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, cast

import pytest

from broker.peers import Peers, new_negotiation
from broker.placing.negotiate import Declined, Offered, call_for_offers
from broker.tests.parties import CAPABILITY, CONSUMER, MODEL, PROVIDER, Parties, call_terms
from schemas.descriptors.capability import Rates
from schemas.errors import Undecided
from schemas.messages.message import Received
from schemas.messages.negotiation import CallForOffers, Offer, Refuse, Release

Answer = Callable[[Received[CallForOffers], Peers], bytes]


def offer_terms(to: Received[CallForOffers], **changes: Any) -> dict[str, Any]:
    return {
        "call": to.digest.hex(),
        "capability": CAPABILITY,
        "model_digest": MODEL,
        "rates": Rates(input=1, output=2, cached=0),
        "predicted_price": 3,
        "retention_s": 0,
        "node_sign": "A" * 43,
        "node_seal": "11" * 32,
        "evidence": "22" * 32,
        "profile_digest": "33" * 32,
        "policy_digest": "44" * 32,
        "hold_id": "h",
        "hold_ms": 3000,
        "queue_ms": 0,
        "headroom": 10,
    } | changes


def reply(provider: Peers, model: type[Any], to: Received[CallForOffers], **fields: Any) -> bytes:
    frame: dict[str, Any] = {"nid": to.body.nid, "seq": 1, "prev": to.digest.hex()} | {
        key: fields.pop(key) for key in ("nid", "prev") if key in fields
    }
    return provider.sign(provider.compose(model, CONSUMER, **frame, **fields))


async def asked(parties: Parties, answer: Answer, **terms: Any) -> Offered | Declined:
    """What the consumer makes of one provider's answer, without a bus between them."""
    provider = parties.peers(PROVIDER)

    class Road(Peers):
        async def ask(self, domain: str, op: str, payload: bytes, **_: Any) -> bytes:
            assert (domain, op) == (PROVIDER, "call")
            return answer(provider.receive(payload, CallForOffers, CONSUMER), provider)

    consumer = parties.peers(CONSUMER)
    road = Road(consumer.bus, consumer.trust, consumer.domain, consumer.key, consumer.local)
    (result,) = await call_for_offers(road, [(PROVIDER, call_terms(**terms))])
    return result


async def test_an_offer(parties: Parties) -> None:
    result = await asked(parties, lambda call, us: reply(us, Offer, call, **offer_terms(call)))
    assert isinstance(result, Offered)
    assert result.body.hold_id == "h"


async def test_a_refusal_names_its_rules_and_is_kept(parties: Parties) -> None:
    def refuse(call: Received[CallForOffers], us: Peers) -> bytes:
        return reply(
            us, Refuse, call, call=call.digest.hex(), code="POLICY", rules=["RES-001-inside-residency"],
            headroom=0, retry_after_ms=0,
        )  # fmt: skip

    result = await asked(parties, refuse)
    assert isinstance(result, Declined)
    assert result.rules == ("RES-001-inside-residency",)
    assert result.refusal is not None


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"call": "ab" * 32}, "negotiate.call_digest"),
        ({"capability": "chat.large/x"}, "negotiate.capability"),
        ({"capability": "chat.smaller/x"}, "negotiate.capability"),
        ({"nid": "another"}, "message.transcript"),
        ({"prev": "cd" * 32}, "message.transcript"),
    ],
)
async def test_an_answer_to_something_else(parties: Parties, changes: dict[str, Any], code: str) -> None:
    result = await asked(parties, lambda call, us: reply(us, Offer, call, **offer_terms(call, **changes)))
    assert isinstance(result, Declined)
    assert result.code == code


async def test_a_continuation_takes_the_same_model_or_none(parties: Parties) -> None:
    result = await asked(
        parties, lambda call, us: reply(us, Offer, call, **offer_terms(call)), model_digest="ee" * 32
    )
    assert isinstance(result, Declined)
    assert result.code == "negotiate.model"


async def test_an_excluded_node_is_not_offered_again(parties: Parties) -> None:
    result = await asked(
        parties, lambda call, us: reply(us, Offer, call, **offer_terms(call)), exclude_nodes=["A" * 43]
    )
    assert isinstance(result, Declined)
    assert result.code == "negotiate.excluded_node"


@pytest.mark.parametrize("role", ["advert", "receipt", "promise"])
async def test_an_offer_signed_by_a_key_of_another_role(parties: Parties, role: Any) -> None:
    def forged(call: Received[CallForOffers], us: Peers) -> bytes:
        return reply(replace(us, key=parties.keys[PROVIDER][role]), Offer, call, **offer_terms(call))

    result = await asked(parties, forged)
    assert isinstance(result, Declined)
    assert result.code == "envelope.signature_invalid"


async def test_an_offer_signed_by_a_node(parties: Parties) -> None:
    def forged(call: Received[CallForOffers], us: Peers) -> bytes:
        return reply(replace(us, key=parties.node.sign), Offer, call, **offer_terms(call))

    result = await asked(parties, forged)
    assert isinstance(result, Declined)
    assert result.code == "envelope.signature_invalid"


async def test_an_absent_peer_is_declined_not_raised(parties: Parties) -> None:
    def absent(call: Received[CallForOffers], us: Peers) -> bytes:
        raise Undecided("bus.absent", "nobody serves it")

    result = await asked(parties, absent)
    assert result == Declined(PROVIDER, "bus.absent", (), 0)


@pytest.mark.parametrize("garbage", [b"", b"{}", b"[]", b"\xff\xfe", b'{"payload":"e30=","payloadType":"x"}'])
async def test_garbage_is_declined(parties: Parties, garbage: bytes) -> None:
    assert isinstance(await asked(parties, lambda _call, _us: garbage), Declined)


def test_negotiation_ids_are_uuid_v7() -> None:
    first, second = new_negotiation(), new_negotiation()
    assert first != second
    assert first[12] == "7"
    assert first[16] in "89ab"


async def test_what_is_offered_to_a_caller_that_left_is_given_back(parties: Parties) -> None:
    """Its slot is not held until it lapses: that would cost our domain, for something one tenant did."""
    provider, consumer = parties.peers(PROVIDER), parties.peers(CONSUMER)
    asked, go_on, told = asyncio.Event(), asyncio.Event(), asyncio.Event()
    released: list[Release] = []
    spawned: list[asyncio.Task[None]] = []

    class Road(Peers):
        async def ask(self, domain: str, op: str, payload: bytes, **_: Any) -> bytes:
            asked.set()
            await go_on.wait()
            call = provider.receive(payload, CallForOffers, CONSUMER)
            return reply(provider, Offer, call, **offer_terms(call))

        async def tell(self, domain: str, op: str, payload: bytes) -> None:
            assert (domain, op) == (PROVIDER, "release")
            released.append(provider.receive(payload, Release, CONSUMER).body)
            told.set()

    class Spawning:
        def spawn(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
            spawned.append(asyncio.create_task(work()))

    road = Road(cast(Any, Spawning()), consumer.trust, consumer.domain, consumer.key, consumer.local)
    calling = asyncio.create_task(call_for_offers(road, [(PROVIDER, call_terms())]))
    await asked.wait()
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    go_on.set()
    await asyncio.wait_for(told.wait(), 10)
    assert [each.hold_id for each in released] == ["h"]
    await asyncio.gather(*spawned)
