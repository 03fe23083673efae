import pytest

from schemas.descriptors.profile import Certification, DomainProfile, LegalEntity, ProfileEvidence, Vouched
from schemas.errors import Unreadable

JAN_2026 = 1_767_225_600
JAN_2027 = 1_798_761_600


def profile(**changes: object) -> DomainProfile:
    values: dict[str, object] = {
        "domain": "clinic.de",
        "operator": "Clinic",
        "legal_entity": LegalEntity(name="Clinic gGmbH"),
        "jurisdictions": ["DE-HE"],
        "exposed_to": [],
        "evidence": ProfileEvidence(jurisdictions=Vouched(level=2, credential="register")),
        "valid_from": JAN_2026,
        "valid_until": JAN_2027,
    }
    return DomainProfile.model_validate(values | changes)


def test_a_profile_survives_the_wire() -> None:
    assert DomainProfile.read(profile().write()) == profile()


def test_the_digest_is_no_part_of_the_value() -> None:
    known, fresh = profile(), profile()
    assert len(known.digest) == 64
    assert known == fresh
    assert b"digest" not in known.write()


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("jurisdictions", ["DE-XX"], "DE-XX"),
        ("jurisdictions", ["de"], "de"),
        ("jurisdictions", ["FR-75\n"], "FR-75"),
        ("jurisdictions", [], "jurisdictions"),
        ("exposed_to", ["US-CLOUD"], "US-CLOUD"),
        ("support_access", ["premises"], "premises"),
        ("surprise", 1, "surprise"),
        ("seal", {"SOV-9": 1}, "SOV-1 to SOV-8"),
        ("valid_until", JAN_2026, "valid_until"),
    ],
)
def test_what_is_not_known_is_refused_by_name(field: str, value: object, named: str) -> None:
    data = profile().as_json() | {field: value}
    with pytest.raises(Unreadable) as caught:
        DomainProfile.from_json(data)  # type: ignore[arg-type]
    assert named in caught.value.text


def test_hardware_attests_neither_a_country_nor_a_certificate() -> None:
    with pytest.raises(ValueError, match="hardware cannot attest"):
        profile(evidence=ProfileEvidence(jurisdictions=Vouched(level=4)))
    with pytest.raises(ValueError, match="hardware cannot attest"):
        profile(certifications=[Certification(scheme="C5", evidence=4, valid_until=JAN_2027)])
    assert profile(evidence=ProfileEvidence(key_control=Vouched(level=4))).lowest_evidence == 0
