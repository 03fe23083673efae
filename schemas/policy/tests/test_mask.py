"""mask ≡ Cedar, over generated pairs: boundary values, empty sets, unknown words.

20,000 pairs in a normal run (Cedar answers a few thousand a second); `COMITY_MASK_PAIRS=100000`
makes the full acceptance run.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from dataclasses import replace

import cedarpy
import numpy as np
import pytest

from schemas.policy import cedar
from schemas.policy.facts import RequestContext, Subject
from schemas.policy.jurisdictions import chain, premises_of
from schemas.policy.layers import ELSEWHERE, Layers
from schemas.policy.mask import Columns, Mask, table
from schemas.policy.packs import default_layers, load_pack
from schemas.policy.policy_set import PolicySet
from schemas.policy.tests.cases import OPEN, asking, clinic, forbidding, hyper, serving
from schemas.policy.tests.generated import PLACES, random_request, random_subject

PAIRS = int(os.environ.get("COMITY_MASK_PAIRS", "20000"))
SUBJECTS, REQUESTS = 50, 20
"""Of one block: its entities are compiled once, and Cedar is asked for the whole block at once."""


@pytest.mark.timeout(300)
def test_the_mask_and_cedar_agree_in_verdict_and_in_every_reason() -> None:
    draw = random.Random(20260102)
    layers = default_layers()
    mask = Mask.of(layers)
    assert mask.exact
    policies = cedar.compile_policies(
        {rule: body for unit in layers.units for rule, body in unit.policies.rules.items()}
    )
    pairs = allowed = 0
    seen: set[str] = set()
    while pairs < PAIRS:
        subjects = [_named(random_subject(draw), index) for index in range(SUBJECTS)]
        requests = [replace(random_request(draw), consumer="clinic.de") for _ in range(REQUESTS)]
        columns = Columns.of(subjects)
        said = _ask(policies, requests, subjects)
        for request in requests:
            masked = mask.apply(request, columns)
            admitted = masked.allowed
            for index, subject in enumerate(subjects):
                rules = next(said)
                assert masked.reasons(index) == rules, (request, subject)
                assert bool(admitted[index]) == (not rules)
                seen.update(rules)
                allowed += not rules
                pairs += 1
    assert 0 < allowed < pairs
    assert seen == {row.rule for row in mask.rules}, "every rule was seen to deny"


def _ask(
    policies: cedarpy.PolicySet, requests: list[RequestContext], subjects: list[Subject]
) -> Iterator[tuple[str, ...]]:
    """The denying rules for each pair, requests outside, subjects inside."""
    around = cedar._surroundings(
        frozenset(PLACES) | {premises_of(subject.domain.domain) for subject in subjects},
        "Global",
        requests[0].consumer,
        requests[0].tenant,
        requests[0].application,
    )
    domains = json.dumps([cedar._domain(subject) for subject in subjects])
    entities = around.with_added_json_str(domains, cedar.schema())
    asked = [cedar.question(request, subject.domain.domain) for request in requests for subject in subjects]
    for position, outcome in enumerate(cedar.evaluate(policies, entities, asked)):
        assert not outcome.errors
        forbids = outcome.rules if outcome.decision == "Deny" else frozenset()
        active = subjects[position % len(subjects)].domain.status == "active"
        assert active or outcome.decision == "Deny"
        yield tuple(sorted(forbids if active else forbids | {"DEFAULT-DENY"}))


def _named(subject: Subject, index: int) -> Subject:
    """With a name of its own; premises move along. The first ones are those that requests ask for."""
    name = f"d{index}.example"
    inside = frozenset(place for place in subject.domain.inside if not place.startswith("premises:"))
    domain = replace(subject.domain, domain=name, inside=inside | {premises_of(name)})
    return replace(subject, domain=domain)


def test_the_mask_agrees_with_the_whole_decision() -> None:
    draw = random.Random(20260103)
    layers = default_layers()
    mask = Mask.of(layers)
    for _ in range(200):
        request, subject = random_request(draw), random_subject(draw)
        decision = layers.decide(request, subject)
        masked = mask.apply(request, Columns.of([subject]))
        assert bool(masked.allowed[0]) == (decision.verdict == "allow")
        assert masked.reasons(0) == (() if decision.verdict == "allow" else decision.reasons)


def test_a_tenants_own_rules_make_the_mask_a_superset_filter() -> None:
    draw = random.Random(20260104)
    layers = default_layers(tenant=load_pack("tenant-hospital"), provider=load_pack("provider-no-health"))
    mask = Mask.of(layers)
    assert not mask.exact
    for _ in range(200):
        request, subject = random_request(draw), random_subject(draw)
        if layers.decide(request, subject).verdict == "allow":
            assert mask.apply(request, Columns.of([subject])).allowed[0]


def test_a_row_is_silent_when_the_rules_text_is_not_the_shipped_one() -> None:
    text = 'forbid (principal, action == Action::"place", resource) when { resource.carbon > 7 };'
    other = PolicySet.load(f'{OPEN} @id("OPS-002-within-carbon") {text}', "test")
    mask = Mask.of(default_layers(tenant=forbidding("TEN-001-never", "true"), national=[]))
    assert "NDE-001-health-data-stays-in-germany" not in {row.rule for row in mask.rules}
    assert "OPS-002-within-carbon" in {row.rule for row in mask.rules}
    assert not Mask.of(default_layers(tenant=other)).exact


def test_the_table_covers_every_forbid_of_charter_and_national_packs() -> None:
    names = ("charter", "national-de", "national-fr", "national-us")
    forbids = {rule for name in names for rule in set(load_pack(name).rules) - load_pack(name).permits}
    assert {row.rule for row in table()} == forbids


def test_a_price_column_of_the_request_replaces_the_stored_one() -> None:
    mask = Mask.of(default_layers())
    columns = Columns.of([clinic(), hyper()])
    masked = mask.apply(asking(data_class="public", max_price=5), columns, np.array([5, 6]))
    assert masked.reasons(0) == ()
    assert masked.reasons(1) == ("OPS-001-within-price",)


def test_no_domains_is_no_error() -> None:
    masked = Mask.of(default_layers()).apply(asking(), Columns.of([]))
    assert masked.size == 0
    assert not masked.allowed.any()
    assert chain("Global") == ("Global",)
    assert serving().price == 0


def test_the_row_for_membership_speaks_for_a_set_that_has_that_very_permit_alone() -> None:
    """Another owner's set may have a rule of the same name, and the shipped one beside a wider permit."""
    everybody = 'permit (principal, action == Action::"place", resource);'
    renamed = PolicySet.load(f'@id("MEM-001-active-member") {everybody}', "renamed")
    wider = PolicySet.load(f'{OPEN}@id("MEM-002-guests") {everybody}', "wider")
    layers = Layers.of(charter=renamed, national=wider, tenant=ELSEWHERE, provider=ELSEWHERE)
    request, away = asking(data_class="public"), serving(status="suspended")
    assert layers.decide(request, away).verdict == "allow"
    assert Mask.of(layers).apply(request, Columns.of([away])).reasons(0) == ()
