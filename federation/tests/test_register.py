"""The register against a bus that repeats, reorders, loses and keeps back adverts."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from federation.register import MAX_TTL_S, Accepted, Advert, AdvertRegister, Dropped, Equivocation

NOW = 1_900_000_000


def advert(
    epoch: int, seq: int, *, variant: int = 0, age: int = 0, ttl: int = 300, domain: str = "a.de"
) -> Advert:
    envelope = f"{domain}/{epoch}/{seq}/{variant}".encode()
    return Advert(domain, epoch, seq, hashlib.sha256(envelope).digest(), NOW - age, ttl, envelope)


def test_the_newest_wins_and_lower_is_dropped() -> None:
    register = AdvertRegister()
    first, second, restarted = advert(1, 8), advert(1, 9), advert(2, 0)
    assert register.apply(first, NOW) == Accepted(first, None)
    assert register.apply(second, NOW) == Accepted(second, first)
    assert register.apply(first, NOW) == Dropped("older")
    assert register.apply(second, NOW) == Dropped("repeated")
    assert register.apply(restarted, NOW) == Accepted(restarted, second)
    assert register.apply(advert(1, 500), NOW) == Dropped("older")


def test_two_adverts_under_one_number_are_kept_as_evidence() -> None:
    register = AdvertRegister()
    first, second = advert(1, 1), advert(1, 1, variant=1)
    register.apply(first, NOW)
    assert register.apply(second, NOW) == Equivocation("a.de", first, second)
    assert register.equivocations() == {"a.de": Equivocation("a.de", first, second)}
    assert register.current("a.de", NOW) == first
    register.apply(advert(1, 2), NOW)
    assert register.equivocations(), "a newer advert does not wash it away"


def test_an_advert_expires_by_our_clock_and_never_lives_longer_than_the_limit() -> None:
    register = AdvertRegister()
    register.apply(advert(1, 1, ttl=60), NOW)
    assert register.current("a.de", NOW + 59)
    assert register.current("a.de", NOW + 60) is None
    assert not list(register.live(NOW + 60))
    register.apply(advert(1, 2, ttl=10**9, domain="b.de"), NOW)
    assert register.current("b.de", NOW + MAX_TTL_S) is None


def test_stale_and_future_adverts_are_no_news() -> None:
    register = AdvertRegister()
    assert register.apply(advert(9, 9, age=301), NOW) == Dropped("expired")
    assert register.apply(advert(9, 9, age=-31), NOW) == Dropped("from_the_future")
    assert isinstance(register.apply(advert(9, 9, age=-30), NOW), Accepted)


def test_a_domain_that_left_is_forgotten() -> None:
    register = AdvertRegister()
    register.apply(advert(1, 1), NOW)
    register.forget("a.de")
    assert register.current("a.de", NOW) is None
    assert isinstance(register.apply(advert(1, 1), NOW), Accepted)


NUMBERED = st.tuples(
    st.sampled_from(["a.de", "b.fr", "c.us"]), st.integers(0, 3), st.integers(0, 6), st.integers(0, 400)
)


@given(st.lists(NUMBERED, unique_by=lambda item: item[:3], max_size=40), st.data())
def test_order_repeats_and_losses_change_nothing(
    sent: list[tuple[str, int, int, int]], data: st.DataObject
) -> None:
    """subscribe → snapshot → apply: whatever arrives, in whatever order, the newest that counts stays."""
    adverts = [advert(epoch, seq, age=age, domain=domain) for domain, epoch, seq, age in sent]
    arrived = [item for item in adverts if data.draw(st.booleans())]
    snapshot = [item for item in adverts if data.draw(st.booleans())]
    schedule = data.draw(st.permutations(arrived + arrived + snapshot))
    register = AdvertRegister()
    for item in schedule:
        assert not isinstance(register.apply(item, NOW), Equivocation)
    for domain in ("a.de", "b.fr", "c.us"):
        fresh = [item for item in schedule if item.domain == domain and item.expires > NOW]
        newest = max(fresh, key=lambda item: item.number, default=None)
        assert register.current(domain, NOW) == newest


@given(st.permutations([(1, 1, 0), (1, 1, 1), (1, 2, 0), (1, 2, 0)]))
def test_equivocation_never_moves_the_register_back(order: list[tuple[int, int, int]]) -> None:
    register = AdvertRegister()
    seen: list[tuple[int, int]] = []
    for epoch, seq, variant in order:
        register.apply(advert(epoch, seq, variant=variant), NOW)
        held = register.current("a.de", NOW)
        assert held
        seen.append(held.number)
    assert seen == sorted(seen)
    assert seen[-1] == (1, 2)
