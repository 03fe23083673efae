"""When adverts are sent: on news, at least a second apart, at most ten, and signed for the role."""

from __future__ import annotations

from pathlib import Path

import pytest

from domain_agent.offer.advert import HEARTBEAT_S, Advertiser
from domain_agent.tests.founding import FEDERATION, OURS, PEER, Founded
from domain_agent.tests.interior import Interior
from schemas.messages.advert import ReceivedAdvert, receive_advert
from schemas.messages.interior import OwnAdvert


class Sent(list[tuple[str, bytes]]):
    async def publish(self, subject: str, payload: bytes) -> None:
        self.append((subject, payload))


@pytest.fixture
def interior(founded: Founded, tmp_path: Path) -> Interior:
    return Interior(founded, tmp_path)


@pytest.fixture
def sent() -> Sent:
    return Sent()


@pytest.fixture
def advertiser(interior: Interior, sent: Sent) -> Advertiser:
    return Advertiser(
        membership=interior.admission.membership,
        key=interior.founded.advert[OURS],
        condenser=interior.condenser,
        own=interior.own,
        revocations=interior.admission.revocations,
        publish=sent.publish,
        clock=interior.time.clock,
        k_min=1,
        ttl_s=30,
    )


def told(sent: Sent) -> list[bytes]:
    """What our one peer was sent."""
    return [payload for subject, payload in sent if subject.startswith("peer.")]


def received(interior: Interior, payload: bytes) -> ReceivedAdvert:
    now = interior.time.clock.now()
    keys = interior.founded.trust.keys(OURS, "advert", now)
    return receive_advert(payload, keys=keys, sender=OURS, federation=FEDERATION, now=now)


async def test_each_peer_and_our_broker_get_the_same_signed_word(
    interior: Interior, advertiser: Advertiser, sent: Sent
) -> None:
    assert await advertiser.turn()
    subjects = [subject for subject, _ in sent]
    assert subjects == ["broker.advert", "peer.cloud_fr.advert"]
    own, peers = OwnAdvert.read(sent[0][1]), received(interior, sent[1][1])
    assert own.advert.encode() == sent[1][1]
    assert own.challenge == peers.summary.challenge == interior.own.current(own.issued_at).value.hex()
    assert PEER in interior.admission.membership.peers


async def test_adverts_come_on_news_and_as_a_heartbeat(
    interior: Interior, advertiser: Advertiser, sent: Sent
) -> None:
    await advertiser.turn()
    assert not await advertiser.turn()
    interior.time.passed = 5
    assert not await advertiser.turn()
    interior.admission.revocations.bump()  # news
    assert await advertiser.turn()
    interior.admission.revocations.bump()
    interior.time.passed = 5.9
    assert not await advertiser.turn()  # too soon after the last
    interior.time.passed = 6
    assert await advertiser.turn()
    interior.time.passed = 6 + HEARTBEAT_S - 0.1
    assert not await advertiser.turn()
    interior.time.passed = 6 + HEARTBEAT_S
    assert await advertiser.turn()
    numbers = [received(interior, payload).summary.version for payload in told(sent)]
    assert numbers == sorted(set(numbers))
    assert len(numbers) == 4


async def test_each_names_the_one_before(interior: Interior, advertiser: Advertiser, sent: Sent) -> None:
    await advertiser.turn()
    advertiser.greet()
    interior.time.passed = 1
    assert await advertiser.turn()
    first, second = (received(interior, payload) for payload in told(sent))
    assert second.summary.prev == first.digest.hex()


async def test_a_new_challenge_is_news(interior: Interior, advertiser: Advertiser, sent: Sent) -> None:
    await advertiser.turn()
    for moment in (9.0, 18.0, 27.0, 36.0, 45.0, 51.0):
        interior.time.passed = moment
        await advertiser.turn()
    challenges = {received(interior, payload).summary.challenge for payload in told(sent)}
    assert len(challenges) == 2


async def test_capacity_that_lasts_is_news(interior: Interior, advertiser: Advertiser, sent: Sent) -> None:
    interior.add()
    await interior.ask_due()
    interior.report()
    await advertiser.turn()
    assert received(interior, sent[-1][1]).summary.cells[0].headroom == 10
    interior.capacity.hold("n1", "nid", hold_s=30, now=interior.time.clock.steady())
    for moment in range(1, 6):
        interior.time.passed = moment
        interior.report()
        await advertiser.turn()
    assert received(interior, sent[-1][1]).summary.cells[0].headroom == 5
    assert len(told(sent)) == 2
