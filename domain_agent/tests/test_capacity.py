"""The books: whatever is asked in whatever order, no place is promised twice and none is lost."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule
from pydantic import TypeAdapter

from domain_agent.offer.capacity import (
    COMMITTED_S,
    IDLE_GRACE_S,
    REACH_S,
    SURPLUS_GRACE_S,
    Capacity,
    Place,
)
from schemas.errors import Refused
from schemas.messages.interior import Ms

NODES = ("n1", "n2")
SLOTS, QUEUE = 2, 1


class Books(RuleBasedStateMachine):
    """A model beside it: which hold ids stand, on which node, until when."""

    places = Bundle("places")

    def __init__(self) -> None:
        super().__init__()
        self.capacity, self.now, self.count = Capacity(), 0.0, 0
        self.standing: dict[str, tuple[str, str, float]] = {}
        for node in NODES:
            self.capacity.set_room(node, slots=SLOTS, queue=QUEUE)

    @rule(target=places, node=st.sampled_from(NODES), hold_s=st.floats(0.1, 40))
    def hold(self, node: str, hold_s: float) -> object:
        self.count += 1
        full = self._model_used(node) >= SLOTS + QUEUE
        try:
            place = self.capacity.hold(node, f"nid{self.count}", hold_s=hold_s, now=self.now)
        except Refused:
            assert full
            return multiple()
        assert not full
        self.standing[place.hold_id] = (node, "HELD", self.now + min(hold_s, 30.0))
        return place

    @rule(place=places)
    def commit(self, place: Place) -> None:
        self._sweep()
        known = self.capacity.commit(place.hold_id, place.nid, self.now)
        assert (known is not None) == (place.hold_id in self.standing)
        if known and self.standing[place.hold_id][1] == "HELD":
            self.standing[place.hold_id] = (place.node_id, "COMMITTED", self.now + COMMITTED_S)

    @rule(place=places)
    def release(self, place: Place) -> None:
        self._sweep()
        held = self.standing.get(place.hold_id, ("", "", 0.0))[1] == "HELD"
        assert (self.capacity.release(place.hold_id, place.nid, self.now) is not None) == held
        if held:
            del self.standing[place.hold_id]

    @rule(place=places)
    def done(self, place: Place) -> None:
        self._sweep()
        known = self.capacity.done(place.hold_id, place.nid, self.now)
        assert (known is not None) == (place.hold_id in self.standing)
        self.standing.pop(place.hold_id, None)

    @rule(place=places)
    def another_negotiation_has_no_say(self, place: Place) -> None:
        assert self.capacity.commit(place.hold_id, "another", self.now) is None
        assert self.capacity.done(place.hold_id, "another", self.now) is None

    @rule(seconds=st.floats(0, 60))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(node=st.sampled_from(NODES))
    def forget(self, node: str) -> None:
        self.capacity.forget(node)
        self.capacity.set_room(node, slots=SLOTS, queue=QUEUE)
        self.standing = {key: value for key, value in self.standing.items() if value[0] != node}

    @invariant()
    def the_books_agree(self) -> None:
        self._sweep()
        for node in NODES:
            used = self.capacity.used(node, self.now)
            assert used == self._model_used(node) <= SLOTS + QUEUE
            assert self.capacity.load(node, self.now).free == max(0, SLOTS - used)

    def _sweep(self) -> None:
        self.standing = {key: value for key, value in self.standing.items() if value[2] > self.now}

    def _model_used(self, node: str) -> int:
        self._sweep()
        return sum(1 for value in self.standing.values() if value[0] == node)


Books.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestBooks = Books.TestCase


class Runs(RuleBasedStateMachine):
    """One node beside its books: it knows its own runs, and not every end is told to the books."""

    runs = Bundle("runs")

    def __init__(self) -> None:
        super().__init__()
        self.capacity, self.now, self.count = Capacity(), 0.0, 0
        self.capacity.set_room("n1", slots=SLOTS, queue=3 * SLOTS)
        self.alive: dict[str, float] = {}
        """Hold id → when its run is at the node."""

    @rule(target=runs, way_s=st.floats(0, REACH_S))
    def begin(self, way_s: float) -> object:
        self.count += 1
        try:
            place = self.capacity.hold("n1", f"nid{self.count}", hold_s=10, now=self.now)
        except Refused:
            return multiple()
        self.capacity.commit(place.hold_id, place.nid, self.now)
        self.alive[place.hold_id] = self.now + way_s
        return place

    @rule(run=runs, told=st.booleans())
    def end(self, run: Place, told: bool) -> None:
        if self.alive.pop(run.hold_id, None) is not None and told:
            self.capacity.done(run.hold_id, run.nid, self.now)

    @rule(seconds=st.integers(1, 20))
    def report(self, seconds: int) -> None:
        for _ in range(seconds):
            self.now += 1.0
            there = sum(at <= self.now for at in self.alive.values())
            self.capacity.note_running("n1", there, self.now)
            self.no_run_is_without_its_place()

    @rule()
    def settle(self) -> None:
        """Where nothing new happens, the books and the node agree in the end."""
        self.report(round(2 * SURPLUS_GRACE_S + REACH_S) + 2)
        assert self.capacity.used("n1", self.now) == len(self.alive)

    @invariant()
    def no_run_is_without_its_place(self) -> None:
        assert len(self.alive) <= self.capacity.used("n1", self.now) <= 4 * SLOTS


Runs.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestRuns = Runs.TestCase


@pytest.fixture
def capacity() -> Capacity:
    made = Capacity()
    made.set_room("n1", slots=1, queue=1)
    return made


def test_the_same_negotiation_holds_once(capacity: Capacity) -> None:
    first = capacity.hold("n1", "nid", hold_s=5, now=0)
    assert capacity.held_for("nid", 1) == first
    with pytest.raises(Refused, match=r"capacity\.nid"):
        capacity.hold("n1", "nid", hold_s=5, now=1)
    assert capacity.held_for("nid", 5) is None


def test_a_place_is_free_again_the_moment_a_hold_expires(capacity: Capacity) -> None:
    capacity.hold("n1", "a", hold_s=5, now=0)
    capacity.hold("n1", "b", hold_s=9, now=0)
    with pytest.raises(Refused, match=r"capacity\.full"):
        capacity.hold("n1", "c", hold_s=5, now=4.9)
    assert capacity.hold("n1", "c", hold_s=5, now=5.0).state == "HELD"


def test_waiting_grows_with_what_was_promised(capacity: Capacity) -> None:
    assert capacity.load("n1", 0).queue_ms == 0
    place = capacity.hold("n1", "a", hold_s=5, now=0)
    assert capacity.load("n1", 0).queue_ms == 2000
    capacity.commit(place.hold_id, "a", 0)
    capacity.done(place.hold_id, "a", 1.0)
    capacity.hold("n1", "b", hold_s=5, now=1)
    assert capacity.load("n1", 1).queue_ms == 1800  # the mean has moved towards a run of one second


def test_a_run_that_nobody_reported_done_ends_when_the_node_is_idle(capacity: Capacity) -> None:
    place = capacity.hold("n1", "a", hold_s=5, now=0)
    capacity.commit(place.hold_id, "a", 1)
    capacity.note_idle("n1", 1 + IDLE_GRACE_S - 0.1)
    assert capacity.used("n1", 20) == 1
    capacity.note_idle("n1", 1 + IDLE_GRACE_S)
    assert capacity.used("n1", 20) == 0


def committed(capacity: Capacity, name: str, now: float) -> Place:
    place = capacity.hold("n1", name, hold_s=5, now=now)
    assert capacity.commit(place.hold_id, place.nid, now)
    return place


def test_runs_that_a_busy_node_does_not_have_are_over(capacity: Capacity) -> None:
    """Their end was never reported, and one run or another is always there: it is never idle."""
    capacity.set_room("n1", slots=8, queue=8)
    for number in range(11):
        committed(capacity, f"lost{number}", 0.0)
    last = committed(capacity, "last", 1.0)
    for second in range(3, 3 + int(SURPLUS_GRACE_S)):
        capacity.note_running("n1", 1, float(second))
        assert capacity.used("n1", float(second)) == 12
    capacity.note_running("n1", 1, 3 + SURPLUS_GRACE_S)
    assert capacity.used("n1", 20.0) == 1
    assert capacity.done(last.hold_id, "last", 20.0) == last, "the oldest went"


def test_a_run_on_its_way_to_the_node_is_no_surplus(capacity: Capacity) -> None:
    """One after the other is committed, and has not arrived when the node says what it has."""
    long = committed(capacity, "long", 0.0)
    for second in range(1, 100):
        short = committed(capacity, f"short{second}", second - REACH_S / 2)
        capacity.note_running("n1", 1, float(second))
        assert capacity.used("n1", float(second)) == 2
        capacity.done(short.hold_id, short.nid, second + REACH_S / 2)
    assert capacity.done(long.hold_id, "long", 100.0) == long


def test_one_report_that_accounts_for_all_runs_begins_the_count_anew(capacity: Capacity) -> None:
    """An engine that was between two choices of one run did not have it for a moment."""
    committed(capacity, "a", 0.0)
    committed(capacity, "b", 0.0)
    for second in range(2, 100):
        capacity.note_running("n1", 2 if second % int(SURPLUS_GRACE_S) == 0 else 1, float(second))
    assert capacity.used("n1", 100.0) == 2


def test_as_many_runs_are_over_as_no_report_accounted_for(capacity: Capacity) -> None:
    capacity.set_room("n1", slots=2, queue=2)
    for name in ("lost", "b", "c"):
        committed(capacity, name, 0.0)
    for second in range(2, 2 + int(SURPLUS_GRACE_S)):
        capacity.note_running("n1", 2, float(second))
    capacity.note_running("n1", 1, 2 + SURPLUS_GRACE_S)
    assert capacity.used("n1", 20.0) == 2


def test_an_unknown_node_has_no_room(capacity: Capacity) -> None:
    with pytest.raises(Refused, match=r"capacity\.full"):
        capacity.hold("stranger", "a", hold_s=5, now=0)
    assert capacity.load("stranger", 0).queue_ms == 0
    assert capacity.load("stranger", 0).free == 0


def test_the_longest_wait_can_still_be_stated() -> None:
    """Runs of an hour before a long queue: the wait stays within what an offer may say."""
    capacity = Capacity()
    capacity.set_room("n1", slots=1, queue=1024)
    for number in range(40):
        place = capacity.hold("n1", f"first{number}", hold_s=1.0, now=4000.0 * number)
        capacity.commit(place.hold_id, place.nid, 4000.0 * number)
        capacity.done(place.hold_id, place.nid, 4000.0 * number + 3600.0)
    for number in range(500):
        capacity.hold("n1", f"nid{number}", hold_s=30.0, now=200_000.0)
    assert TypeAdapter(Ms).validate_python(capacity.load("n1", 200_000.0).queue_ms) > 0
