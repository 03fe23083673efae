"""The books: whatever is asked in whatever order, no place is promised twice and none is lost."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule
from pydantic import TypeAdapter

from domain_agent.offer.capacity import COMMITTED_S, IDLE_GRACE_S, Capacity, Place
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
