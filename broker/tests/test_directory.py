"""The directory holds the newest verified word of each member, while it counts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from broker.directory import Directory
from broker.tests.parties import CONSUMER, FEDERATION, PROVIDER, Parties, profile
from schemas.descriptors.summary import CapabilitySummary, Cell
from schemas.errors import Refused
from schemas.messages.advert import sign_advert


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


def test_two_adverts_under_one_number_suspend_the_domain(parties: Parties) -> None:
    directory = Directory(parties.trust)
    directory.apply(PROVIDER, advert(parties), now())
    with pytest.raises(Refused, match=r"directory\.equivocation"):
        directory.apply(PROVIDER, advert(parties, challenge="ef" * 32), now())
    assert directory.snapshot(now()).entries == ()


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
