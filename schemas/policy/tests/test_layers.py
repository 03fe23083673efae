"""Four owners, one answer: each can deny alone, and one engine call says what four would say."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from schemas.errors import ConfigurationError
from schemas.policy import cedar
from schemas.policy.facts import RequestContext, Subject
from schemas.policy.layers import ELSEWHERE, LAYERS, Decision, Layers, LayerVerdict
from schemas.policy.packs import default_layers, load_pack
from schemas.policy.policy_set import PolicySet
from schemas.policy.tests.cases import asking, clinic, cloud, forbidding, hyper, open_set, serving
from schemas.policy.tests.generated import random_request, random_subject


@pytest.mark.parametrize("owner", LAYERS)
def test_each_layer_can_deny_alone(owner: str) -> None:
    denying = forbidding("TST-001-never", "true")
    sets = {layer: denying if layer == owner else open_set() for layer in LAYERS}
    decision = Layers.of(**sets).decide(asking(data_class="public"), serving())
    assert (decision.verdict, decision.reasons) == ("deny", ("TST-001-never",))
    assert {v.layer: v.verdict for v in decision.layer_verdicts} == {
        layer: "deny" if layer == owner else "allow" for layer in LAYERS
    }


def test_no_permit_widens_another_owners_forbid() -> None:
    layers = default_layers(tenant=open_set(), provider=load_pack("provider-no-health"))
    decision = layers.decide(asking(origin="DE"), clinic())
    assert (decision.verdict, decision.reasons) == ("deny", ("PRV-001-no-health-data",))
    stranger = replace(asking(data_class="public"), consumer="other.example")
    assert layers.decide(stranger, clinic()).reasons == ("DEFAULT-DENY",)
    assert layers.decide(asking(data_class="public"), clinic()).verdict == "allow"


def test_the_demo_story() -> None:
    layers = default_layers()
    three = (clinic(), cloud(), hyper())

    def allowed(**tags: object) -> list[str]:
        request = asking(**tags)  # type: ignore[arg-type]
        return [s.domain.domain for s in three if layers.decide(request, s).verdict == "allow"]

    assert allowed(data_class="public") == ["clinic.de", "cloud.fr", "hyper.us"]
    assert allowed(data_class="personal", residency=["EU"]) == ["clinic.de", "cloud.fr"]
    assert allowed(data_class="special-category", origin="DE", residency=["EU"]) == ["clinic.de"]
    assert allowed(data_class="personal", residency=["premises"]) == ["clinic.de"]
    rejected = layers.decide(asking(data_class="personal", residency=["EU"]), hyper())
    assert "RES-001-inside-residency" in rejected.reasons


def test_a_simulated_tee_counts_only_where_the_charter_lists_its_root() -> None:
    decision = default_layers().decide(asking(data_class="public", simulated_allowed=False), clinic())
    assert decision.reasons == ("TEE-005-simulated-root-unlisted",)


def test_a_domain_in_two_countries_is_in_neither_of_them() -> None:
    both = serving(jurisdictions=["DE", "FR"])
    layers = default_layers()
    assert layers.decide(asking(data_class="internal", residency=["EU"]), both).verdict == "allow"
    assert layers.decide(asking(data_class="internal", residency=["DE", "FR"]), both).verdict == "deny"


def test_a_machine_that_the_domain_did_not_enrol_has_no_proven_place() -> None:
    decision = default_layers().decide(asking(data_class="internal"), serving(enrolled=False))
    assert decision.reasons == ("EVD-001-jurisdiction-needs-credential",)


def test_price_and_age_are_judged_anew_though_verdicts_are_remembered() -> None:
    layers, request = default_layers(), asking(data_class="internal", max_price=100)
    assert layers.decide(request, serving(price=100)).verdict == "allow"
    assert layers.decide(request, serving(price=99)) is layers.decide(request, serving(price=7))
    assert layers.decide(request, serving(price=101)).reasons == ("OPS-001-within-price",)
    assert layers.decide(request, serving(attestation_age_s=300)).verdict == "allow"
    assert layers.decide(request, serving(attestation_age_s=301)).reasons == ("TEE-004-fresh-attestation",)


def test_a_rule_that_reads_the_price_itself_is_not_answered_from_memory() -> None:
    tenant = forbidding("TEN-001-dear", "resource.price > 50")
    layers, request = default_layers(tenant=tenant), asking(data_class="public")
    assert layers.decide(request, serving(price=50)).verdict == "allow"
    assert layers.decide(request, serving(price=51)).verdict == "deny"


def test_the_providers_own_verdict_is_joined_from_its_offer() -> None:
    layers = default_layers(provider=ELSEWHERE)
    decision = layers.decide(asking(data_class="public"), hyper())
    assert [v.layer for v in decision.layer_verdicts].count("provider") == 0
    veto = LayerVerdict("provider", "hyper.us", "0" * 64, "deny", ("PRV-001-no-health-data",))
    assert decision.joined(veto).verdict == "deny"
    assert decision.joined(veto).reasons == ("PRV-001-no-health-data",)
    consent = LayerVerdict("provider", "hyper.us", "0" * 64, "allow", ("ENT-001-known-consumers",))
    assert decision.joined(consent).verdict == "allow"
    assert decision.joined(consent).policy_digests["provider/hyper.us"] == "0" * 64


def test_a_layer_cannot_be_left_out_silently() -> None:
    with pytest.raises(ConfigurationError):
        Layers.of(charter=ELSEWHERE, national=ELSEWHERE, tenant=ELSEWHERE, provider=ELSEWHERE)
    with pytest.raises(ConfigurationError):
        Layers.of(charter=[open_set(), open_set()], national=ELSEWHERE, tenant=ELSEWHERE, provider=ELSEWHERE)
    with pytest.raises(TypeError):
        Layers.of(charter=open_set())  # type: ignore[call-arg]


def test_one_call_says_what_a_call_per_set_says() -> None:
    """The union of sets is an optimisation; here it is held against its definition."""
    layers = default_layers(tenant=load_pack("tenant-hospital"), provider=load_pack("provider-no-health"))
    draw = random.Random(20260101)
    for _ in range(300):
        request, subject = random_request(draw), random_subject(draw)
        decision = layers.decide(request, subject)
        for verdict, unit in zip(decision.layer_verdicts, layers.units, strict=True):
            assert (verdict.verdict, set(verdict.rules)) == _alone(unit.policies, request, subject)
        assert (decision.verdict == "allow") == all(v.verdict == "allow" for v in decision.layer_verdicts)


def test_a_decision_is_plain_json() -> None:
    decision: Decision = default_layers().decide(asking(), hyper())
    block = decision.as_json()
    assert block["verdict"] == "deny"
    assert block["engine"] == "cedarpy"
    assert block["errors"] == []


def _alone(policies: PolicySet, request: RequestContext, subject: Subject) -> tuple[str, set[str]]:
    outcome = cedar.evaluate(
        cedar.compile_policies(policies.rules),
        cedar.compile_entities(request, subject),
        [cedar.question(request, subject.domain.domain)],
    )[0]
    assert not outcome.errors
    return outcome.decision.lower(), set(outcome.rules) or {"DEFAULT-DENY"}
