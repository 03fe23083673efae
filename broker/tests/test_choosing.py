"""Of the offers that came one is taken: who withholds its proof, or falls late, stands in nobody's way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from broker.observe import Metrics
from broker.placing import agreement
from broker.placing.agreement import TURN_S, Attempt, Placed, Placing, Terms, patience_s
from broker.placing.appraisals import ChallengeBook
from broker.placing.attempt import new_commitment
from broker.placing.collateral import NOTHING
from broker.placing.negotiate import ORDER_S, Offered
from broker.placing.placements import Choice, Considered, Placements
from broker.placing.refusals import Fell
from broker.shelf import INTENT
from broker.tests.logs import opened
from broker.tests.parties import CONSUMER, PROVIDER, Parties
from broker.tests.test_journey import journey
from receipts.log import TransparencyLog
from receipts.log.draft import Disclosures
from receipts.statements.fields import RequestRef
from receipts.tests.bodies import placement
from schemas.errors import Refused

OTHER = "hyper.us"


@dataclass(slots=True)
class Verdicts:
    """Every node proves itself; what its domain does about it, and what happens meanwhile, is the test's."""

    parties: Parties
    shown: Callable[[str], asyncio.Event | None] = lambda _: None
    last_look: dict[str, Exception] = field(default_factory=dict)
    trust_epoch: int = 0
    _looked: list[str] = field(default_factory=list)

    async def appraise(self, domain: str, digest: str) -> Any:
        del digest
        if (event := self.shown(domain)) is not None:
            await event.wait()
        return SimpleNamespace(status="affirming", challenged_at=time.time(), domain=domain)

    def document(self, digest: str) -> None:
        del digest

    def supply(self, digest: str) -> Any:
        del digest
        return NOTHING

    async def still(self, appraisal: Any, epoch: int) -> Any:
        del epoch
        if error := self.last_look.get(appraisal.domain):
            raise error
        return appraisal


class Written(Placements):
    """Real log, rows and settling; the text of a Placement does not matter here."""

    def _draft(self, journey: Any, choice: Choice, root: bytes, count: int) -> Any:
        del journey, root, count
        request = RequestRef(id="r1", commitment=choice.commitment)
        return placement(choice.offered.domain, request=request)

    def _disclosures(self, *_: Any) -> Disclosures:
        return Disclosures()


class Choosing(Placing):
    """The real choice among offers; terms, policy and seal are not at stake."""

    def _check_terms(self, *_: Any) -> None:
        pass

    def _decide(self, *_: Any) -> Any:
        return SimpleNamespace(record=b"")

    def _seal(self, *_: Any) -> Any:
        return SimpleNamespace(header_digest=b"")

    async def _release(self, losers: Any) -> None:
        pass


@dataclass(slots=True)
class Round:
    """One round of calls that two domains answered, the other one in front."""

    placing: Placing
    verdicts: Verdicts
    log: TransparencyLog
    offers: list[Offered]
    fell: list[Fell] = field(default_factory=list)

    async def choose(self) -> Placed | None:
        plans: Any = [
            SimpleNamespace(domain=each.domain, candidate=SimpleNamespace(key=each.domain), score=0)
            for each in self.offers
        ]
        ranking = cast(Any, SimpleNamespace(write=lambda: b"{}"))
        attempt = Attempt(journey(), Considered(plans, [], b"", ranking), *new_commitment(b"{}"))
        return await self.placing._choose(attempt, plans, self.offers, self.fell)

    async def owed(self) -> int:
        return len(await self.log.unsettled(INTENT))


@pytest.fixture
async def called(parties: Parties, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Round]:
    monkeypatch.setattr(agreement, "check_node", lambda *_: None)
    async with opened(tmp_path, parties, CONSUMER) as log:
        verdicts = Verdicts(parties)
        peers = replace(parties.peers(CONSUMER), bus=cast(Any, SimpleNamespace(spawn=lambda _: None)))
        written = Written(CONSUMER, parties.trust, ChallengeBook(CONSUMER), log)
        nothing, terms = cast(Any, None), Terms(finalists=3, hold_ms=3000, call_ms=2000, run_ms=1000)
        trusted = cast(Any, verdicts)
        placing = Choosing(peers, nothing, trusted, nothing, written, {}, terms, nothing, Metrics())
        yield Round(placing, verdicts, log, [offer(parties, OTHER), offer(parties, PROVIDER)])


def offer(parties: Parties, domain: str, hold_ms: int = 3000) -> Offered:
    made = parties.offered(hold_ms=hold_ms)
    body = made.body.model_copy(update={"nid": domain.replace(".", "-"), "iss": domain})
    return Offered(domain, made.call, replace(made.offer, body=body))


async def test_the_first_that_proves_itself_is_taken(called: Round) -> None:
    placed = await called.choose()
    assert placed is not None
    assert (placed.domain, called.fell, await called.owed()) == (OTHER, [], 1)


async def test_who_falls_at_the_last_look_leaves_the_request_to_the_next(called: Round) -> None:
    """Both Placements are of one commitment: the second one was taken for a name that was used before."""
    called.verdicts.last_look[OTHER] = Refused("trust.node_revoked", "the node was revoked (compromise)")
    placed = await called.choose()
    assert placed is not None
    assert placed.domain == PROVIDER
    assert [(each.plan.domain, each.reasons) for each in called.fell] == [(OTHER, ("trust.node_revoked",))]
    assert await called.owed() == 1, "of the order that was never sent, nothing is owed"
    assert len(await called.log.of_request("r1")) == 2


async def test_who_leaves_before_anything_was_sent_is_owed_nothing(
    called: Round, monkeypatch: pytest.MonkeyPatch
) -> None:
    looking = asyncio.Event()

    async def look(self: Verdicts, appraisal: Any, epoch: int) -> Any:
        del self, appraisal, epoch
        looking.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(Verdicts, "still", look)
    choosing = asyncio.create_task(called.choose())
    await looking.wait()
    choosing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await choosing
    assert await called.owed() == 0


async def test_who_offers_and_withholds_its_evidence_does_not_let_the_other_hold_lapse(
    called: Round, parties: Parties
) -> None:
    never = asyncio.Event()
    called.verdicts.shown = lambda domain: never if domain == OTHER else None
    called.offers = [offer(parties, OTHER, 600), offer(parties, PROVIDER, 600)]
    placed = await called.choose()
    assert placed is not None
    assert (placed.domain, time.monotonic() < placed.offered.until) == (PROVIDER, True)
    assert [(each.plan.domain, each.reasons) for each in called.fell] == [(OTHER, ("evidence.late",))]


async def test_an_offer_whose_place_is_held_no_more_is_not_taken(called: Round, parties: Parties) -> None:
    late = time.monotonic() - 3.0 + ORDER_S
    called.offers = [replace(offer(parties, OTHER), arrived=late), offer(parties, PROVIDER)]
    placed = await called.choose()
    assert placed is not None
    assert placed.domain == PROVIDER
    assert [each.reasons for each in called.fell] == [("offer.lapsed",)]
    assert len(await called.log.of_request("r1")) == 1, "nothing was placed there"


@pytest.mark.parametrize(
    ("hold_ms", "behind", "waits"),
    [(3000, 0, 2.8), (3000, 1, 2.3), (3000, 2, 1.8), (500, 0, 0.3), (500, 2, 0.1)],
)
def test_each_offer_leaves_time_to_those_behind_it(
    parties: Parties, hold_ms: int, behind: int, waits: float
) -> None:
    offers = [offer(parties, f"d{number}.example", hold_ms) for number in range(behind + 1)]
    assert patience_s(offers[0], offers[1:]) == pytest.approx(waits, abs=0.05)
    assert TURN_S * behind < 3.0 - ORDER_S
