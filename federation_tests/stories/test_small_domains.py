"""Domains whose adverts show class and place only, because they have few nodes: the default of a plan."""

from __future__ import annotations

import pytest

from federation_tests.conftest import MakeWorld
from federation_tests.plan import CLINIC, CLOUD, Changes
from federation_tests.world import ask

SMALL = Changes(domains=(CLINIC, CLOUD), k_min=5)


@pytest.mark.parametrize(
    ("policy", "provider"),
    [
        ({"data_class": "special-category"}, CLINIC),
        ({"data_class": "personal", "residency": ["FR"]}, CLOUD),
        ({"data_class": "public", "residency": ["FR"]}, CLOUD),
    ],
    ids=["at home", "personal data abroad", "public data abroad"],
)
async def test_a_domain_below_k_min_can_still_be_called(
    make_world: MakeWorld, policy: dict[str, object], provider: str
) -> None:
    """Its border knew no price but the one that the advert shows, and took no call at all."""
    world = await make_world(SMALL)
    answer = await world.client().chat.completions.create(**ask("one two three", policy=policy))
    assert answer.model_extra
    assert answer.model_extra["comity"]["domain"] == provider
