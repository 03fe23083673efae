"""Our own verdict on a node, and everything that must end it."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from broker.placing.appraisals import Appraisals, ChallengeBook
from broker.tests.parties import CHALLENGE, CONSUMER, PROVIDER, Parties, SimulatedNode
from schemas.canonical import sha256
from schemas.errors import Refused
from schemas.messages.interior import OwnAdvert


class Documents:
    """What peers would send, by digest, and how often they were asked."""

    def __init__(self, *documents: bytes) -> None:
        self.held = {sha256(document).hex(): document for document in documents}
        self.asked = 0

    async def fetch(self, domain: str, digest: str) -> bytes:
        self.asked += 1
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
    assert ours.usable(verdict, epoch) is verdict
    ours.revoke(PROVIDER, [verdict.sign_key.thumbprint], "compromise")
    with pytest.raises(Refused, match=r"trust\.node_revoked"):
        ours.usable(verdict, epoch)
    assert ours.revocation(PROVIDER, verdict.sign_key.thumbprint) == "compromise"


def test_what_was_compromised_is_never_merely_stale_again(parties: Parties) -> None:
    """A bus that holds an earlier word back and hands it over later makes nothing better."""
    ours = appraisals(parties, Documents())
    ours.revoke(PROVIDER, ["key", "other"], "stale")
    ours.revoke(PROVIDER, ["key"], "compromise")
    ours.revoke(PROVIDER, ["key", "other"], "stale")
    assert ours.revocation(PROVIDER, "key") == "compromise"
    assert ours.revocation(PROVIDER, "other") == "stale"


async def test_nobody_revokes_a_strangers_node(parties: Parties) -> None:
    evidence = parties.node.evidence()
    ours = appraisals(parties, Documents(evidence))
    verdict = await ours.appraise(PROVIDER, sha256(evidence).hex())
    ours.revoke(CONSUMER, [verdict.sign_key.thumbprint], "compromise")
    assert ours.usable(verdict, ours.trust_epoch) is verdict


async def test_a_trust_epoch_that_moved_means_proving_again(parties: Parties) -> None:
    evidence = parties.node.evidence()
    documents = Documents(evidence)
    ours = appraisals(parties, documents)
    verdict = await ours.appraise(PROVIDER, sha256(evidence).hex())
    epoch = ours.trust_epoch
    for stated in (3, 3, 4):
        assert ours.usable(verdict, epoch) is verdict
        ours.note_epoch(PROVIDER, stated)
    with pytest.raises(Refused, match=r"trust\.epoch_changed"):
        ours.usable(verdict, epoch)
    again = await ours.appraise(PROVIDER, sha256(evidence).hex())
    assert ours.usable(again, ours.trust_epoch) is again


async def test_an_appraisal_does_not_outlive_its_challenge(parties: Parties) -> None:
    evidence = parties.node.evidence()
    ours = appraisals(parties, Documents(evidence))
    verdict = await ours.appraise(PROVIDER, sha256(evidence).hex())
    assert verdict.expires_at <= time.time() + 300
    with pytest.raises(Refused, match=r"trust\.appraisal_expired"):
        ours.usable(replace(verdict, expires_at=time.time() - 1), ours.trust_epoch)


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
        ours.revoke("hyper.us", [f"key{number}"], "stale")
    ours.revoke(PROVIDER, ["other"], "stale")
    assert ours.revocation("hyper.us", "never named") == "compromise"
    assert ours.revocation(PROVIDER, "other") == "stale"
    assert ours.revocation(PROVIDER, "never named") is None
    assert sum(map(len, ours._revoked.values())) <= 4
