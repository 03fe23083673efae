"""One hold, top to bottom: which capability, which nodes, which of them, and a place on it.

1 the catalogue's variants of what was asked, best quality first
2 nodes that proved they hold that model, admitted and up right now, and not excluded
3 the shortest expected queue, a free slot before all
4 a place with a time limit, or the typed reason why there is none
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from domain_agent.admit.nodes import NodeBook, NodeRecord
from domain_agent.clock import Clock
from domain_agent.offer.capacity import Capacity, Load, Place
from domain_agent.offer.catalogue import Catalogue
from schemas.descriptors.capability import CapabilityDescriptor
from schemas.descriptors.summary import Headroom, headroom_bucket
from schemas.messages.interior import Hold, HoldReply, HoldRequest, NoHold

MIN_RETRY_MS: Final = 250  # what a consumer without a hold is asked to wait at least
MAX_RETRY_MS: Final = 30_000
ABSENT_RETRY_MS: Final = 5_000  # while no node is up: an admission takes about this long


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node that could take the request now."""

    record: NodeRecord
    entry: CapabilityDescriptor
    load: Load


@dataclass(slots=True)
class Holding:
    """Answers hold requests from what the agent knows. One per agent."""

    book: NodeBook
    capacity: Capacity
    catalogue: Catalogue
    clock: Clock
    draining: bool = False

    def hold(self, asked: HoldRequest) -> HoldReply:
        """A hold on the best node, or why there is none. The same negotiation gets the same hold."""
        if self.draining:
            return HoldReply(refused=NoHold(code="DRAINING", headroom=0, retry_after_ms=0))
        entries = self.catalogue.matching(asked.capability, asked.model_digest)
        if not entries:
            return HoldReply(refused=NoHold(code="UNKNOWN_CAPABILITY", headroom=0, retry_after_ms=0))
        candidates = [each for entry in entries for each in self.candidates(entry)]
        headroom = headroom_of(candidates)
        again = self.capacity.held_for(asked.nid, self.clock.steady())
        if again is not None:
            return self._again(again, candidates, headroom)
        excluded = set(asked.exclude_nodes)
        able = [
            each for each in candidates if not each.load.full and _thumbprint(each.record) not in excluded
        ]
        if not able:
            return _full(candidates, headroom)
        chosen = min(able, key=_preference)
        place = self.capacity.hold(
            chosen.record.node_id, asked.nid, hold_s=asked.hold_ms / 1000, now=self.clock.steady()
        )
        return HoldReply(hold=self._describe(place, chosen, headroom))

    def candidates(self, entry: CapabilityDescriptor) -> list[Candidate]:
        """Every admitted node that is up and proved that it holds this model."""
        wall, steady = self.clock.wall(), self.clock.steady()
        found = []
        for record in self.book:
            if not record.admitted(wall) or record.health(steady) in ("DOWN", "UNKNOWN"):
                continue
            if record.model(entry.label, entry.digest) is None:
                continue
            found.append(Candidate(record, entry, self.capacity.load(record.node_id, steady)))
        return found

    def _again(self, place: Place, candidates: list[Candidate], headroom: Headroom) -> HoldReply:
        for each in candidates:
            if each.record.node_id == place.node_id:
                return HoldReply(hold=self._describe(place, each, headroom))
        return _full(candidates, headroom)

    def _describe(self, place: Place, chosen: Candidate, headroom: Headroom) -> Hold:
        appraisal = chosen.record.appraisal
        assert appraisal
        return Hold(
            hold_id=place.hold_id,
            node_id=place.node_id,
            node_sign=appraisal.sign_key.thumbprint,
            seal_key=appraisal.seal_key,
            evidence=appraisal.evidence_digest.hex(),
            capability=chosen.entry.label,
            model_digest=chosen.entry.digest,
            model_signing=chosen.entry.model_signing,
            rates=chosen.entry.rates,
            hold_ms=max(0, int(1000 * (place.until - self.clock.steady()))),
            queue_ms=chosen.load.queue_ms,
            headroom=headroom,
        )


def headroom_of(candidates: Sequence[Candidate]) -> Headroom:
    """How much of these nodes is free, in its bucket; a node that realises several variants counts once."""
    loads = {each.record.node_id: each.load for each in candidates}.values()
    return headroom_bucket(sum(load.free for load in loads), sum(load.slots for load in loads))


def _preference(candidate: Candidate) -> tuple[bool, int, int, int, bool, str]:
    """A free slot before all; then quality, the shortest queue, the emptiest and the healthiest node."""
    state = candidate.record.state
    return (
        candidate.load.free == 0,
        -candidate.entry.quality.tier,
        candidate.load.queue_ms,
        -candidate.load.free,
        state is None or state.health != "HEALTHY",
        candidate.record.node_id,
    )


def _retry(candidates: list[Candidate]) -> int:
    if not candidates:
        return ABSENT_RETRY_MS
    return min(max(min(each.load.queue_ms for each in candidates), MIN_RETRY_MS), MAX_RETRY_MS)


def _thumbprint(record: NodeRecord) -> str:
    return record.appraisal.sign_key.thumbprint if record.appraisal else ""


def _full(candidates: list[Candidate], headroom: Headroom) -> HoldReply:
    retry_after_ms = _retry(candidates)
    return HoldReply(refused=NoHold(code="NO_CAPACITY", headroom=headroom, retry_after_ms=retry_after_ms))
