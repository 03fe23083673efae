"""The provider's promises: one use each, in time, and never past the state machine."""

from __future__ import annotations

import contextlib
import itertools
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from broker.providing.holds import CALL_BUDGET, MAX_OPEN_PER_PEER, TERMINAL, Holds, Negotiation, State
from broker.tests.parties import CONSUMER, Parties
from schemas.errors import Refused

STATES: tuple[State, ...] = (
    "HELD", "RELEASED", "COMMITTED", "ACTIVE", "COMPLETED", "FAILED", "CANCELLED", "TERMINATED",
)  # fmt: skip


def negotiation(number: int, expires: float, consumer: str = CONSUMER) -> Negotiation:
    """A record whose contents do not matter here, but for its ids."""
    offer = SimpleNamespace(nid=f"nid{number}", hold_id=f"hold{number}")
    nothing = cast(Any, None)
    return Negotiation(consumer, nothing, cast(Any, offer), b"", nothing, nothing, nothing, expires)


def test_a_hold_is_used_once_and_only_by_its_consumer() -> None:
    holds = Holds()
    holds.add(negotiation(1, expires=10.0), now=0.0)
    with pytest.raises(Refused, match=r"hold\.unknown"):
        holds.held("nid1", "hold1", "hyper.us", now=1.0)
    with pytest.raises(Refused, match=r"hold\.unknown"):
        holds.held("nid1", "hold2", CONSUMER, now=1.0)
    held = holds.held("nid1", "hold1", CONSUMER, now=1.0)
    holds.move(held, "COMMITTED", now=1.0)
    with pytest.raises(Refused, match=r"hold\.used"):
        holds.held("nid1", "hold1", CONSUMER, now=1.0)


def test_a_hold_ends_by_itself() -> None:
    holds = Holds()
    holds.add(negotiation(1, expires=10.0), now=0.0)
    with pytest.raises(Refused, match=r"hold\.expired"):
        holds.held("nid1", "hold1", CONSUMER, now=10.0)
    assert holds.expired(now=11.0) == []


def test_expired_holds_are_handed_out_once() -> None:
    holds = Holds()
    holds.add(negotiation(1, expires=10.0), now=0.0)
    assert [each.offer.nid for each in holds.expired(now=10.0)] == ["nid1"]
    assert holds.expired(now=10.0) == []


def test_calling_without_accepting_spends_a_budget() -> None:
    holds = Holds()
    for _ in range(CALL_BUDGET):
        holds.charge_call(CONSUMER, now=0.0)
    with pytest.raises(Refused, match="RATE"):
        holds.charge_call(CONSUMER, now=0.0)
    holds.charge_call("hyper.us", now=0.0)
    holds.charge_call(CONSUMER, now=1.0)


def test_accepting_gives_the_call_back() -> None:
    holds = Holds()
    for number in range(CALL_BUDGET * 2):
        holds.charge_call(CONSUMER, now=0.0)
        each = negotiation(number, expires=10.0)
        holds.add(each, now=0.0)
        holds.move(each, "COMMITTED", now=0.0)
        holds.move(each, "CANCELLED", now=0.0)


def test_offers_and_runs_together_are_no_more_than_a_peer_may_run() -> None:
    """What is offered beyond it would be turned away when it is ordered, with its place held for nothing."""
    holds, each = Holds(), negotiation(0, expires=10.0)
    for number in range(MAX_OPEN_PER_PEER):
        holds.charge_call(CONSUMER, now=0.0)
        each = negotiation(number, expires=10.0)
        holds.add(each, now=0.0)
        if number % 2:
            holds.move(each, "COMMITTED", now=0.0)
    assert holds.running == MAX_OPEN_PER_PEER // 2
    with pytest.raises(Refused, match=r"RATE.*offers and runs"):
        holds.charge_call(CONSUMER, now=0.0)
    holds.charge_call("another.org", now=0.0)
    holds.move(each, "CANCELLED", now=0.0)
    holds.charge_call(CONSUMER, now=0.0)


def test_an_order_that_no_node_can_open_gives_nothing_back() -> None:
    """Each leaves two entries in the provider's log: a peer cannot fill it at the bus's rate."""
    holds, orders = Holds(), 0
    with contextlib.suppress(Refused):
        for orders in range(CALL_BUDGET * 2):
            holds.charge_call(CONSUMER, now=0.0)
            each = negotiation(orders, expires=10.0)
            holds.add(each, now=0.0)
            holds.move(each, "COMMITTED", now=0.0)
            holds.move(each, "FAILED", now=0.0)
            holds.wasted(each, now=0.0)
    assert orders == CALL_BUDGET


def test_who_never_uses_a_hold_strands_few_places() -> None:
    """A peer that calls whenever it may and lets all holds lapse keeps at most a handful of slots idle."""
    holds, numbers, held = Holds(), itertools.count(), 0
    open_places: list[int] = []
    for now in range(1000):
        held -= len(holds.expired(now))
        with contextlib.suppress(Refused):
            for number in numbers:
                holds.charge_call(CONSUMER, now)
                holds.add(negotiation(number, expires=now + 10.0), now)
                held += 1
        open_places.append(held)
    assert sum(open_places[500:]) / 500 < 6


def test_offers_held_at_once_are_bounded() -> None:
    holds = Holds()
    for number in range(MAX_OPEN_PER_PEER):
        holds.charge_call(CONSUMER, now=0.0)
        holds.add(negotiation(number, expires=10.0), now=0.0)
    with pytest.raises(Refused, match="RATE"):
        holds.charge_call(CONSUMER, now=0.0)
    holds.charge_call(CONSUMER, now=11.0)


def test_an_id_is_used_once() -> None:
    holds = Holds()
    holds.add(negotiation(1, expires=10.0), now=0.0)
    with pytest.raises(Refused, match=r"negotiate\.nid_reused"):
        holds.add(negotiation(1, expires=10.0), now=0.0)


def test_a_busy_hour_shuts_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """More negotiations in an hour than are remembered: what ended first is forgotten, what runs is not."""
    monkeypatch.setattr("broker.providing.holds.MAX_NEGOTIATIONS", 10)
    holds = Holds()
    for number in range(30):
        each = negotiation(number, expires=number + 10.0)
        holds.add(each, now=number)
        holds.move(each, "COMMITTED" if number == 0 else "RELEASED", now=number)
    assert holds.running == 1
    assert [holds.get(f"nid{number}") is not None for number in (0, 1, 20, 29)] == [True, False, False, True]


def test_what_is_not_over_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.providing.holds.MAX_NEGOTIATIONS", 2)
    holds = Holds()
    for number in range(2):
        holds.add(negotiation(number, expires=10.0), now=0.0)
    with pytest.raises(Refused, match="RATE"):
        holds.add(negotiation(2, expires=10.0), now=0.0)


class Machine(RuleBasedStateMachine):
    """Whatever is tried in whatever order: a terminal state stays, and nothing runs that was not held."""

    def __init__(self) -> None:
        super().__init__()
        self.holds = Holds()
        self.now = 0.0
        self.made: list[Negotiation] = []
        self.ended: dict[str, State] = {}

    @rule(lifetime=st.floats(0.1, 5.0))
    def offer(self, lifetime: float) -> None:
        each = negotiation(len(self.made), self.now + lifetime)
        self.holds.add(each, self.now)
        self.made.append(each)

    @rule(which=st.integers(0, 50), state=st.sampled_from(STATES))
    def move(self, which: int, state: State) -> None:
        if not self.made:
            return
        each = self.made[which % len(self.made)]
        before = each.state
        try:
            self.holds.move(each, state, self.now)
        except Refused:
            assert each.state == before
            return
        assert before not in TERMINAL
        assert (state == "ACTIVE") <= (before == "COMMITTED")

    @rule(passed=st.floats(0.0, 3.0))
    def wait(self, passed: float) -> None:
        self.now += passed
        for each in self.holds.expired(self.now):
            assert each.expires <= self.now

    @invariant()
    def terminal_states_stay(self) -> None:
        for each in self.made:
            if each.state in TERMINAL:
                assert self.ended.setdefault(each.offer.nid, each.state) == each.state

    @invariant()
    def running_is_what_runs(self) -> None:
        assert self.holds.running == sum(each.state in ("COMMITTED", "ACTIVE") for each in self.made)


TestMachine = Machine.TestCase


def test_an_offer_from_the_other_side_is_bound_to_its_call(parties: Parties) -> None:
    offered = parties.offered()
    assert offered.body.call == offered.call.digest.hex()
    assert offered.body.prev == offered.call.digest.hex()
