"""An auditor decides again: policy and ranking, and every field that a broker may lie about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from broker.select.tests.deciding import (
    BEST,
    CHARTER,
    CONSUMER_LAYERS,
    RANKING,
    REJECTED,
    SECOND,
    TENANT,
    Case,
    block,
    claim,
    considered,
    founded,
    recorded,
    salted,
    subject,
)
from receipts.bundle import Bundle, Disclosures
from receipts.statements import receipt
from receipts.statements.decided import by_offer, plan_digest
from receipts.statements.fields import Layer, PolicyDecision, PolicyFile, Verifier
from receipts.tests.world import CLINIC, CLOUD, MODEL, Federation
from schemas.canonical import write_json
from schemas.policy.layers import ELSEWHERE, Layers
from schemas.policy.tests.cases import cloud, forbidding


async def test_honest_brokers_are_proved_right(case: Case) -> None:
    report = await case.judged()
    assert claim(report, "policy") == ("proved", None)
    assert claim(report, "plan-choice") == ("proved", None)
    assert report.exit_code == 0


async def test_the_provider_s_own_decision_is_proved_from_its_log(case: Case) -> None:
    """The consumer's bundle lacks the provider's facts and rules: there it stays the provider's word."""
    assert claim(await case.judged(CLOUD), "policy", "execution") == ("proved", None)


async def test_in_the_consumer_s_bundle_it_stays_the_provider_s_word(case: Case) -> None:
    assert claim(await case.judged(), "policy", "execution") == (f"asserted-by({CLOUD})", None)


def first_layer(stated: PolicyDecision, **changes: Any) -> list[Layer]:
    return [stated.layers[0].model_copy(update=changes), *stated.layers[1:]]


POLICY_LIES: dict[str, Callable[[PolicyDecision], dict[str, Any]]] = {
    "verifier": lambda _: {"verifier": Verifier(id="https://comity.invalid/policy/cedar@0.0.1")},
    "policies": lambda each: {"policies": [*each.policies, PolicyFile(name="tenant/kind", sha256="8" * 64)]},
    "policy-digest": lambda each: {
        "policies": [each.policies[0].model_copy(update={"sha256": "8" * 64}), *each.policies[1:]]
    },
    "schema": lambda each: {"properties": [f"schema:{'8' * 64}", *each.properties[1:]]},
    "property": lambda each: {"properties": [*each.properties, "reviewed:yes"]},
    "layer-rules": lambda each: {"layers": first_layer(each, rules=["ABC-001-else"])},
    "layer-digest": lambda each: {"layers": first_layer(each, digest="8" * 64)},
    "layer-added": lambda each: {
        "layers": [*each.layers, Layer(layer="national", digest="8" * 64, verdict="allow", rules=["N"])]
    },
    "layer-left-out": lambda each: {"layers": each.layers[1:]},
    "layer-order": lambda each: {"layers": [each.layers[1], each.layers[0], *each.layers[2:]]},
    "errors": lambda _: {"errors": ["none worth telling"]},
    "obligations": lambda _: {"obligations": ["log"]},
}
"""Every field of a policy block but its time and its tags, each stated otherwise than it was decided."""


def test_no_field_is_forgotten() -> None:
    told = {"verifier", "policies", "properties", "layers", "errors", "obligations"}
    elsewhere = {"verdict", "time_created", "input_commitment"}  # tests of their own; the time is a claim
    assert told | elsewhere == set(PolicyDecision.model_fields)


@pytest.mark.parametrize("lie", POLICY_LIES)
async def test_a_consumer_s_lie_about_its_policy(case: Case, lie: str) -> None:
    case.sign("policy", **POLICY_LIES[lie](case.placement["policy"]))
    report = await case.judged()
    assert claim(report, "policy") == ("failed", "verify.policy_replay")
    assert report.exit_code == 1


@pytest.mark.parametrize("lie", POLICY_LIES)
async def test_a_provider_s_lie_about_its_policy(case: Case, lie: str) -> None:
    stated = case.execution["policy"]
    case.execution["policy"] = stated.model_copy(update=POLICY_LIES[lie](stated))
    report = await case.judged(CLOUD)
    assert claim(report, "policy", "execution") == ("failed", "verify.policy_replay")


@pytest.mark.parametrize("side", [CLINIC, CLOUD])
async def test_a_verdict_that_was_turned_round(case: Case, federation: Federation, side: str) -> None:
    """The rules denied; the receipt says that they allowed, layer by layer."""
    never = forbidding("TNT-001-never", "true")
    strict = {
        CLINIC: Layers.of(charter=CHARTER, national=(), tenant=never, provider=ELSEWHERE),
        CLOUD: Layers.of(charter=CHARTER, national=(), tenant=ELSEWHERE, provider=never),
    }[side]
    denied = recorded(strict, subject(federation), **({"tenant": CLINIC} if side == CLOUD else {}))
    honest = case.consumer if side == CLINIC else case.provider
    said = block(replace(honest, record=denied.record))
    if side == CLINIC:
        case.consumer, case.placement["policy"] = replace(case.consumer, record=denied.record), said
    else:
        case.provider, case.execution["policy"] = replace(case.provider, record=denied.record), said
    report = await case.judged(
        side, lambda held: replace(held, policies=(*held.policies, never.text.encode()))
    )
    kind = "placement" if side == CLINIC else "execution"
    assert claim(report, "policy", kind) == ("failed", "verify.policy_replay")


async def test_other_tags_than_it_was_placed_with(case: Case) -> None:
    case.execution["policy"] = case.execution["policy"].model_copy(update={"input_commitment": "8" * 64})
    assert claim(await case.judged(), "placement-link", "execution") == ("failed", "verify.link_policy")


FACTS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "hardware": ({}, {"simulated": False, "assurance": 3}, "verify.policy_facts"),
    "binding": ({}, {"binding_mode": "none"}, "verify.policy_facts"),
    "gpu": ({}, {"confidential_gpu": True}, "verify.policy_facts"),
    "consumer": ({"consumer": "else.us"}, {}, "verify.policy_facts"),
    "simulated-roots": ({"simulated_allowed": True}, {}, "verify.policy_facts"),
}


@pytest.mark.parametrize("name", FACTS)
async def test_decided_over_facts_that_were_not_so(case: Case, federation: Federation, name: str) -> None:
    request, attested, code = FACTS[name]
    made = recorded(CONSUMER_LAYERS, subject(federation, **attested), **request)
    case.consumer = made.joined(by_offer(CLOUD, "6" * 64))
    case.placement["policy"] = block(case.consumer)
    assert claim(await case.judged(), "policy") == ("failed", code)


async def test_decided_over_a_domain_that_the_charter_describes_otherwise(
    case: Case, federation: Federation
) -> None:
    honest = subject(federation)
    for domain in (replace(honest.domain, inside=frozenset({"FR"})), cloud().domain):
        case.consumer = recorded(CONSUMER_LAYERS, replace(honest, domain=domain))
        case.consumer = case.consumer.joined(by_offer(CLOUD, "6" * 64))
        case.placement["policy"] = block(case.consumer)
        assert claim(await case.judged(), "policy") == ("failed", "verify.policy_facts")


@pytest.mark.parametrize("gone", ["charter", "tenant"])
async def test_decided_without_somebody_s_rules(case: Case, federation: Federation, gone: str) -> None:
    given: dict[str, Any] = {"charter": CHARTER, "tenant": TENANT, gone: ELSEWHERE}
    layers = Layers.of(**given, national=(), provider=ELSEWHERE)
    case.consumer = recorded(layers, subject(federation)).joined(by_offer(CLOUD, "6" * 64))
    case.placement["policy"] = block(case.consumer)
    assert claim(await case.judged(), "policy") == ("failed", "verify.policy_layers")


async def test_a_foreign_provider_s_layer_is_its_offer(case: Case) -> None:
    """A consumer cannot state a provider's rules as its own finding, nor leave the offer out."""
    case.placement["policy"] = block(recorded(CONSUMER_LAYERS, subject(case.federation)))
    assert claim(await case.judged(), "policy") == ("failed", "verify.policy_layers")


async def test_decided_under_rules_that_the_charter_does_not_name(tmp_path: Path) -> None:
    report = await Case(founded("9" * 64), tmp_path).judged()
    assert claim(report, "policy") == ("failed", "verify.policy_pinned")


def another_rule(**changes: Any) -> receipt.Objective:
    return BEST.objective.model_copy(update=changes)


CHOICE_LIES: dict[str, tuple[str, dict[str, Any], str]] = {
    "rule-name": ("objective", {"name": "K"}, "verify.score"),
    "rule-version": ("objective", {"version": "1"}, "verify.score"),
    "rule-digest": ("objective", {"digest": "8" * 64}, "verify.score"),
    "score": ("objective", {"score": "1.5"}, "verify.score"),
    **{
        f"term-{name}": ("objective", {"terms": BEST.objective.terms.model_copy(update={name: "0.001"})},
                         "verify.score")
        for name in receipt.Terms.model_fields
    },
    "term-left-out": ("objective", {"terms": BEST.objective.terms.model_copy(update={"money": None})},
                      "verify.score"),
    "candidates-root": ("considered", {"root": "8" * 64}, "verify.considered"),
    "candidates-count": ("considered", {"count": 4}, "verify.considered"),
    "fewer-candidates": ("considered", {"count": 1}, "verify.ranking"),
    "not-in-the-set": ("considered", {"selected_index": 3}, "verify.considered"),
    "another-s-place": ("considered", {"selected_index": 1}, "verify.ranking"),
    "plan-digest": ("plan", {"digest": "8" * 64}, "verify.plan"),
    "plan-node": ("plan", {"nodes": ["A" * 43]}, "verify.plan"),
    "plan-domain": ("plan", {"domain": "else.us"}, "verify.ranking"),
    "model": ("capability", {"artifact_digest": "8" * 64}, "verify.plan"),
}  # fmt: skip


@pytest.mark.parametrize("lie", CHOICE_LIES)
async def test_a_lie_about_the_choice(case: Case, lie: str) -> None:
    name, changes, code = CHOICE_LIES[lie]
    case.sign(name, **changes)
    report = await case.judged()
    assert claim(report, "plan-choice") == ("failed", code)
    assert report.exit_code == 1


LISTS: dict[str, tuple[list[bytes], str]] = {
    "another-order": (salted([SECOND, BEST], REJECTED), "verify.ranking"),
    "a-plan-hidden": (salted([BEST], REJECTED, REJECTED), "verify.ranking"),
    "another-score": (salted([BEST, replace(SECOND, score=BEST.score)], REJECTED), "verify.ranking"),
    "no-reason": (salted([BEST, SECOND], {"plan": "else.us x", "reasons": []}), "verify.considered"),
    "no-candidate": ([*salted([BEST, SECOND]), b'{"salt":"a"}'], "verify.considered"),
}


@pytest.mark.parametrize("name", LISTS)
async def test_a_list_of_candidates_that_is_not_what_was_ranked(case: Case, name: str) -> None:
    case.listing, code = LISTS[name]
    case.placement["considered"] = considered(case.listing)
    assert claim(await case.judged(), "plan-choice") == ("failed", code)


@pytest.mark.parametrize("part", ["record", "policies", "ranking", "listing", "disclosure"])
async def test_without_material_it_stays_a_word(case: Case, part: str) -> None:
    def without(blob: bytes) -> Callable[[Bundle], Bundle]:
        return lambda held: replace(
            held, blobs={name: data for name, data in held.blobs.items() if data != blob}
        )

    listing = write_json({"considered": [item.decode() for item in case.listing]})
    touches: dict[str, Callable[[Bundle], Bundle]] = {
        "record": without(case.consumer.record),
        "policies": lambda held: replace(held, policies=()),
        "ranking": without(RANKING.write()),
        "listing": without(listing),
        "disclosure": lambda held: replace(
            held, disclosures={name: Disclosures(challenges=each.challenges)
                               for name, each in held.disclosures.items()}
        ),
    }  # fmt: skip
    report = await case.judged(CLINIC, touches[part])
    name = "policy" if part in ("record", "policies") else "plan-choice"
    assert claim(report, name) == (f"asserted-by({CLINIC})", None)


async def test_a_better_plan_that_was_passed_over_is_said(case: Case) -> None:
    """Number 1 of 3 won: it is scored again, but that number 0 made no offer is the broker's word."""
    thumbprint = case.node.key.thumbprint
    digest = plan_digest(SECOND.key, thumbprint, MODEL)
    case.sign("plan", domain="hyper.us", digest=digest)
    case.sign("considered", selected_index=1)
    case.placement["objective"] = SECOND.objective
    assert claim(await case.judged(), "plan-choice") == (f"asserted-by({CLINIC})", None)
    assert BEST.score < SECOND.score
