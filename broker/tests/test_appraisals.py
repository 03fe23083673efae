"""Our own verdict on a node, and everything that must end it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from broker.placing.appraisals import MAX_PROOFS, SILENT_S, Appraisals, ChallengeBook
from broker.tests.parties import CHALLENGE, CONSUMER, PROVIDER, Parties, SimulatedNode
from schemas.canonical import sha256
from schemas.errors import Refused, Undecided
from schemas.messages.interior import OwnAdvert


class Documents:
    """What peers would send, by digest, and how often they were asked."""

    def __init__(self, *documents: bytes) -> None:
        self.held = {sha256(document).hex(): document for document in documents}
        self.asked = 0
        self.meanwhile: Callable[[], None] = lambda: None
        """What happens while a document is on its way."""

    async def fetch(self, domain: str, digest: str) -> bytes:
        self.asked += 1
        self.meanwhile()
        if digest not in self.held:
            raise Undecided("evidence.unknown", "no evidence with this digest is kept")
        return self.held[digest]


def book(age_s: float = 0.0, challenge: bytes = CHALLENGE) -> ChallengeBook:
    challenges = ChallengeBook(CONSUMER)
    issued = int(time.time() - age_s)
    challenges.note(OwnAdvert(advert="{}", challenge=challenge.hex(), issued_at=issued, trust_epoch=0))
    return challenges


def appraisals(parties: Parties, documents: Documents, challenges: ChallengeBook | None = None) -> Appraisals:
    return Appraisals(parties.trust, parties.expectations, challenges or book(), documents.fetch)


async def test_a_genuine_node_is_appraised_once(parties: Parties) -> None:
    evidence = parties.node.evidence()
    documents = Documents(evidence)
    ours = appraisals(parties, documents)
    first = await ours.appraise(PROVIDER, sha256(evidence).hex())
    assert first.status == "affirming"
    assert first.simulated
    assert first.assurance == 1
    assert await ours.appraise(PROVIDER, sha256(evidence).hex()) is first
    assert documents.asked == 1
    assert ours.document(sha256(evidence).hex()) == evidence


async def test_another_document_than_was_named(parties: Parties) -> None:
    evidence, other = parties.node.evidence(), parties.node.evidence()
    documents = Documents()
    documents.held[sha256(evidence).hex()] = other + b" "
    with pytest.raises(Refused, match=r"evidence\.digest"):
        await appraisals(parties, documents).appraise(PROVIDER, sha256(evidence).hex())


async def test_a_node_of_another_domain(parties: Parties) -> None:
    evidence = parties.node.evidence()
    ours = appraisals(parties, Documents(evidence))
    with pytest.raises(Refused, match=r"evidence\.foreign"):
        await ours.appraise(CONSUMER, sha256(evidence).hex())


async def test_a_cached_verdict_is_no_other_domains(parties: Parties) -> None:
    evidence = parties.node.evidence()
    ours = appraisals(parties, Documents(evidence))
    await ours.appraise(PROVIDER, sha256(evidence).hex())
    with pytest.raises(Refused, match=r"evidence\.foreign"):
        await ours.appraise(CONSUMER, sha256(evidence).hex())


@pytest.mark.parametrize(
    ("challenges", "reason"),
    [
        (book(challenge=b"\x08" * 32), "node.challenge_missing"),
        (book(age_s=400.0), "node.challenge_stale"),
    ],
)
async def test_evidence_that_does_not_answer_us_in_time(
    parties: Parties, challenges: ChallengeBook, reason: str
) -> None:
    evidence = parties.node.evidence()
    verdict = await appraisals(parties, Documents(evidence), challenges).appraise(
        PROVIDER, sha256(evidence).hex()
    )
    assert (verdict.status, verdict.reason) == ("none", reason)


async def test_a_chip_that_nobody_enrolled(parties: Parties) -> None:
    evidence = SimulatedNode(parties.vendor.make_chip()).evidence()
    verdict = await appraisals(parties, Documents(evidence)).appraise(PROVIDER, sha256(evidence).hex())
    assert (verdict.status, verdict.reason) == ("contraindicated", "node.platform_not_enrolled")


async def test_a_model_that_no_publisher_stands_behind(parties: Parties) -> None:
    evidence = parties.node.evidence()
    ours = appraisals(parties, Documents(evidence))
    ours.trust = replace(parties.trust, reference_values=())
    verdict = await ours.appraise(PROVIDER, sha256(evidence).hex())
    assert verdict.status == "contraindicated"


async def test_revocation_takes_effect_at_once(parties: Parties) -> None:
    evidence = parties.node.evidence()
    ours = appraisals(parties, Documents(evidence))
    verdict = await ours.appraise(PROVIDER, sha256(evidence).hex())
    epoch = ours.trust_epoch
    assert await ours.still(verdict, epoch) is verdict
    ours.revoke(PROVIDER, [verdict.sign_key.thumbprint], "compromise", 1)
    with pytest.raises(Refused, match=r"trust\.node_revoked"):
        await ours.still(verdict, epoch)
    assert ours.revocation(PROVIDER, verdict.sign_key.thumbprint) == "compromise"


def test_what_was_compromised_is_never_merely_stale_again(parties: Parties) -> None:
    """A bus that holds an earlier word back and hands it over later makes nothing better."""
    ours = appraisals(parties, Documents())
    ours.revoke(PROVIDER, ["key", "other"], "stale", 1)
    ours.revoke(PROVIDER, ["key"], "compromise", 2)
    ours.revoke(PROVIDER, ["key", "other"], "stale", 1)
    assert ours.revocation(PROVIDER, "key") == "compromise"
    assert ours.revocation(PROVIDER, "other") == "stale"


async def test_nobody_revokes_a_strangers_node(parties: Parties) -> None:
    evidence = parties.node.evidence()
    ours = appraisals(parties, Documents(evidence))
    verdict = await ours.appraise(PROVIDER, sha256(evidence).hex())
    epoch = ours.trust_epoch
    ours.revoke(CONSUMER, [verdict.sign_key.thumbprint], "compromise", 1)
    assert await ours.still(verdict, epoch) is verdict


async def test_a_trust_epoch_that_moved_means_proving_again(parties: Parties) -> None:
    """Nothing that the domain showed before counts: the evidence is had anew, and judged anew."""
    evidence = parties.node.evidence()
    documents = Documents(evidence)
    ours = appraisals(parties, documents)
    verdict = await ours.appraise(PROVIDER, sha256(evidence).hex())
    epoch = ours.trust_epoch
    for stated in (3, 3):
        ours.note_epoch(PROVIDER, stated)
        assert await ours.still(verdict, epoch) is verdict
    ours.note_epoch(PROVIDER, 4)
    again = await ours.still(verdict, epoch)
    assert again is not verdict
    assert (again.status, again.evidence_digest) == ("affirming", verdict.evidence_digest)
    assert documents.asked == 2
    assert await ours.still(again, ours.trust_epoch) is again
    assert documents.asked == 2


async def test_a_node_whose_domain_shows_its_evidence_no_more_is_out(parties: Parties) -> None:
    """The revocation itself was lost on its way: the epoch tells of it, and asking again finds it out."""
    evidence = parties.node.evidence()
    documents = Documents(evidence)
    ours = appraisals(parties, documents)
    ours.note_epoch(PROVIDER, 3)
    verdict = await ours.appraise(PROVIDER, sha256(evidence).hex())
    epoch = ours.trust_epoch
    documents.held.clear()
    ours.note_epoch(PROVIDER, 4)
    with pytest.raises(Undecided, match=r"evidence\.unknown"):
        await ours.still(verdict, epoch)


async def test_what_is_found_anew_must_be_what_was_found_before(parties: Parties) -> None:
    """The Placement says what the first proof found: another finding needs another Placement."""
    evidence = parties.node.evidence()
    ours = appraisals(parties, Documents(evidence))
    ours.note_epoch(PROVIDER, 3)
    verdict = await ours.appraise(PROVIDER, sha256(evidence).hex())
    epoch = ours.trust_epoch
    ours.trust = replace(parties.trust, reference_values=())
    ours.note_epoch(PROVIDER, 4)
    with pytest.raises(Refused, match=r"trust\.verdict_changed"):
        await ours.still(verdict, epoch)


async def test_trust_that_moves_with_every_look_is_not_waited_for(parties: Parties) -> None:
    evidence = parties.node.evidence()
    documents = Documents(evidence)
    ours = appraisals(parties, documents)
    ours.note_epoch(PROVIDER, 0)
    verdict = await ours.appraise(PROVIDER, sha256(evidence).hex())
    epoch = ours.trust_epoch
    documents.meanwhile = lambda: ours.note_epoch(PROVIDER, documents.asked)
    ours.note_epoch(PROVIDER, 100)
    with pytest.raises(Refused, match=r"trust\.epoch_changed"):
        await ours.still(verdict, epoch)
    assert documents.asked == 1 + MAX_PROOFS


async def test_what_was_on_its_way_when_trust_moved_is_asked_for_again(parties: Parties) -> None:
    evidence = parties.node.evidence()
    documents = Documents(evidence)
    ours = appraisals(parties, documents)
    ours.note_epoch(PROVIDER, 3)
    documents.meanwhile = lambda: ours.note_epoch(PROVIDER, 4)
    verdict = await ours.appraise(PROVIDER, sha256(evidence).hex())
    assert await ours.still(verdict, ours.trust_epoch) is verdict
    assert documents.asked == 2


async def test_a_domain_that_revokes_without_end_holds_up_no_other_ones_proofs(parties: Parties) -> None:
    evidence = parties.node.evidence()
    documents = Documents(evidence)
    ours = appraisals(parties, documents)
    documents.meanwhile = lambda: ours.revoke("hyper.us", ["key"], "stale", 1)
    epoch = ours.trust_epoch
    verdict = await ours.appraise(PROVIDER, sha256(evidence).hex())
    assert await ours.still(verdict, epoch) is verdict
    assert documents.asked == 1


@pytest.mark.parametrize(
    ("revoked_at", "asked"), [((4,), 1), ((4, 5), 1), ((5,), 2), ((3,), 2)], ids=["next", "two", "gap", "old"]
)
async def test_an_advert_after_the_revocation_that_it_tells_of_says_nothing_new(
    parties: Parties, revoked_at: tuple[int, ...], asked: int
) -> None:
    """Only where a word between may be missing is everything proved again."""
    evidence = parties.node.evidence()
    documents = Documents(evidence)
    ours = appraisals(parties, documents)
    ours.note_epoch(PROVIDER, 3)
    verdict = await ours.appraise(PROVIDER, sha256(evidence).hex())
    epoch = ours.trust_epoch
    for stated in revoked_at:
        ours.revoke(PROVIDER, ["another"], "compromise", stated)
    ours.note_epoch(PROVIDER, max(4, *revoked_at, 0))
    again = await ours.still(verdict, epoch)
    assert (again is verdict) == (asked == 1)
    assert documents.asked == asked


async def test_an_appraisal_does_not_outlive_its_challenge(parties: Parties) -> None:
    evidence = parties.node.evidence()
    ours = appraisals(parties, Documents(evidence))
    verdict = await ours.appraise(PROVIDER, sha256(evidence).hex())
    assert verdict.expires_at <= time.time() + 300
    with pytest.raises(Refused, match=r"trust\.appraisal_expired"):
        await ours.still(replace(verdict, expires_at=time.time() - 1), ours.trust_epoch)


async def test_a_domain_that_did_not_answer_is_left_alone_for_a_while(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise every request that it makes an offer for would wait for it."""
    first, second = parties.node.evidence(), parties.node.evidence()
    documents = Documents(first, second)
    ours = appraisals(parties, documents)

    def silent() -> None:
        raise Undecided("bus.timeout", "no answer in 5 s")

    documents.meanwhile = silent
    for evidence, code in ((first, "bus.timeout"), (second, "evidence.withheld")):
        with pytest.raises(Undecided, match=code):
            await ours.appraise(PROVIDER, sha256(evidence).hex())
    assert documents.asked == 1
    with pytest.raises(Undecided, match=r"bus\.timeout"):  # nobody else is kept waiting for that
        await ours.appraise(CONSUMER, sha256(first).hex())
    documents.meanwhile = lambda: None
    later = time.monotonic() + SILENT_S
    monkeypatch.setattr("broker.placing.appraisals.time.monotonic", lambda: later)
    assert (await ours.appraise(PROVIDER, sha256(first).hex())).status == "affirming"


async def test_no_verdict_outlives_its_evidence(parties: Parties, monkeypatch: pytest.MonkeyPatch) -> None:
    """What peers' evidence may take of our memory is bounded; the oldest goes and is proved again."""
    first, second = parties.node.evidence(), parties.node.evidence()
    monkeypatch.setattr("broker.placing.appraisals.MAX_DOCUMENT_BYTES", len(first) + len(second) - 1)
    documents = Documents(first, second)
    ours = appraisals(parties, documents)
    for evidence in (first, second, second, first):
        await ours.appraise(PROVIDER, sha256(evidence).hex())
        assert ours.document(sha256(evidence).hex()) == evidence
    assert documents.asked == 3
    assert ours.document(sha256(second).hex()) is None


def test_who_revokes_without_end_shuts_out_itself_alone(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.placing.appraisals.MAX_REVOKED", 3)
    ours = appraisals(parties, Documents())
    for number in range(10):
        ours.revoke("hyper.us", [f"key{number}"], "stale", number)
    ours.revoke(PROVIDER, ["other"], "stale", 1)
    assert ours.revocation("hyper.us", "never named") == "compromise"
    assert ours.revocation(PROVIDER, "other") == "stale"
    assert ours.revocation(PROVIDER, "never named") is None
    assert sum(map(len, ours._revoked.values())) <= 4
