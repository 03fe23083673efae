"""The load gate: what a set must be before it may decide anything."""

from __future__ import annotations

import time
from contextlib import suppress
from importlib import resources

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import ComityError, Refused, Unreadable
from schemas.policy.layers import ELSEWHERE, Layers
from schemas.policy.packs import CanaryFile, load_pack, pack_names, read_canaries
from schemas.policy.policy_set import MAX_POLICY_BYTES, Canary, PolicySet
from schemas.policy.tests.cases import OPEN, asking, forbidding, serving

SCOPE = '(principal, action == Action::"place", resource)'


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("permit (principal", "policy.syntax"),
        ("", "policy.rule_count"),
        (" " * (MAX_POLICY_BYTES + 1), "policy.too_long"),
        (f"permit {SCOPE};", "policy.id_missing"),
        (f'@id("MEM-1") permit {SCOPE};', "policy.id_pattern"),
        (f'@id("MEM-001-a\\n") permit {SCOPE};', "policy.id_pattern"),
        (OPEN + OPEN, "policy.id_duplicate"),
        (OPEN + f'@id("ENT-001-other") permit {SCOPE};', "policy.permit_family"),
        (f'@id("RES-001-anyone") permit {SCOPE};', "policy.permit_family"),
        (f'@id("RES-001-never") forbid {SCOPE};', "policy.no_permit"),
        (f'@id("MEM-001-a") permit {SCOPE} when {{ context.maxPrice > 3 }};', "policy.permit_asks"),
        (
            '@id("MEM-001-a") permit (principal == ?principal, action, resource);',
            "policy.template",
        ),
    ],
)
def test_the_gate_refuses(text: str, code: str) -> None:
    with pytest.raises(ComityError) as caught:
        PolicySet.load(text, "test")
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("condition", "code"),
    [
        ("resource.assurence < 3", "policy.invalid"),
        ("context.minAssurance == true", "policy.invalid"),
        ('resource.certs.contains(Regime::"US-CLOUD-Act")', "policy.invalid"),
        ('resource in Jurisdiction::"DEE"', "policy.unknown_word"),
        ('resource in [Jurisdiction::"DE", Jurisdiction::"EUR"]', "policy.unknown_word"),
        ('resource.certs.contains(Certification::"C6")', "policy.unknown_word"),
        ('resource.exposedTo.contains(Regime::"CLOUD")', "policy.unknown_word"),
        ('context.dataClass == "persnal"', "policy.unknown_word"),
        ('["phi", "health"].contains(context.dataClass)', "policy.unknown_word"),
        ('resource.transferBasis.contains("scc")', "policy.unknown_word"),
        ('resource.keyControl != "theirs"', "policy.unknown_word"),
        ('resource.bindingMode == "ratls"', "policy.unknown_word"),
        ('context.dataClass like "health*"', "policy.unknown_word"),
        ('resource == Domain::"Hyper.us"', "policy.unknown_word"),
        ('resource == Domain::"hyper.us "', "policy.unknown_word"),
        ('resource == Domain::"hyр\u0435r.us"', "policy.unknown_word"),
        ('resource in Jurisdiction::"premises:clinic"', "policy.unknown_word"),
        ('principal in Participant::"clinic.de/ward"', "policy.unknown_word"),
        ('principal in Tenant::"clinic.de"', "policy.unknown_word"),
    ],
)
def test_the_gate_refuses_rules_that_could_never_mean_anything(condition: str, code: str) -> None:
    with pytest.raises(Refused) as caught:
        forbidding("TST-001-test", condition)
    assert caught.value.code == code
    assert "TST-001-test" in caught.value.text


@pytest.mark.parametrize(
    "condition",
    [
        'context.dataClass like "special*"',
        'resource.bindingMode != "derived-nonce+evidence-hash"',
        'principal in Tenant::"clinic.de/ward 3" && principal in Participant::"clinic.de"',
        'principal == Application::"clinic.de/ward/api" && resource == Domain::"hyper.us"',
        'resource in Jurisdiction::"premises:clinic.de"',
    ],
)
def test_names_and_patterns_that_somebody_can_have_are_taken(condition: str) -> None:
    assert forbidding("TST-001-test", condition).rules


@pytest.mark.parametrize(
    "condition",
    [
        "(" * 1_000 + "true" + ")" * 1_000,
        "[" * 800 + "]" * 800 + " == []",
        "if true then " * 8_000 + "true" + " else false" * 8_000,
        " && ".join(["true"] * 30_000),
        " && ".join(["true"] * 300),
        " && ".join(["true"] * 100),
        "resource" + ".price" * 30_000 + " == 1",
        "context has " + ".".join(["a"] * 8_000),
    ],
    ids=["brackets", "sets", "if", "and", "300 and", "100 and", "attributes", "has"],
)
def test_a_rule_that_nests_without_end_is_refused_and_ends_no_process(condition: str) -> None:
    """The engine's parser overran its stack, and with it the broker or the auditor who had the text."""
    with pytest.raises(Unreadable) as caught:
        forbidding("TST-001-test", condition)
    assert caught.value.code == "policy.too_deep"


def test_a_pattern_of_asterisks_takes_no_time() -> None:
    """Forty of them before a letter were as many ways to divide a word as there are: no gate opened again."""
    began = time.process_time()
    with pytest.raises(Refused, match="bindingMode is never like that"):
        forbidding("TST-001-test", f'resource.bindingMode like "{"*" * 40}x"')
    assert forbidding("TST-001-test", f'resource.bindingMode like "{"*e" * 6}{"*" * 40}"').rules
    assert time.process_time() - began < 1


def test_brackets_in_strings_and_comments_nest_nothing() -> None:
    deep = "(" * 1_000
    noted = f"// {deep}\n" + OPEN.replace("@id", f'@note("{deep}\\"{deep}")\n@id')
    assert PolicySet.load(noted, "test").permits
    many = " || ".join(f'resource == Domain::"d{at}.example"' for at in range(40))
    assert forbidding("TST-001-test", many).rules


def test_a_changed_canary_blocks_activation_unless_the_change_is_recorded() -> None:
    canary = Canary("public-anywhere", asking(data_class="public"), serving(), "allow")
    strict = OPEN + f'@id("RES-009-never") forbid {SCOPE} when {{ true }};'
    assert PolicySet.load(OPEN, "test", [canary]).overrides == ()
    unneeded = PolicySet.load(OPEN, "test", [canary], overrides=["public-anywhere"])
    assert unneeded.overrides == (), "nothing changed, so that no change is on record"
    with pytest.raises(Refused, match="public-anywhere: allow was expected; RES-009-never decided"):
        PolicySet.load(strict, "test", [canary])
    assert PolicySet.load(strict, "test", [canary], overrides=["public-anywhere"]).overrides == (
        "public-anywhere",
    )


def test_the_digest_names_the_rules_not_their_layout() -> None:
    text = OPEN + f'@id("RES-001-a") forbid {SCOPE} when {{ resource.price > 3 }};'
    moved = f'// reordered\n@id("RES-001-a")\nforbid {SCOPE}\nwhen {{resource.price>3}};\n' + OPEN
    assert PolicySet.load(text, "a").digest == PolicySet.load(moved, "b").digest
    assert PolicySet.load(text.replace("3", "4"), "a").digest != PolicySet.load(text, "a").digest


def test_every_pack_passes_the_gate_and_those_that_forbid_have_canaries() -> None:
    assert {"charter", "national-de", "national-fr", "national-us"} <= set(pack_names())
    folder = resources.files("schemas.policy") / "packs"
    for name in pack_names():
        loaded = load_pack(name)
        if loaded.permits == set(loaded.rules):
            continue
        cases = CanaryFile.read((folder / f"{name}.canaries.json").read_bytes()).canaries
        named = {case.name.partition("/")[0] for case in cases if case.expect == "deny"}
        assert named == set(loaded.rules) - loaded.permits, name
        assert any(case.expect == "allow" for case in cases)
        for canary in read_canaries((folder / f"{name}.canaries.json").read_bytes()):
            rule = canary.name.partition("/")[0]
            if canary.expect == "deny":  # denied by the rule that it is named after, and by no other
                decision = Layers.of(charter=loaded, national=ELSEWHERE, tenant=ELSEWHERE, provider=ELSEWHERE)
                assert decision.decide(canary.request, canary.subject).reasons == (rule,), canary.name


def test_canary_files_are_strict() -> None:
    with pytest.raises(Unreadable, match="surprise"):
        read_canaries(b'{"canaries": [{"name": "a", "expect": "allow", "surprise": 1}]}')
    assert read_canaries(b'{"canaries": []}') == ()


@given(st.text(max_size=80) | st.text('permitforbd(){};@"=&|! ', max_size=60))
def test_any_text_is_a_set_or_a_typed_refusal(text: str) -> None:
    with suppress(ComityError):
        assert PolicySet.load(text, "test").permits
