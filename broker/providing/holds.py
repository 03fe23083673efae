"""What the border has promised to whom, for how long: holds and the runs that grew out of them.

In memory with a time limit: a restart voids holds (session.md 11). Who calls and never accepts
spends a budget, because every call shows a little of our load and strands a little capacity.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from attestation.appraise import NodeAppraisal
from schemas.errors import Refused
from schemas.messages.interior import Hold
from schemas.messages.message import Received
from schemas.messages.negotiation import CallForOffers, Offer
from schemas.policy.layers import Decision

MAX_NEGOTIATIONS: Final = 20_000  # records at once; those that ended first make room for new ones
KEEP_S: Final = 3600.0  # seconds that a finished negotiation is remembered for Status, while there is room
MAX_OPEN_PER_PEER: Final = 128  # offers and runs of a peer at once: as many as it may run streams here
CALL_BUDGET: Final = 200  # calls that came to no run before a peer has to wait
CALL_REFILL_PER_S: Final = 5.0
LAPSE_COST: Final = 10.0
"""Calls that a hold costs which was neither used nor given back: it kept a place idle."""
MAX_DEBT: Final = 500.0  # calls below none, which take 100 s to earn

State = Literal["HELD", "RELEASED", "COMMITTED", "ACTIVE", "COMPLETED", "FAILED", "CANCELLED", "TERMINATED"]
TERMINAL: Final = frozenset({"RELEASED", "COMPLETED", "FAILED", "CANCELLED", "TERMINATED"})
_NEXT: Final[dict[State, frozenset[State]]] = {
    "HELD": frozenset({"RELEASED", "COMMITTED"}),
    "COMMITTED": frozenset({"ACTIVE", "FAILED", "CANCELLED", "TERMINATED"}),
    "ACTIVE": frozenset({"COMPLETED", "FAILED", "CANCELLED", "TERMINATED"}),
}


@dataclass(slots=True)
class Negotiation:
    """One negotiation as the provider sees it. `state` moves only through `Holds.move`."""

    consumer: str
    call: Received[CallForOffers] = field(repr=False)
    offer: Offer = field(repr=False)
    offer_digest: bytes
    hold: Hold = field(repr=False)
    appraisal: NodeAppraisal = field(repr=False)
    """Our own appraisal of the node that is held."""
    decision: Decision = field(repr=False)
    expires: float
    """When the hold ends, seconds on the caller's steady clock."""
    state: State = "HELD"
    changed: float = 0.0
    execution: str | None = None
    """Receipt digest of the Execution (hex), once there is one."""


@dataclass(slots=True)
class _Budget:
    calls: float = CALL_BUDGET
    at: float = 0.0


class Holds:
    """Every negotiation of this process, by negotiation id and by hold id. Time is an argument."""

    def __init__(self) -> None:
        self._by_nid: dict[str, Negotiation] = {}
        self._held: dict[str, Negotiation] = {}
        """Those in state HELD: few, while `_by_nid` remembers an hour."""
        self._run: dict[str, Negotiation] = {}
        """Those COMMITTED or ACTIVE."""
        self._ended: dict[str, None] = {}
        """Negotiations in a terminal state, the one that ended first in front."""
        self._budgets: dict[str, _Budget] = {}

    def charge_call(self, consumer: str, now: float) -> None:
        """Count a call against its sender's budget. Raises `Refused` (`RATE`)."""
        budget = self._budgets.setdefault(consumer, _Budget(at=now))
        budget.calls = min(CALL_BUDGET, budget.calls + (now - budget.at) * CALL_REFILL_PER_S)
        budget.at = now
        if budget.calls < 1:
            raise Refused("RATE", "too many calls that came to no run")
        offers = sum(held.consumer == consumer and held.expires > now for held in self._held.values())
        runs = sum(each.consumer == consumer for each in self._run.values())
        if offers + runs >= MAX_OPEN_PER_PEER:  # what is offered beyond it could not be taken up
            raise Refused("RATE", "too many offers and runs at once")
        budget.calls -= 1

    def add(self, negotiation: Negotiation, now: float) -> None:
        """Remember a new hold. Raises `Refused` when the id was used before, or too many are not yet over."""
        self._make_room(now)
        nid = negotiation.offer.nid
        self.check_new(nid)
        if len(self._by_nid) >= MAX_NEGOTIATIONS:
            raise Refused("RATE", "too many negotiations at once")
        negotiation.changed = now
        self._by_nid[nid] = self._held[nid] = negotiation

    def check_new(self, nid: str) -> None:
        """Raise `Refused` (`negotiate.nid_reused`) for a name that was used before, by whomever."""
        if nid in self._by_nid:
            raise Refused("negotiate.nid_reused", "this negotiation exists already")

    def get(self, nid: str) -> Negotiation | None:
        return self._by_nid.get(nid)

    def held(self, nid: str, hold_id: str, consumer: str, now: float) -> Negotiation:
        """The negotiation whose hold this consumer may use now. Raises `Refused`."""
        negotiation = self._by_nid.get(nid)
        if negotiation is None or negotiation.consumer != consumer or negotiation.offer.hold_id != hold_id:
            raise Refused("hold.unknown", "no such hold of yours")
        if negotiation.state in ("HELD", "RELEASED") and negotiation.expires <= now:
            if negotiation.state == "HELD":
                self._lapse(negotiation, now)
            raise Refused("hold.expired", "this hold has expired")
        if negotiation.state != "HELD":
            raise Refused("hold.used", f"this hold is {negotiation.state.lower()}")
        return negotiation

    def move(self, negotiation: Negotiation, state: State, now: float) -> None:
        """Go to `state`. Raises `Refused` for a step that the state machine does not have."""
        if state not in _NEXT.get(negotiation.state, frozenset()):
            raise Refused("hold.state", f"{negotiation.state} does not lead to {state}")
        negotiation.state, negotiation.changed = state, now
        nid = negotiation.offer.nid
        self._held.pop(nid, None)
        if state in TERMINAL:
            self._run.pop(nid, None)
            self._ended[nid] = None
        else:
            self._run[nid] = negotiation
        if state == "COMMITTED":
            self._budgets.setdefault(negotiation.consumer, _Budget(at=now)).calls += 1

    def wasted(self, negotiation: Negotiation, now: float) -> None:
        """The node could not open the order: its call counts after all."""
        budget = self._budgets.setdefault(negotiation.consumer, _Budget(at=now))
        budget.calls = max(-MAX_DEBT, budget.calls - 1)

    def expired(self, now: float) -> list[Negotiation]:
        """Holds whose time is over, moved to RELEASED: the caller tells the agent."""
        gone = [held for held in self._held.values() if held.expires <= now]
        for negotiation in gone:
            self._lapse(negotiation, now)
        return gone

    def _lapse(self, negotiation: Negotiation, now: float) -> None:
        """Its time is over. Whoever lets holds lapse soon has to wait, and strands little meanwhile."""
        self.move(negotiation, "RELEASED", now)
        budget = self._budgets.setdefault(negotiation.consumer, _Budget(at=now))
        budget.calls = max(-MAX_DEBT, budget.calls - LAPSE_COST)

    @property
    def running(self) -> int:
        return len(self._run)

    def _make_room(self, now: float) -> None:
        """Forget what ended long ago, and of a full table what ended first: a busy hour shuts nobody out."""
        while self._ended:
            first = self._by_nid[next(iter(self._ended))]
            if len(self._by_nid) < MAX_NEGOTIATIONS and first.changed + KEEP_S >= now:
                return
            del self._ended[first.offer.nid], self._by_nid[first.offer.nid]
