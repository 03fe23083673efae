"""Charter, manifests, reference values: what must hold before a key speaks for a domain."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from schemas import envelope
from schemas.errors import ComityError, Refused, Unreadable
from schemas.keys import SigningKey
from schemas.papers.charter import Charter, sign_charter, verify_charter, verify_reference_values
from schemas.papers.manifest import DomainManifest, RevokedKey, Roots, sign_manifest, verify_manifest
from schemas.papers.trust import FederationTrust

if TYPE_CHECKING:
    from schemas.tests.conftest import Founding, House

A, B = "a.example", "b.example"


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(ComityError) as caught:
        action()
    return caught.value.code


def pin(founding: Founding) -> bytes:
    return envelope.read(founding.signed).digest


def load(founding: Founding, manifests: list[bytes]) -> FederationTrust:
    return FederationTrust.load(
        founding.signed, pin=pin(founding), manifests=manifests, reference_values=[founding.values()]
    )


def repin(founding: Founding, house: House) -> None:
    """Let the charter name the manifest that `house` now signs."""
    digest = envelope.read(house.signed).digest.hex()
    members = [
        member.model_copy(update={"manifest_digest": digest}) if member.domain == house.domain else member
        for member in founding.charter.members
    ]
    founding.charter = founding.charter.model_copy(update={"members": members})


def test_a_key_speaks_for_its_domain_and_role_alone(founding: Founding, now: datetime) -> None:
    trust = founding.trust()
    assert (trust.federation, trust.members) == ("test", (A, B))
    for domain, house in founding.houses.items():
        for role, key in house.keys.items():
            assert [held.thumbprint for held in trust.keys(domain, role, now)] == [key.thumbprint]
    assert refusal(lambda: trust.keys(A, "promise", now)) == "trust.no_key"
    assert refusal(lambda: trust.keys("c.example", "message", now)) == "trust.unknown_domain"
    assert trust.logs(A)[0].origin == f"{A}/log"
    assert trust.enrolments() == {A: frozenset({"ef" * 32}), B: frozenset({"ef" * 32})}


def test_the_pin_decides_which_charter(founding: Founding) -> None:
    assert verify_charter(founding.signed, pin=pin(founding)) == founding.charter
    assert refusal(lambda: verify_charter(founding.signed, pin=bytes(32))) == "charter.pin"
    other = envelope.sign(envelope.MESSAGE, founding.charter.write(), founding.houses[A].root)
    assert refusal(lambda: verify_charter(other, pin=pin(founding))) == "charter.payload_type"


def test_a_charter_needs_different_members(founding: Founding) -> None:
    one, other = (founding.houses[domain].root for domain in (A, B))
    for keys in ((one,), (one, one), (one, SigningKey.generate()), (SigningKey.generate(),)):
        signed = sign_charter(founding.charter, *keys)
        assert refusal(lambda data=signed: verify_charter(data, pin=pin(founding))) == "charter.threshold"  # type: ignore[misc]
    verify_charter(sign_charter(founding.charter, other, one), pin=pin(founding))


def test_a_member_with_several_roots_counts_once(founding: Founding) -> None:
    house, second = founding.houses[A], SigningKey.generate()
    roots = Roots(threshold=1, keys=[house.root.public.jwk, second.public.jwk])
    first, other = founding.charter.members
    charter = founding.charter.model_copy(
        update={"members": [first.model_copy(update={"roots": roots}), other]}
    )
    signed = sign_charter(charter, house.root, second)
    fingerprint = envelope.read(signed).digest
    assert refusal(lambda: verify_charter(signed, pin=fingerprint)) == "charter.threshold"


@pytest.mark.parametrize("fault", ["a member twice", "threshold above members", "one root for two"])
def test_a_charter_that_contradicts_itself_is_unreadable(founding: Founding, fault: str) -> None:
    value: dict[str, Any] = founding.charter.as_json()
    match fault:
        case "a member twice":
            value["members"][1]["domain"] = A
        case "threshold above members":
            value["threshold"] = 3
        case _:
            value["members"][1]["roots"] = value["members"][0]["roots"]
    with pytest.raises(Unreadable, match=r"schema\.Charter"):
        Charter.from_json(value)


def test_a_manifest_is_the_one_that_the_charter_names(founding: Founding, now: datetime) -> None:
    house = founding.houses[A]
    original = house.signed
    house.manifest = house.manifest.model_copy(update={"version": 2})
    trust = load(founding, [house.signed, founding.houses[B].signed])
    assert refusal(lambda: trust.keys(A, "message", now)) == "trust.unknown_domain"
    assert load(founding, [original]).keys(A, "message", now)


def test_a_manifest_signed_by_others_is_refused(founding: Founding) -> None:
    house = founding.houses[A]
    forged = sign_manifest(house.manifest, SigningKey.generate())
    assert refusal(lambda: load(founding, [forged])) == "envelope.threshold"
    assert refusal(lambda: verify_manifest(forged, roots=house.manifest.roots)) == "envelope.threshold"
    other = house.manifest.model_copy(update={"roots": founding.houses[B].manifest.roots})
    moved = sign_manifest(other, house.root)
    assert refusal(lambda: verify_manifest(moved, roots=house.manifest.roots)) == "manifest.roots"


@pytest.mark.parametrize("change", [{"domain": B}, {"federation": "other"}])
def test_a_manifest_of_another_domain_or_federation_is_refused(
    founding: Founding, change: dict[str, str]
) -> None:
    house = founding.houses[A]
    house.manifest = house.manifest.model_copy(update=change)
    repin(founding, house)
    assert refusal(founding.trust) == "trust.manifest_owner"


def test_roles_are_separate(founding: Founding) -> None:
    value: dict[str, Any] = founding.houses[A].manifest.as_json()
    keys = value["keys"]
    twice = value | {"keys": [*keys, keys[0] | {"role": "promise"}]}
    root = value["roots"]["keys"][0]
    rooted = value | {"keys": [keys[0] | {"jwk": root}]}
    misnamed = value | {"keys": [keys[0] | {"thumbprint": keys[1]["thumbprint"]}]}
    for broken in (twice, rooted, misnamed, value | {"roots": value["roots"] | {"threshold": 2}}):
        with pytest.raises(Unreadable, match=r"schema\.DomainManifest"):
            DomainManifest.from_json(broken)


def test_time_and_revocation_end_a_key(founding: Founding, now: datetime) -> None:
    trust = founding.trust()
    assert refusal(lambda: trust.keys(A, "message", now + timedelta(days=40))) == "trust.manifest_expired"
    assert refusal(lambda: trust.keys(A, "message", now - timedelta(hours=2))) == "trust.no_key"
    house = founding.houses[A]
    gone = RevokedKey(thumbprint=house.keys["message"].thumbprint, reason="lost")
    house.manifest = house.manifest.model_copy(update={"revoked": [gone]})
    repin(founding, house)
    trust = founding.trust()
    assert refusal(lambda: trust.keys(A, "message", now)) == "trust.no_key"
    assert trust.keys(A, "receipt", now)


def test_a_charter_that_has_ended_speaks_for_nobody(founding: Founding, now: datetime) -> None:
    """Also where a manifest says that it holds longer: it is a member's word, and members there are none."""
    ends = int((now + timedelta(hours=1)).timestamp())
    founding.charter = founding.charter.model_copy(update={"expires": ends})
    trust = founding.trust()
    assert trust.keys(A, "message", now)
    assert refusal(lambda: trust.keys(A, "message", now + timedelta(hours=1))) == "trust.charter_expired"


def test_reference_values_come_from_a_named_publisher(founding: Founding, now: datetime) -> None:
    trust = founding.trust()
    assert [value.measurement for value in trust.reference_values_at(now)] == ["ab" * 48]
    assert trust.reference_values_at(now + timedelta(days=40)) == []
    assert founding.trust(founding.values(revoked=True)).reference_values_at(now) == []
    stranger = SigningKey.generate()
    founding.publisher, real = stranger, founding.publisher
    forged = founding.values()
    founding.publisher = real
    assert refusal(lambda: founding.trust(forged)) == "envelope.signature_invalid"
    renamed = envelope.sign(
        envelope.REFERENCE_VALUES, b'{"v":1,"publisher":"others","version":1,"values":[]}', real
    )
    assert refusal(lambda: verify_reference_values(renamed, founding.charter)) == "charter.publisher"


def test_an_older_list_does_not_bring_back_what_was_revoked(founding: Founding, now: datetime) -> None:
    old, new = founding.values(1), founding.values(2, revoked=True)
    for order in ((old, new), (new, old)):
        assert founding.trust(*order).reference_values_at(now) == []
    fork = founding.values(1, provenance="other")
    assert refusal(lambda: founding.trust(old, fork)) == "trust.reference_values_fork"


def test_nothing_partial_is_kept(founding: Founding) -> None:
    forged = sign_manifest(founding.houses[B].manifest, SigningKey.generate())
    with pytest.raises(Refused):
        load(founding, [founding.houses[A].signed, forged])
