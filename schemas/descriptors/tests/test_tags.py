"""Tags can be added and never removed; what nobody states is as strict as its class."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.descriptors.tags import (
    DATA_CLASSES,
    UNBOUNDED,
    Home,
    PolicyTags,
    TagFloor,
    complete,
    effective,
    effective_digest,
    narrow,
)
from schemas.policy.jurisdictions import PREMISES, chain, premises_of

HOME = Home("clinic.de", ("DE-HE",))


def tags(**values: Any) -> PolicyTags:
    return PolicyTags(**values)


def test_a_missing_label_is_the_strictest_class_and_everything_is_filled() -> None:
    found = effective(None, tags(), HOME)
    assert found.tags == PolicyTags(
        data_class="special-category",
        residency=["DE"],
        origin="DE",
        forbid_regimes=[],
        require_certs=[],
        min_assurance=1,
        confidential_gpu=False,
        max_retention_s=0,
        max_attestation_age_s=300,
        max_carbon_g_kwh=UNBOUNDED,
        allow_degraded=False,
    )
    assert found.overridden == ()
    assert found.digest == effective_digest(found.tags)


def test_public_data_has_no_bound_unless_one_is_stated() -> None:
    found = effective(None, tags(data_class="public"), HOME).tags
    assert (found.residency, found.min_assurance) == (["Global"], 0)
    assert (found.max_retention_s, found.max_attestation_age_s) == (UNBOUNDED, UNBOUNDED)


@pytest.mark.parametrize(
    ("floor", "request_", "result", "overridden"),
    [
        ({"data_class": "personal"}, {"data_class": "public"}, {"data_class": "personal"}, ("data_class",)),
        ({"data_class": "public"}, {"data_class": "phi"}, {"data_class": "phi"}, ()),
        ({"residency": ["EU"]}, {"residency": ["Global"]}, {"residency": ["EU"]}, ("residency",)),
        ({"residency": ["EU"]}, {"residency": ["DE", "US"]}, {"residency": ["DE"]}, ("residency",)),
        ({"residency": ["EU"]}, {"residency": ["US"]}, {"residency": []}, ("residency",)),
        ({"residency": ["EU"]}, {"residency": ["premises"]}, {"residency": ["premises"]}, ()),
        ({"residency": ["US"]}, {"residency": ["premises"]}, {"residency": []}, ("residency",)),
        ({"min_assurance": 3}, {"min_assurance": 1}, {"min_assurance": 3}, ("min_assurance",)),
        (
            {"confidential_gpu": True},
            {"confidential_gpu": False},
            {"confidential_gpu": True},
            ("confidential_gpu",),
        ),
        ({"max_retention_s": 0}, {"max_retention_s": 60}, {"max_retention_s": 0}, ("max_retention_s",)),
        ({"allow_degraded": False}, {"allow_degraded": True}, {"allow_degraded": False}, ("allow_degraded",)),
        ({"require_certs": ["C5"]}, {"require_certs": ["HDS"]}, {"require_certs": ["C5", "HDS"]}, ()),
        ({"origin": "DE"}, {"origin": "DE-BY"}, {"origin": "DE-BY"}, ()),
        (
            {"origin": "DE"},
            {"origin": "FR", "residency": ["EU"]},
            {"origin": "DE", "residency": ["FR"]},
            ("origin", "residency"),
        ),
    ],
)
def test_the_stricter_wins_and_a_loosening_is_recorded(
    floor: dict[str, Any], request_: dict[str, Any], result: dict[str, Any], overridden: tuple[str, ...]
) -> None:
    found, lost = narrow(tags(**floor), tags(**request_), HOME)
    assert {name: getattr(found, name) for name in result} == result
    assert tuple(sorted(lost)) == overridden


@pytest.mark.parametrize("larger", ["EU", "EEA", "Global"])
def test_an_origin_that_is_only_vaguer_than_the_tenants_frees_nothing(larger: str) -> None:
    """It counted as a second law, and the data might go wherever that one reaches."""
    floor = tags(data_class="personal", origin="DE")
    silent, vague = effective(floor, tags(), HOME), effective(floor, tags(origin=larger), HOME)
    assert vague.tags == silent.tags
    assert vague.overridden == ("origin",)


def test_our_own_ground_lies_in_a_place_only_if_all_of_it_does() -> None:
    """A domain with machines in two countries is `premises` in both: neither of the two covers it."""
    both = Home("clinic.de", ("DE", "FR"))
    for floor, asked in ((["premises"], ["DE"]), (["DE"], ["premises"])):
        assert narrow(tags(residency=floor), tags(residency=asked), both)[0].residency == []
        assert narrow(tags(residency=floor), tags(residency=asked), HOME)[0].residency == ["premises"]
    assert narrow(tags(residency=["premises"]), tags(residency=["EU"]), both)[0].residency == ["premises"]


def test_debugging_is_the_tenants_word_alone() -> None:
    assert "allow_debug" not in PolicyTags.model_fields
    assert TagFloor(allow_debug=True).allow_debug


places = st.sampled_from(["DE", "DE-HE", "FR", "EU", "EEA", "US", "Global", "premises"])
some_tags = st.builds(
    PolicyTags,
    data_class=st.none() | st.sampled_from(DATA_CLASSES),
    residency=st.none() | st.lists(places, max_size=3),
    origin=st.none() | st.sampled_from(["DE", "DE-HE", "FR", "US"]),
    forbid_regimes=st.none() | st.lists(st.sampled_from(["US-CLOUD-Act", "UK-IPA"]), max_size=2),
    min_assurance=st.none() | st.integers(0, 4),
    confidential_gpu=st.none() | st.booleans(),
    max_retention_s=st.none() | st.integers(0, 100),
    allow_degraded=st.none() | st.booleans(),
)


def standing(codes: list[str] | None) -> frozenset[str]:
    """Which of some example domains a residency admits."""
    grounds = {
        "clinic.de": {premises_of("clinic.de"), *chain("DE-HE")},
        "bavaria.de": {*chain("DE-BY")},
        "cloud.fr": {*chain("FR")},
        "fjord.no": {*chain("NO")},
        "hyper.us": {*chain("US")},
    }
    if codes is None:
        return frozenset(grounds)
    named = {premises_of("clinic.de") if code == PREMISES else code for code in codes}
    return frozenset(domain for domain, around in grounds.items() if around & named)


@given(some_tags, some_tags)
def test_combining_never_admits_what_either_side_forbids(floor: PolicyTags, asked: PolicyTags) -> None:
    found, _ = narrow(floor, asked, HOME)
    for side in (floor, asked):
        if side.data_class is not None:
            assert found.data_class is not None
            assert DATA_CLASSES.index(found.data_class) >= DATA_CLASSES.index(side.data_class)
        assert standing(found.residency) <= standing(side.residency)
        assert set(found.forbid_regimes or []) >= set(side.forbid_regimes or [])
        assert (found.min_assurance or 0) >= (side.min_assurance or 0)
        assert bool(found.confidential_gpu) >= bool(side.confidential_gpu)
        if side.max_retention_s is not None:
            assert found.max_retention_s is not None
            assert found.max_retention_s <= side.max_retention_s
        if side.allow_degraded is False:
            assert found.allow_degraded is False


@given(some_tags, some_tags)
def test_what_both_sides_admit_is_admitted(floor: PolicyTags, asked: PolicyTags) -> None:
    """Residency is narrowed to the meeting and not further, unless two laws claim the data."""
    if floor.origin and asked.origin:
        return
    found, _ = narrow(floor, asked, HOME)
    assert standing(found.residency) == standing(floor.residency) & standing(asked.residency)


@given(some_tags, some_tags)
def test_adding_the_same_tags_again_changes_nothing(floor: PolicyTags, asked: PolicyTags) -> None:
    once = effective(floor, asked, HOME)
    assert effective(floor, once.tags, HOME).digest == once.digest
    assert complete(once.tags, HOME) == once.tags
    assert all(getattr(once.tags, name) is not None for name in PolicyTags.model_fields)
