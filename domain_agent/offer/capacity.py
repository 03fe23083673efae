"""Slots sold and not sold: holds with a time limit, on the agent's steady clock. Pure.

A place is held, then committed, then done; or it is released, or expires. No place is ever promised
twice. In memory: a restart voids every hold (session.md 11), and the nodes' own limits still stand.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Final, Literal

from schemas.errors import Refused

MAX_HOLD_S: Final = 30.0  # seconds a hold may last, whatever is asked
COMMITTED_S: Final = 3660.0  # seconds after which a run that was never reported done is over: the longest run
IDLE_GRACE_S: Final = 15.0  # seconds after a commit before a node's "idle" is believed against the books
REACH_S: Final = 2.0  # seconds in which a committed run is at its node and in a report; it sets out before
SURPLUS_GRACE_S: Final = 15.0
"""Seconds in which no report may account for a run before it is believed over, and its least age then: a
body of 4 MiB has arrived, and an engine between two choices has its next."""
MAX_HOLDS: Final = 100_000  # entries at once; a thousand nodes with a hundred places each
FIRST_RUN_MS: Final = 2000.0  # expected length of a run before the first was seen
MAX_QUEUE_MS: Final = 86_400_000  # a day, the most that a message can state
RUN_WEIGHT: Final = 0.2  # of the newest run in the mean


@dataclass(slots=True)
class Place:
    """One promise of one place on one node."""

    hold_id: str
    nid: str
    node_id: str
    state: Literal["HELD", "COMMITTED"]
    until: float
    since: float


@dataclass(slots=True)
class Room:
    """What one node can take: `slots` at once and `queue` waiting."""

    slots: int
    queue: int
    run_ms: float = FIRST_RUN_MS
    surplus: int = 0
    """Runs that no report since `surplus_since` accounted for: the fewest."""
    surplus_since: float = 0.0

    @property
    def places(self) -> int:
        return self.slots + self.queue


@dataclass(frozen=True, slots=True)
class Load:
    """One node at one moment."""

    slots: int
    free: int
    """Slots that nobody was promised."""
    queue_ms: int
    """Expected wait of the next request: nothing while a slot is free."""
    full: bool


NOTHING: Final = Load(0, 0, 0, full=True)


class Capacity:
    """The books of all nodes. `now` is the agent's steady clock in seconds."""

    def __init__(self) -> None:
        self._rooms: dict[str, Room] = {}
        self._places: dict[str, Place] = {}
        self._of_node: dict[str, set[str]] = {}
        self._of_nid: dict[str, str] = {}

    def set_room(self, node_id: str, *, slots: int, queue: int) -> None:
        """What the node can take now. Promises beyond a smaller room stand; none is added."""
        room = self._rooms.setdefault(node_id, Room(slots, queue))
        room.slots, room.queue = slots, queue

    def room(self, node_id: str) -> Room | None:
        return self._rooms.get(node_id)

    def used(self, node_id: str, now: float) -> int:
        """Places promised on this node that still stand."""
        if node_id not in self._of_node:
            return 0
        self._expire(node_id, now)
        return len(self._of_node.get(node_id, ()))

    def load(self, node_id: str, now: float) -> Load:
        """What the node could take now."""
        room, used = self._rooms.get(node_id), self.used(node_id, now)
        if room is None or room.slots == 0:
            return NOTHING
        waiting = max(0, used - room.slots + 1)
        return Load(
            slots=room.slots,
            free=max(0, room.slots - used),
            queue_ms=min(MAX_QUEUE_MS, round(waiting * room.run_ms / room.slots)),
            full=used >= room.places,
        )

    def held_for(self, nid: str, now: float) -> Place | None:
        """The hold that this negotiation has already: a repeated request gets the same."""
        place = self._places.get(self._of_nid.get(nid, ""))
        return place if place and place.state == "HELD" and place.until > now else None

    def hold(self, node_id: str, nid: str, *, hold_s: float, now: float) -> Place:
        """Promise one place. Raises `Refused` (`capacity.full`, `capacity.nid`)."""
        room, used = self._rooms.get(node_id), self.used(node_id, now)
        if room is None or used >= room.places or len(self._places) >= MAX_HOLDS:
            raise Refused("capacity.full", f"{node_id} has no free place")
        if nid in self._of_nid:
            raise Refused("capacity.nid", "this negotiation has a place already")
        until = now + min(max(hold_s, 0.0), MAX_HOLD_S)
        place = Place(secrets.token_hex(16), nid, node_id, "HELD", until, now)
        self._places[place.hold_id] = place
        self._of_node.setdefault(node_id, set()).add(place.hold_id)
        self._of_nid[nid] = place.hold_id
        return place

    def commit(self, hold_id: str, nid: str, now: float) -> Place | None:
        """Turn a hold into a run; None when it has expired or never was. Committing twice is the same run."""
        place = self._known(hold_id, nid, now)
        if place is not None and place.state == "HELD":
            place.state, place.until, place.since = "COMMITTED", now + COMMITTED_S, now
        return place

    def release(self, hold_id: str, nid: str, now: float) -> Place | None:
        """Give a hold back. A committed run is not released: it ends with `done`."""
        place = self._known(hold_id, nid, now)
        if place is None or place.state != "HELD":
            return None
        self._drop(place)
        return place

    def done(self, hold_id: str, nid: str, now: float) -> Place | None:
        """The run has ended, or the hold is no longer wanted."""
        place = self._known(hold_id, nid, now)
        if place is None:
            return None
        room = self._rooms.get(place.node_id)
        if place.state == "COMMITTED" and room:
            room.run_ms += RUN_WEIGHT * (1000 * (now - place.since) - room.run_ms)
        self._drop(place)
        return place

    def note_idle(self, node_id: str, now: float) -> None:
        """The node says that nothing runs or waits: runs whose end was never reported are over."""
        for hold_id in list(self._of_node.get(node_id, ())):
            place = self._places[hold_id]
            if place.state == "COMMITTED" and now - place.since >= IDLE_GRACE_S:
                self._drop(place)

    def note_running(self, node_id: str, running: int, now: float) -> None:
        """The node says how many runs it has, those that wait included.

        Of committed runs that outnumber them for `SURPLUS_GRACE_S`, the oldest are over: their end was
        never reported. One that may still be on its way to the node does not count against it.
        """
        if running == 0:
            self.note_idle(node_id, now)
        room = self._rooms.get(node_id)
        if room is None:
            return
        self._expire(node_id, now)
        places = [self._places[hold_id] for hold_id in self._of_node.get(node_id, ())]
        arrived = [each for each in places if each.state == "COMMITTED" and now - each.since >= REACH_S]
        surplus = max(0, len(arrived) - running)
        if room.surplus == 0:
            room.surplus_since, room.surplus = now, surplus
        room.surplus = min(room.surplus, surplus)
        if room.surplus == 0 or now - room.surplus_since < SURPLUS_GRACE_S:
            return
        for place in sorted(arrived, key=lambda each: each.since)[: room.surplus]:
            if now - place.since >= SURPLUS_GRACE_S:
                self._drop(place)
        room.surplus = 0

    def forget(self, node_id: str) -> None:
        """The node is out: its promises are void."""
        for hold_id in list(self._of_node.get(node_id, ())):
            self._drop(self._places[hold_id])
        self._rooms.pop(node_id, None)

    def _known(self, hold_id: str, nid: str, now: float) -> Place | None:
        place = self._places.get(hold_id)
        if place is None or place.nid != nid:
            return None
        self._expire(place.node_id, now)
        return self._places.get(hold_id)

    def _expire(self, node_id: str, now: float) -> None:
        for hold_id in list(self._of_node.get(node_id, ())):
            if self._places[hold_id].until <= now:
                self._drop(self._places[hold_id])

    def _drop(self, place: Place) -> None:
        del self._places[place.hold_id]
        self._of_nid.pop(place.nid, None)
        held = self._of_node[place.node_id]
        held.discard(place.hold_id)
        if not held:
            del self._of_node[place.node_id]
