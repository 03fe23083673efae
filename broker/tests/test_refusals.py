"""An auditor refuses again: every reason is found once more, and every field that a broker may lie about."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.observe import Metrics
from broker.peers import Peers
from broker.placing.agreement import Placing, Terms
from broker.placing.appraisals import ChallengeBook
from broker.placing.decide import ConsumerPolicy, Rulebook
from broker.placing.placements import Placements
from broker.problems import Infeasible
from broker.select.predict import Learned, Predictor, Waited
from broker.select.refused import CutRecord, LearnedSpeed, recut
from broker.select.replayed import SELECTION
from broker.tests.refusing import (
    ABROAD,
    CHARTER,
    PROVIDER,
    RULES,
    TENANT,
    TEXTS,
    Case,
    advert,
    cell,
    claim,
    founded,
)
from receipts.audit.commands import main as audit
from receipts.bundle import Bundle
from receipts.log import Draft
from receipts.statements import receipt
from receipts.statements.decided import registry_digest
from receipts.statements.fields import Layer, PolicyDecision, PolicyFile, Price, Verifier
from receipts.tests.world import CLINIC, CLOUD, Federation
from receipts.verify.replay.selection import Advertised, OnOffer
from schemas import envelope
from schemas.descriptors.request import RequestDescriptor
from schemas.descriptors.summary import CapabilitySummary
from schemas.errors import ComityError
from schemas.keys import SigningKey
from schemas.policy.layers import ELSEWHERE, Layers

REFUSED = ("failed", "verify.refusal")
REPLAYED = ("failed", "verify.policy_replay")
FACTS = ("failed", "verify.policy_facts")
ASSERTED = (f"asserted-by({CLINIC})", None)


@pytest.fixture(scope="module")
def federation() -> Federation:
    return founded()


@pytest.fixture
def case(federation: Federation, tmp_path: Path) -> Case:
    return Case(federation, tmp_path)


async def test_an_honest_refusal_is_proved(case: Case) -> None:
    report = await case.judged()
    assert claim(report) == ("proved", None)
    assert report.exit_code == 0
    (stated,) = [each for each in report.receipts[0].claims if each.name == "policy"]
    assert stated.text == "refused: none of 2 was allowed, cut again: TNT-001-public-only"


async def test_an_empty_directory_is_an_honest_reason(case: Case) -> None:
    case.cells = {}
    assert claim(await case.judged()) == ("proved", None)


async def test_what_a_bundle_for_everybody_leaves_out_stays_a_word(case: Case) -> None:
    """Losers are for those entitled to see them: without them nothing is cut again."""
    report = await case.judged(explained=False)
    assert claim(report) == ASSERTED


def altered(**changes: Any) -> Callable[[Draft], Draft]:
    """Have the broker sign other values in its Placement."""
    return lambda draft: replace(draft, body=draft.body.model_copy(update=changes))


def decided(**changes: Any) -> Callable[[Draft], Draft]:
    def touch(draft: Draft) -> Draft:
        assert isinstance(draft.body, receipt.PlacementDraft)
        return altered(policy=draft.body.policy.model_copy(update=changes))(draft)

    return touch


STRANGE = PolicyFile(name="tenant/kind", sha256="8" * 64)
TIMES = "2026-01-01T00:00:00.000Z"
POLICY_LIES: dict[str, tuple[dict[str, Any], tuple[str, str | None]]] = {
    "verifier": ({"verifier": Verifier(id="https://comity.invalid/policy/cedar@0.0.1")}, REPLAYED),
    "policies": ({"policies": [STRANGE]}, ASSERTED),  # nobody has a text of this name
    "properties": ({"properties": ["schema:" + "8" * 64, "rule:ABC-001-else"]}, REPLAYED),
    "time_created": ({"time_created": TIMES}, ("failed", "envelope.key_unknown")),
    "layers": ({"layers": [Layer(layer="charter", digest="8" * 64, verdict="deny", rules=["N"])]}, REPLAYED),
    "errors": ({"errors": ["none worth telling"]}, REPLAYED),
    "obligations": ({"obligations": ["log"]}, REPLAYED),
    "input_commitment": ({"input_commitment": "8" * 64}, REPLAYED),
}
"""Every field of the policy block, each stated otherwise than it was decided."""


def test_no_field_of_the_decision_is_forgotten() -> None:
    assert (
        POLICY_LIES.keys() | {"verdict"} == PolicyDecision.model_fields.keys()
    )  # another verdict is no refusal


@pytest.mark.parametrize("lie", POLICY_LIES)
async def test_a_lie_about_the_decision(case: Case, lie: str) -> None:
    changes, expected = POLICY_LIES[lie]
    case.sign = decided(**changes)
    assert claim(await case.judged()) == expected


LIES: dict[str, tuple[dict[str, Any], tuple[str, str | None]]] = {
    "registry": ({"inputs": {"registry": "8" * 64}}, ("failed", "verify.registry")),
    "record": ({"inputs": {"costs": "8" * 64}}, ASSERTED),
    "root": ({"considered": {"root": "8" * 64}}, ("failed", "verify.considered")),
    "count": ({"considered": {"count": 3}}, ("failed", "verify.considered")),
    "capability": ({"capability": {"name": "chat.large"}}, FACTS),
    "price": ({"budget": {"max_price": Price(micro=1, currency="EUR")}}, FACTS),
    "tokens": ({"budget": {"max_output_tokens": 11}}, FACTS),
    "request": ({"request": {"id": "another"}}, FACTS),
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_lie_beside_the_decision(case: Case, lie: str) -> None:
    fields, expected = LIES[lie]

    def touch(draft: Draft) -> Draft:
        changed = {name: getattr(draft.body, name).model_copy(update=more) for name, more in fields.items()}
        return altered(**changed)(draft)

    case.sign = touch
    assert claim(await case.judged()) == expected


async def test_a_candidate_was_allowed(case: Case) -> None:
    """The tenant's own rules would have let it pass; the broker says that they did not."""
    case.comity = {"policy": {"data_class": "public"}}
    case.cells |= {CLOUD: (cell(cls="embed.small"),)}
    honest = case.adverts

    def tell(refusal: Any) -> Any:
        case.cells |= {CLOUD: (cell(),)}  # what cloud.fr had really advertised
        adverts = [honest()[each] for each in sorted(case.cells)]
        return replace(refusal, adverts=adverts, registry=registry(adverts))

    case.tell = tell
    assert claim(await case.judged()) == REFUSED


def registry(adverts: list[bytes]) -> bytes:
    return registry_digest(
        zip((CLINIC, CLOUD), [envelope.read(each).digest for each in adverts], strict=True)
    )


@pytest.mark.parametrize(
    "lie",
    [
        lambda plan: replace(plan, reasons=("RES-001-inside-residency",)),
        lambda plan: replace(plan, reasons=(*plan.reasons, "RES-001-inside-residency")),
        lambda plan: replace(plan, key=plan.key + "x"),
        lambda plan: replace(plan, domain="else.us"),
    ],
    ids=["another-rule", "one-more-rule", "another-plan", "another-domain"],
)
async def test_a_lie_about_a_candidate(case: Case, lie: Callable[[Any], Any]) -> None:
    def tell(refusal: Any) -> Any:
        first, *rest = refusal.found.rejected
        return replace(refusal, found=replace(refusal.found, rejected=(lie(first), *rest)))

    case.tell = tell
    assert claim(await case.judged()) == REFUSED


@pytest.mark.parametrize("order", [slice(1, None), slice(None, None, -1)], ids=["one-hidden", "turned-round"])
async def test_candidates_hidden_or_in_another_order(case: Case, order: slice) -> None:
    def tell(refusal: Any) -> Any:
        return replace(refusal, found=replace(refusal.found, rejected=refusal.found.rejected[order]))

    case.tell = tell
    assert claim(await case.judged()) == REFUSED


STANDING_STILL = LearnedSpeed.model_construct(
    domain=CLOUD, label="chat.small", prefill_tps="0.0", decode_tps="1", queue_ms="0"
)
HALF_SEEN = LearnedSpeed.model_construct(domain=CLOUD, label="chat.small", prefill_tps="1")
RECORD_LIES: dict[str, tuple[dict[str, Any], tuple[str, str | None]]] = {
    "at": ({"at": "2026-06-01T12:00:00Z"}, FACTS),
    "tenant": ({"tenant": "x" * 513}, ("failed", "schema.CutRecord")),
    "rtts_ms": ({"rtts_ms": {"CLOUD": 1}}, ("failed", "schema.CutRecord")),
    "speeds": ({"speeds": [STANDING_STILL]}, ("failed", "schema.CutRecord")),
    "half a speed": ({"speeds": [HALF_SEEN]}, ("failed", "schema.CutRecord")),
}


@pytest.mark.parametrize("lie", RECORD_LIES)
async def test_a_lie_in_the_record(case: Case, lie: str) -> None:
    changes, expected = RECORD_LIES[lie]
    case.tell = lambda refusal: replace(refusal, record=refusal.record.model_copy(update=changes))
    assert claim(await case.judged()) == expected


ASKED: dict[str, tuple[dict[str, Any], tuple[str, str | None]]] = {
    "tags": ({"policy": {"data_class": "public"}}, REFUSED),
    "price": ({"budget": {"max_price": 1}}, FACTS),
    "quality": ({"quality": {"tier": 4}}, REFUSED),
}


@pytest.mark.parametrize("lie", ASKED)
async def test_a_record_of_another_request(case: Case, lie: str) -> None:
    """Other tags would not have been refused; a floor that nobody asked for gives other reasons."""
    changes, expected = ASKED[lie]

    def tell(refusal: Any) -> Any:
        record = json.loads(refusal.record.write())
        for part, values in changes.items():
            record["request"][part] |= values
        return replace(refusal, record=CutRecord.read(json.dumps(record).encode()))

    case.tell = tell
    assert claim(await case.judged()) == expected


async def test_an_advert_that_its_domain_did_not_sign(case: Case) -> None:
    """The broker signs in cloud.fr's name that it has another class on offer."""
    forger = replace(case.federation.cloud, advert=SigningKey.generate())

    def tell(refusal: Any) -> Any:
        own = refusal.adverts[0]
        adverts = [own, advert(forger, case.at, cell(cls="embed.small"))]
        return replace(refusal, adverts=adverts, registry=registry(adverts))

    case.tell = tell
    assert claim(await case.judged()) == ("failed", "envelope.signature_invalid")


async def test_an_advert_whose_time_was_over(case: Case) -> None:
    def tell(refusal: Any) -> Any:
        old = advert(case.federation.cloud, case.at - timedelta(minutes=5), cell(cls="embed.small"))
        adverts = [refusal.adverts[0], old]
        return replace(refusal, adverts=adverts, registry=registry(adverts))

    case.tell = tell
    assert claim(await case.judged()) == ("failed", "advert.expired")


async def test_adverts_that_were_left_out(case: Case) -> None:
    """The signed name of what was on offer stands for both."""
    case.tell = lambda refusal: replace(refusal, adverts=refusal.adverts[:1])
    assert claim(await case.judged()) == ("failed", "verify.registry")


@pytest.mark.parametrize("gone", ["charter", "tenant", "provider"])
async def test_refused_without_somebody_s_rules(case: Case, gone: str) -> None:
    given: dict[str, Any] = {"charter": CHARTER, "tenant": TENANT, "provider": PROVIDER, gone: ELSEWHERE}
    case.rules = Layers.of(national=(), **given)
    assert claim(await case.judged()) == ("failed", "verify.policy_layers")


async def test_refused_under_rules_that_the_charter_does_not_name(tmp_path: Path) -> None:
    assert claim(await Case(founded("9" * 64), tmp_path).judged()) == ("failed", "verify.policy_pinned")


@pytest.mark.parametrize("part", ["policies", "advert", "listing", "record"])
async def test_without_material_it_stays_a_word(case: Case, part: str) -> None:
    def touch(held: Bundle) -> Bundle:
        if part == "policies":
            return replace(held, policies=())
        marks = {"advert": b"comity.advert", "listing": b'"considered"', "record": b'"rtts_ms"'}
        kept = {name: data for name, data in held.blobs.items() if marks[part] not in data}
        assert len(kept) < len(held.blobs)
        return replace(held, blobs=kept)

    assert claim(await case.judged(touch)) == ASSERTED


async def test_under_pinned_root_keys_nobody_says_who_the_domains_are(case: Case) -> None:
    jwk = case.federation.clinic.root.public.jwk
    root = "{ " + ", ".join(f'{name} = "{value}"' for name, value in jwk.as_json().items()) + " }"
    pin = f'{{ "{CLINIC}" = {{ threshold = 1, keys = [{root}] }} }}'
    assert claim(await case.judged(charter=None, roots=pin)) == ASSERTED


def slow_cloud(*, queue_ms: int) -> Predictor:
    """What a broker has seen whose requests cloud.fr answered slowly."""
    name, now = (CLOUD, "chat.small/tiny-q4"), time.time()
    learned = Learned(Decimal(500), Decimal("0.5"), samples=3, at=now)
    return Predictor.of({name: learned}, {name: Waited(Decimal(queue_ms), at=now)})


async def test_a_refusal_for_times_that_the_broker_measured_is_its_word(case: Case) -> None:
    case.comity = {"policy": {"data_class": "public"}, "slo": {"total_ms": 1000}}
    case.predictor = slow_cloud(queue_ms=0)
    assert claim(await case.judged()) == ASSERTED


async def test_a_refusal_for_a_model_that_it_remembers_is_its_word(case: Case) -> None:
    case.comity, case.model_digest = {"policy": {"data_class": "public"}}, "b" * 64
    assert claim(await case.judged()) == ASSERTED


async def test_learned_speeds_count_as_they_were(case: Case) -> None:
    """Slow, and refused for its rules all the same: both reasons stand there, and come out again."""
    case.comity = {"policy": {"data_class": "personal"}, "slo": {"total_ms": 1000}}
    case.predictor = slow_cloud(queue_ms=3)
    case.predictor.observe_rtt(CLOUD, Decimal("20.5"))
    assert claim(await case.judged()) == ("proved", None)


async def test_a_wait_that_was_stated_says_nothing_of_the_speeds_of_other_plans(case: Case) -> None:
    """Where a domain lists two plans of one name, one's speed stood for both: an honest refusal was a lie."""
    case.comity = {"policy": {"data_class": "personal"}, "slo": {"total_ms": 5000}}
    quick, slow = cell(), cell(jur="FR", decode_tps=1)
    case.cells |= {CLOUD: (quick, slow)}
    case.predictor.observe_queue(CLOUD, quick, 30, time.time())
    assert claim(await case.judged()) == ("proved", None)


async def test_a_refusal_after_a_floor_was_let_go_of_is_about_what_was_left(case: Case) -> None:
    """Its run was lost, and then nobody was left: the record was of the request as stated."""
    case.comity = {"policy": {"data_class": "personal", "allow_degraded": True}, "quality": {"tier": 9}}
    journey, trust = case.journey("mine"), case.trust()
    assert journey.lower()
    log = await case.federation.clinic.open(case.folder, clock=lambda: datetime.now(UTC))
    nobody: Any = None
    placing = Placing(
        Peers(nobody, trust, CLINIC, SigningKey.generate(), nobody),
        case.directory(trust),
        nobody,
        ConsumerPolicy(CLINIC, trust.charter, Rulebook(CHARTER, (), {"default": TENANT}, PROVIDER)),
        Placements(CLINIC, trust, ChallengeBook(CLINIC), log),
        {},
        Terms(finalists=3, hold_ms=3000, call_ms=2000, run_ms=1000),
        case.predictor,
        Metrics(),
    )
    with pytest.raises(Infeasible) as caught:
        await placing.place(journey)
    await log.checkpoint()
    await log.close()
    assert claim(await case.verdict(str(caught.value.detail["receipt"]))) == ("proved", None)


async def test_a_whole_log_s_refusals_are_made_again(
    case: Case, federation: Federation, capsys: pytest.CaptureFixture[str]
) -> None:
    await case.refuse()
    case.tell = lambda refusal: replace(refusal, found=replace(refusal.found, rejected=()))
    await case.refuse("another")
    folder = case.folder / "auditor"
    for name in ("papers", "policies"):
        (folder / name).mkdir(parents=True)
    for name, data in federation.clinic.documents.manifests.items():
        (folder / "papers" / f"{name}.json").write_bytes(data)
    (folder / "papers" / "charter.json").write_bytes(federation.charter)
    (folder / "trust.toml").write_text(federation.trust_toml.replace('"expected.toml"', '"any"'))
    for digest, text in TEXTS.items():
        (folder / "policies" / f"{digest[:8]}.cedar").write_bytes(text)
    named = ["--trust", str(folder / "trust.toml"), "--papers", str(folder / "papers"), "--json"]
    log = str(case.folder / f"{CLINIC}.db")
    code = audit([log, *named, "--policies", str(folder / "policies")], selection=SELECTION)
    report = json.loads(capsys.readouterr().out)
    assert (code, [each["code"] for each in report["findings"]]) == (1, ["verify.refusal"])
    assert report["counts"]["refusal replay"] == {"again": 1}
    assert report["counts"]["policy replay"] == {}


@pytest.fixture(scope="module")
def offered(federation: Federation) -> tuple[bytes, OnOffer]:
    """A record of bounds on price and time, over what both domains offer."""
    asked = {"policy": {"data_class": "public"}, "slo": {"total_ms": 1000}, "budget": {"max_price": 5}}
    case = Case(federation, Path(), comity=asked, predictor=slow_cloud(queue_ms=3))
    case.predictor.observe_rtt(CLOUD, Decimal(20))
    refusal = case.refusal(case.journey("mine"), case.trust())
    members = {each.domain: each.endorsed.profile for each in case.trust().charter.members}
    listed = [
        Advertised(name, CapabilitySummary.read(found.payload), found.digest, members[name])
        for name, found in zip((CLINIC, CLOUD), map(envelope.read, refusal.adverts), strict=True)
    ]
    return refusal.record.write(), OnOffer(
        CLINIC, listed, {True: RULES, False: ABROAD}, simulated_allowed=False
    )


VALUES = st.none() | st.booleans() | st.integers(0, 2**53) | st.text(max_size=8) | st.just("0.001")
PATHS = [
    *[(name,) for name in CutRecord.model_fields],
    *[("request", name) for name in RequestDescriptor.model_fields],
    *[("speeds", 0, name) for name in LearnedSpeed.model_fields],
    ("request", "slo", "total_ms"), ("request", "budget", "max_price"), ("rtts_ms", CLOUD),
]  # fmt: skip


@settings(max_examples=300)
@given(st.sampled_from(PATHS), VALUES)
def test_any_record_is_cut_or_refused_in_our_own_words(
    offered: tuple[bytes, OnOffer], path: tuple[Any, ...], value: Any
) -> None:
    record, on_offer = offered
    stated = json.loads(record)
    place = stated
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with suppress(ComityError):
        recut(json.dumps(stated).encode(), on_offer)
