"""What one peer may make a border do, before any signature of its is looked at."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from broker.directory import Directory
from broker.placing.appraisals import Appraisals
from broker.service import OPERATIONS, PEER_LIMITS, Service, for_ever
from broker.tests.parties import CONSUMER, PROVIDER, Parties
from broker.tests.test_appraisals import Documents, appraisals
from broker.tests.test_directory import advert, now
from schemas.canonical import sha256
from schemas.errors import Undecided

VERIFIED_MS = 0.14  # one message's signature and reading, as measured
SHARE = 0.25  # of one core


def test_one_peer_alone_cannot_keep_a_border_busy() -> None:
    """With every operation at its sustained rate, and runs besides."""
    messages = PEER_LIMITS.rate + sum(limits.rate for limits in OPERATIONS.values())
    assert messages * VERIFIED_MS / 1000 < SHARE


async def test_periodic_work_that_fails_is_told_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    again, calls = asyncio.Event(), 0

    async def work() -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ValueError("once")
        again.set()

    with caplog.at_level(logging.ERROR, "comity.border"):
        task = asyncio.create_task(for_ever(work, 0.0))
        await asyncio.wait_for(again.wait(), 10)
        task.cancel()
    assert "periodic work failed" in caplog.text


async def test_members_that_began_together_do_not_ask_together_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """nats.md 6: snapshots about every 60 s, with jitter."""
    slept: list[float] = []

    async def note(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 50:
            raise asyncio.CancelledError

    async def nothing() -> None:
        pass

    monkeypatch.setattr(asyncio, "sleep", note)
    with pytest.raises(asyncio.CancelledError):
        await for_ever(nothing, 60.0)
    assert 48.0 <= min(slept) < 55.0
    assert 65.0 < max(slept) <= 72.0


def hearing(parties: Parties, trusted: Appraisals) -> Service:
    """A service that hears adverts and nothing else."""
    nobody: Any = None
    directory = Directory(parties.trust)
    return Service(
        nobody, parties.peers(CONSUMER), nobody, directory, trusted, nobody, nobody, nobody, nobody, run_s=1.0
    )


async def test_a_lost_revocation_shows_in_the_next_advert(parties: Parties) -> None:
    evidence = parties.node.evidence()
    documents = Documents(evidence)
    trusted = appraisals(parties, documents)
    service = hearing(parties, trusted)
    service._apply(PROVIDER, advert(parties, seq=1, trust_epoch=7))
    verdict = await trusted.appraise(PROVIDER, sha256(evidence).hex())
    epoch = trusted.trust_epoch
    service._apply(PROVIDER, advert(parties, seq=2, trust_epoch=7))
    assert await trusted.still(verdict, epoch) is verdict
    service._apply(PROVIDER, advert(parties, seq=3, trust_epoch=8))
    documents.held.clear()  # as its agent does
    with pytest.raises(Undecided, match=r"evidence\.unknown"):
        await trusted.still(verdict, epoch)


async def test_silence_hides_no_change_of_the_trust_epoch(parties: Parties) -> None:
    """A bus that keeps a revocation back would only have to keep the adverts back as well, for a while."""
    evidence = parties.node.evidence()
    documents = Documents(evidence)
    trusted = appraisals(parties, documents)
    service = hearing(parties, trusted)
    service._apply(PROVIDER, advert(parties, seq=1, ttl_s=1, trust_epoch=7))
    verdict = await trusted.appraise(PROVIDER, sha256(evidence).hex())
    epoch = trusted.trust_epoch
    async with asyncio.timeout(10):
        while service.directory.get(PROVIDER, now()):  # noqa: ASYNC110 - the wall clock's matter
            await asyncio.sleep(0.05)
    service._apply(PROVIDER, advert(parties, seq=2, trust_epoch=8))
    documents.held.clear()  # as its agent does
    with pytest.raises(Undecided, match=r"evidence\.unknown"):
        await trusted.still(verdict, epoch)
