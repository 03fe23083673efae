"""The six traps of policy-and-negotiation A2: each is shown to exist, and shown not to bite."""

from __future__ import annotations

import json

import cedarpy
import pytest

from schemas.descriptors.tags import PolicyTags
from schemas.errors import Refused
from schemas.policy import cedar
from schemas.policy.facts import UNATTESTED, RequestContext, Subject, Unusable
from schemas.policy.layers import Layers
from schemas.policy.packs import default_layers, load_pack
from schemas.policy.policy_set import PolicySet
from schemas.policy.tests.cases import OPEN, asking, clinic, forbidding, open_set, serving

OVERFLOW = "context.maxPrice * 9007199254740991 < 0"


def ask_without(attribute: str, schema: cedarpy.Schema | None) -> cedarpy.AuthzResult:
    request, subject = asking(data_class="public", min_assurance=3), serving(assurance=0)
    asked = cedar.question(request, subject.domain.domain)
    context = json.loads(asked["context"])
    del context[attribute]
    policies = cedar.compile_policies(load_pack("charter").rules)
    entities = cedar.compile_entities(request, subject)
    return cedarpy.is_authorized({**asked, "context": json.dumps(context)}, policies, entities, schema)


def test_trap_1_a_forbid_that_errors_is_skipped_so_an_error_never_allows() -> None:
    assert ask_without("minAssurance", None).decision == cedarpy.Decision.Allow  # the trap
    layers = Layers.of(
        charter=forbidding("TST-001-overflows", OVERFLOW),
        national=open_set(),
        tenant=open_set(),
        provider=open_set(),
    )
    decision = layers.decide(asking(data_class="public"), serving())
    assert decision.verdict == "error"
    assert decision.reasons == ("ENGINE-ERROR",)
    assert "overflow" in decision.errors[0]
    assert [layer.verdict for layer in decision.layer_verdicts] == ["error", "allow", "allow", "allow"]


def test_trap_2_a_context_that_breaks_the_schema_is_no_decision_and_counts_as_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert ask_without("minAssurance", cedar.schema()).decision == cedarpy.Decision.NoDecision
    question = cedar.question
    monkeypatch.setattr(cedar, "question", lambda *asked: question(*asked) | {"context": "{}"})
    decision = default_layers().decide(asking(data_class="public"), serving())
    assert (decision.verdict, decision.layer_verdicts) == ("error", ())
    assert decision.errors


def test_trap_3_a_domain_without_usable_profile_is_denied_without_asking_the_engine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cedar, "evaluate", None)
    for reason in ("UNKNOWN-DOMAIN", "PROFILE-SIGNATURE", "PROFILE-EXPIRED"):
        decision = default_layers().decide(asking(), Unusable("who.example", reason))
        assert (decision.verdict, decision.reasons, decision.errors) == ("deny", (reason,), ())


def test_trap_4_optional_attributes_do_not_exist_and_unknown_ones_are_refused() -> None:
    with pytest.raises(Refused, match=r"policy\.invalid"):
        forbidding("TST-001-misspelt", "resource.assurence < context.minAssurance")
    with pytest.raises(Refused, match=r"policy\.tags_incomplete"):
        RequestContext.of(
            PolicyTags(data_class="public"),
            consumer="clinic.de",
            tenant="t",
            application="a",
            max_price=None,
            allow_debug=False,
            simulated_allowed=False,
        )


def test_trap_5_a_denial_by_default_has_a_name() -> None:
    nobody = PolicySet.load(OPEN.replace('"active"', '"suspended"'), "nobody")
    layers = Layers.of(charter=open_set(), national=open_set(), tenant=nobody, provider=open_set())
    decision = layers.decide(asking(data_class="public"), serving())
    assert (decision.verdict, decision.reasons) == ("deny", ("DEFAULT-DENY",))
    assert [entry.verdict for entry in decision.layer_verdicts] == ["allow", "allow", "deny", "allow"]


def test_trap_6_a_question_carries_its_own_few_entities() -> None:
    assert len(cedar.compile_entities(asking(origin="DE-HE"), clinic())) < 16


def test_an_exception_of_the_binding_is_an_error_and_is_not_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    layers, request = default_layers(), asking(data_class="public")

    def explode(*_: object) -> None:
        raise RuntimeError("boom")

    with monkeypatch.context() as patch:
        patch.setattr(cedar, "evaluate", explode)
        decision = layers.decide(request, serving())
    assert (decision.verdict, decision.errors) == ("error", ("RuntimeError: boom",))
    with pytest.raises(Refused, match="ENGINE-ERROR"):
        decision.require_allow()
    assert layers.decide(request, serving()).verdict == "allow"


def test_an_error_that_names_no_rule_of_ours_never_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = default_layers()
    permits = frozenset(f"{unit.name}/{rule}" for unit in layers.units for rule in unit.policies.permits)
    strange = cedar.Outcome("Allow", permits, ("something strange",))
    monkeypatch.setattr(cedar, "evaluate", lambda *_: [strange])
    decision = layers.decide(asking(data_class="public"), serving())
    assert (decision.verdict, decision.errors) == ("error", ("something strange",))


def test_a_missing_label_is_the_strictest() -> None:
    request = asking()
    assert (request.data_class, request.residency, request.origin) == (
        "special-category",
        frozenset({"DE"}),
        "DE",
    )
    assert default_layers().decide(request, clinic()).verdict == "allow"
    unattested = Subject(clinic().domain, UNATTESTED, 0)
    reasons = default_layers().decide(request, unattested).reasons
    assert {"TEE-001-assurance-floor", "TEE-006-engine-outside-tee", "TEE-007-not-attested"} <= set(reasons)
