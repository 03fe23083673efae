"""Places, and what of a profile counts."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from schemas.descriptors.profile import (
    Certification,
    DomainProfile,
    LegalEntity,
    ProfileEvidence,
    RetentionClass,
    TransferBasis,
    Vouched,
)
from schemas.descriptors.tests.test_profile import JAN_2026, JAN_2027, profile
from schemas.errors import Unreadable
from schemas.policy.facts import UNATTESTED, UNKNOWN_RETENTION, DomainFacts, Subject, Unusable
from schemas.policy.jurisdictions import (
    COUNTRIES,
    EU,
    chain,
    check_certification,
    check_place,
    check_regime,
    check_residency,
    check_transfer_basis,
    common,
    country,
    within,
)

AT = datetime(2026, 6, 1, tzinfo=UTC)


def facts(given: DomainProfile, at: datetime = AT) -> DomainFacts:
    found = DomainFacts.of(given, given.domain, at)
    assert isinstance(found, DomainFacts)
    return found


def test_places_nest() -> None:
    assert chain("DE-HE") == ("DE-HE", "DE", "EU", "EEA", "Global")
    assert chain("NO") == ("NO", "EEA", "Global")
    assert chain("US-CA") == ("US-CA", "US", "Global")
    assert len(COUNTRIES) == 249
    assert len(EU) == 27
    assert EU <= COUNTRIES
    assert within("FR-IDF", "EEA")
    assert not within("CH", "EEA")
    assert not within("DE", "DE-HE")
    assert common(["EU"], ["DE", "US"]) == {"DE"}
    assert common(["EU"], ["US"]) == frozenset()
    assert (country("DE-HE"), country("EU")) == ("DE", "EU")


@pytest.mark.parametrize(
    ("check", "known", "unknown"),
    [
        (check_place, "DE-HE", "DE-ZZ"),
        (check_place, "US-CA", "XX-CA"),
        (check_place, "NC", "FR-NC"),
        (check_place, "FR-IDF", "NL-BQ2"),
        (check_place, "NO-03", "NO-21"),
        (check_place, "EEA", "UK"),
        (check_place, "Global", "premises"),
        (check_residency, "premises", "home"),
        (check_regime, "US-CLOUD-Act", "us-cloud-act"),
        (check_certification, "SecNumCloud", "SecNum"),
        (check_transfer_basis, "SCC", "SafeHarbor"),
    ],
)
def test_words_are_known_or_refused_by_name(check: Any, known: str, unknown: str) -> None:
    assert check(known) == known
    with pytest.raises(Unreadable, match=unknown):
        check(unknown)


def test_a_profile_counts_only_while_it_is_valid_and_about_this_domain() -> None:
    assert DomainFacts.of(None, "clinic.de", AT) == Unusable("clinic.de", "UNKNOWN-DOMAIN")
    assert DomainFacts.of(profile(), "other.de", AT) == Unusable("other.de", "UNKNOWN-DOMAIN")
    for moment, usable in ((JAN_2026 - 1, False), (JAN_2026, True), (JAN_2027 - 1, True), (JAN_2027, False)):
        found = DomainFacts.of(profile(), "clinic.de", datetime.fromtimestamp(moment, UTC))
        assert isinstance(found, DomainFacts) is usable


def test_certificates_count_when_in_date_and_vouched_for_by_others() -> None:
    held = [
        Certification(scheme="C5", evidence=2, valid_until=JAN_2027),
        Certification(scheme="HDS", evidence=0, valid_until=JAN_2027),
        Certification(scheme="SOC2", evidence=2, valid_until=JAN_2026 + 1),
    ]
    assert facts(profile(certifications=held)).certs == {"C5"}


def test_a_transfer_basis_must_be_made_out_to_this_recipient() -> None:
    def basis(kind: str, recipient: str, **changes: Any) -> TransferBasis:
        values = {
            "type": kind,
            "reference": "r",
            "recipient": recipient,
            "evidence": 1,
            "valid_until": JAN_2027,
        }
        return TransferBasis.model_validate(values | changes)

    bases = [
        basis("SCC", "clinic.de"),
        basis("BCR", "Clinic gGmbH"),
        basis("DPF", "Someone Else Inc."),
        basis("adequacy", "clinic.de", evidence=0),
        basis("adequacy", "clinic.de", valid_until=JAN_2026 + 1),
    ]
    assert facts(profile(transfer_bases=bases)).transfer_basis == {"SCC", "BCR"}
    unnamed = profile(legal_entity=LegalEntity(name="X"), transfer_bases=[basis("BCR", "Clinic gGmbH")])
    assert facts(unnamed).transfer_basis == frozenset()


def test_what_is_not_known_meets_no_bound() -> None:
    bare = facts(profile())
    assert bare.retention_s == UNKNOWN_RETENTION
    assert bare.carbon == UNKNOWN_RETENTION
    assert (bare.evidence, bare.key_control) == (0, "unknown")
    kept = profile(
        retention_classes=[RetentionClass(name="day", seconds=86_400), RetentionClass(name="no", seconds=0)]
    )
    assert facts(kept).retention_s == 0


def test_location_evidence_falls_with_a_machine_that_is_not_enrolled() -> None:
    known = facts(profile(evidence=ProfileEvidence(jurisdictions=Vouched(level=2))))
    attested = replace(UNATTESTED, assurance=3, enrolled=False)
    assert Subject(known, attested, 0).jurisdiction_evidence == 0
    assert Subject(known, replace(attested, enrolled=True), 0).jurisdiction_evidence == 2
    assert Subject(known, UNATTESTED, 0).jurisdiction_evidence == 2
