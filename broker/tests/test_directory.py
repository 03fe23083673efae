"""The directory holds the newest verified word of each member, while it counts."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from broker.directory import Directory
from broker.tests.parties import CONSUMER, FEDERATION, PROVIDER, Parties, profile
from federation.observe.logs import JsonLines
from schemas.descriptors.summary import CapabilitySummary, Cell
from schemas.errors import Refused
from schemas.messages.advert import receive_advert, sign_advert
from schemas.messages.message import CLOCK_SKEW_S


def advert(parties: Parties, seq: int = 1, role: Any = "advert", **changes: Any) -> bytes:
    fields: dict[str, Any] = {
        "federation": FEDERATION,
        "iss": PROVIDER,
        "epoch": 1,
        "seq": seq,
        "iat": int(datetime.now(UTC).timestamp()),
        "ttl_s": 30,
        "challenge": "ab" * 32,
        "trust_epoch": 0,
        "profile_digest": "cd" * 32,
        "k_min": 1,
        "cells": [Cell(cls="chat.small", jur="FR")],
    } | changes
    return sign_advert(CapabilitySummary(**fields), parties.keys[PROVIDER][role])


def now() -> datetime:
    return datetime.now(UTC)


def test_newer_replaces_older_never_the_reverse(parties: Parties) -> None:
    directory = Directory(parties.trust)
    assert directory.apply(PROVIDER, advert(parties, seq=2), now()) is not None
    assert directory.apply(PROVIDER, advert(parties, seq=1), now()) is None
    listing = directory.get(PROVIDER, now())
    assert listing is not None
    assert listing.summary.seq == 2
    newer_epoch = advert(parties, seq=1, epoch=2)
    assert directory.apply(PROVIDER, newer_epoch, now()) is not None


def test_an_advert_ends_by_itself(parties: Parties) -> None:
    directory = Directory(parties.trust)
    directory.apply(PROVIDER, advert(parties), now())
    later = now() + timedelta(seconds=31)
    assert directory.get(PROVIDER, later) is None
    assert directory.snapshot(later).entries == ()


def test_two_adverts_under_one_number_suspend_the_domain_and_leave_their_proof(
    parties: Parties, caplog: pytest.LogCaptureFixture
) -> None:
    """C7, equivocation: the two envelopes were forgotten with the process, and nobody had been told."""
    directory = Directory(parties.trust)
    said = [advert(parties), advert(parties, challenge="ef" * 32)]
    directory.apply(PROVIDER, said[0], now())
    for _ in range(3):
        with pytest.raises(Refused, match=r"directory\.equivocation"):
            directory.apply(PROVIDER, said[1], now())
    assert directory.snapshot(now()).entries == ()
    (line,) = [json.loads(JsonLines().format(record)) for record in caplog.records]
    assert (line["level"], line["peer"]) == ("error", PROVIDER)
    keys = parties.trust.keys(PROVIDER, "advert", now())
    proof = [
        receive_advert(line[name].encode(), keys=keys, sender=PROVIDER, federation=FEDERATION, now=now())
        for name in ("first", "second")
    ]
    assert len({each.digest for each in proof}) == 2
    assert len({(each.summary.epoch, each.summary.seq) for each in proof}) == 1


def test_an_advert_dated_in_the_future_is_no_news_and_holds_no_number(parties: Parties) -> None:
    """It would outlive the others, and its number would shut out what its domain says next."""
    directory, at = Directory(parties.trust), now()
    seconds = int(at.timestamp())
    with pytest.raises(Refused, match="CLOCK_SKEW"):
        directory.apply(PROVIDER, advert(parties, seq=9, iat=seconds + CLOCK_SKEW_S + 1), at)
    assert directory.get(PROVIDER, at) is None
    assert directory.apply(PROVIDER, advert(parties, seq=2), at) is not None
    tolerated = advert(parties, seq=3, iat=seconds + CLOCK_SKEW_S)
    assert directory.apply(PROVIDER, tolerated, at) is not None


def test_nobody_advertises_for_another(parties: Parties) -> None:
    directory = Directory(parties.trust)
    with pytest.raises(Refused):
        directory.apply(CONSUMER, advert(parties), now())


@pytest.mark.parametrize("role", ["message", "receipt"])
def test_a_key_of_another_role_signs_no_advert(parties: Parties, role: str) -> None:
    with pytest.raises(Refused, match=r"envelope\.signature_invalid"):
        Directory(parties.trust).apply(PROVIDER, advert(parties, role=role), now())


def test_attributes_come_from_the_charter_alone(parties: Parties) -> None:
    directory = Directory(parties.trust)
    assert directory.profile(PROVIDER).jurisdictions == profile(PROVIDER).jurisdictions
    with pytest.raises(Refused, match=r"directory\.unknown_domain"):
        directory.profile("hyper.us")


def test_the_snapshots_digest_names_what_was_seen(parties: Parties) -> None:
    one, two = Directory(parties.trust), Directory(parties.trust)
    data = advert(parties)
    one.apply(PROVIDER, data, now())
    two.apply(PROVIDER, data, now())
    assert one.snapshot(now()).digest == two.snapshot(now()).digest
    two.apply(PROVIDER, advert(parties, seq=2), now())
    assert one.snapshot(now()).digest != two.snapshot(now()).digest
