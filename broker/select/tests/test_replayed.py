"""An auditor decides again: policy and ranking of a real bundle, and every lie about either."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from broker.placing.policy_block import policy_block
from broker.select.cost import Inputs, Weights
from broker.select.rank import RankRecord, StoredPlan
from broker.select.replayed import rerank
from receipts import bundle as bundles
from receipts.bundle import Bundle
from receipts.log import Keep
from receipts.statements import receipt
from receipts.statements.fields import PolicyDecision
from receipts.tests.world import CLINIC, CLOUD, NOW, Domain, Federation, Run, platform
from receipts.verify import Report, verify_bundle
from schemas.canonical import sha256
from schemas.policy.layers import ELSEWHERE, Layers
from schemas.policy.replay import facts_only
from schemas.policy.tests.cases import asking, cloud, forbidding, open_set

CHARTER = open_set("charter")
LAYERS = Layers.of(
    charter=CHARTER, national=(), tenant=forbidding("TNT-001-never", "false"), provider=ELSEWHERE
)
REQUEST = asking(data_class="public")
SUBJECT = cloud()
SUBJECT = replace(SUBJECT, attested=replace(SUBJECT.attested, binding_mode="cpu-only"))


def plan(key: str, price: int) -> StoredPlan:
    inputs = Inputs(
        key=key, rtt_ms=20, body_bytes=900, queue_ms="5", fresh_tokens=100, output_tokens=32,
        prefill_tps="900", decode_tps="40", cold=False, move_ms="0", headroom="6", assurance=1,
        preferred=True, price=price,
    )  # fmt: skip
    return StoredPlan(inputs=inputs, stale=False)


RANKING = RankRecord(
    seed="r1",
    weights=Weights().as_json(),
    plans=[plan("cloud.fr chat.small FR simulated", 100), plan("hyper.us chat.small US simulated", 4000)],
)
BEST, SECOND = rerank(RANKING.write())


def stated(**changes: Any) -> tuple[PolicyDecision, bytes]:
    """What an honest broker writes of its decision, and the record that it keeps."""
    decision = LAYERS.decide(changes.pop("request", REQUEST), changes.pop("subject", SUBJECT))
    made = facts_only(LAYERS, REQUEST, SUBJECT, decision)
    return policy_block(replace(decision, record=made), input_commitment="0" * 64), made


def objective(**changes: Any) -> receipt.Objective:
    terms = {name: f"{value:f}" for name, value in BEST.terms.items()}
    values = {"name": "J", "version": "1", "digest": "0" * 64, "score": f"{BEST.score:f}"}
    return receipt.Objective(terms=receipt.Terms(**(terms | changes.pop("terms", {}))), **(values | changes))


@pytest.fixture(scope="module")
def federation() -> Federation:
    made = Federation(Domain.make(CLINIC), Domain.make(CLOUD, (platform(),)), policy_digest=CHARTER.digest)
    made.publish()
    return made


async def judged(
    federation: Federation, folder: Path, touch: Callable[[Bundle], Bundle] | None = None, **placement: Any
) -> Report:
    """One request with this Placement, and the auditor's verdict on the explained bundle."""
    block, made = stated()
    texts = {each.digest: each.text.encode() for each in (CHARTER, forbidding("TNT-001-never", "false"))}
    documents = replace(federation.clinic.documents, policies=texts)
    clinic = await replace(federation.clinic, documents=documents).open(folder)
    cloud_log = await federation.cloud.open(folder)
    costs = receipt.Inputs(registry="1" * 64, costs=sha256(RANKING.write()).hex())
    values = {
        "policy": block,
        "objective": objective(),
        "inputs": costs,
        "considered": receipt.Considered(root="2" * 64, count=3, selected_index=0),
    }
    run = Run(placement=values | placement)
    await run.play(clinic, cloud_log)
    await clinic.keep(Keep(run.request.id, evidence=[made, RANKING.write()]))
    held = clinic._reader.bundle(run.request.id, documents, explained=True)
    await clinic.close()
    await cloud_log.close()
    held = touch(held) if touch else held
    return verify_bundle(bundles.write(held), federation.trust(), at=NOW, rerank=rerank)


def claim(report: Report, name: str) -> tuple[str, str | None]:
    (found,) = [each for each in report.receipts if each.kind == "placement"]
    (each,) = [each for each in found.claims if each.name == name]
    return each.label, each.code


async def test_an_honest_broker_is_proved_right(federation: Federation, tmp_path: Path) -> None:
    report = await judged(federation, tmp_path)
    assert claim(report, "policy") == ("proved", None)
    assert claim(report, "plan-choice") == ("proved", None)
    assert report.exit_code == 0


def lying(change: Callable[[PolicyDecision], PolicyDecision]) -> PolicyDecision:
    return change(stated()[0])


def other_rules(block: PolicyDecision) -> PolicyDecision:
    first, *rest = block.layers
    return block.model_copy(update={"layers": [first.model_copy(update={"rules": ["ABC-001-else"]}), *rest]})


def fewer_layers(block: PolicyDecision) -> PolicyDecision:
    return block.model_copy(update={"layers": block.layers[:1]})


def without_facts() -> Callable[[Bundle], Bundle]:
    """The bundle without the record of the decision."""

    def touch(held: Bundle) -> Bundle:
        name = sha256(stated()[1])
        return replace(held, blobs={key: data for key, data in held.blobs.items() if key != name})

    return touch


LIES: list[tuple[str, dict[str, Any], str, tuple[str, str]]] = [
    ("other-rules", {"policy": lying(other_rules)}, "policy", ("failed", "verify.policy_replay")),
    ("a-layer-left-out", {"policy": lying(fewer_layers)}, "policy", ("failed", "verify.policy_replay")),
    ("score", {"objective": objective(score="1.5")}, "plan-choice", ("failed", "verify.score")),
    ("term", {"objective": objective(terms={"net": "1"})}, "plan-choice", ("failed", "verify.score")),
    ("fewer-candidates", {"considered": receipt.Considered(root="2" * 64, count=1, selected_index=0)},
     "plan-choice", ("failed", "verify.ranking")),
    ("not-in-the-set", {"considered": receipt.Considered(root="2" * 64, count=3, selected_index=3)},
     "plan-choice", ("failed", "verify.considered")),
    ("another-s-place", {"considered": receipt.Considered(root="2" * 64, count=3, selected_index=1)},
     "plan-choice", ("failed", "verify.ranking")),
]  # fmt: skip


@pytest.mark.parametrize("case", LIES, ids=[case[0] for case in LIES])
async def test_a_lie_is_exposed(
    federation: Federation, tmp_path: Path, case: tuple[str, dict[str, Any], str, tuple[str, str]]
) -> None:
    _, changes, name, wanted = case
    report = await judged(federation, tmp_path, **changes)
    assert claim(report, name) == wanted
    assert report.exit_code == 1


async def test_decided_over_other_hardware(
    federation: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The facts say more than the evidence in the same bundle proves."""
    monkeypatch.setitem(globals(), "SUBJECT", cloud(simulated=False, assurance=3))
    report = await judged(federation, tmp_path)
    assert claim(report, "policy") == ("failed", "verify.policy_facts")


async def test_decided_for_another_provider(
    federation: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from schemas.policy.tests.cases import hyper

    monkeypatch.setitem(globals(), "SUBJECT", hyper())
    assert claim(await judged(federation, tmp_path), "policy") == ("failed", "verify.policy_facts")


async def test_decided_under_rules_that_the_charter_does_not_name(tmp_path: Path) -> None:
    other = Federation(Domain.make(CLINIC), Domain.make(CLOUD, (platform(),)), policy_digest="9" * 64)
    other.publish()
    assert claim(await judged(other, tmp_path), "policy") == ("failed", "verify.policy_pinned")


async def test_without_material_it_stays_a_word(federation: Federation, tmp_path: Path) -> None:
    word = (f"asserted-by({CLINIC})", None)
    report = await judged(federation, tmp_path, without_facts())
    assert claim(report, "policy") == word
    report = await judged(federation, tmp_path, lambda held: replace(held, policies=()))
    assert claim(report, "policy") == word
    report = await judged(federation, tmp_path, lambda held: replace(held, blobs={}))
    assert claim(report, "plan-choice") == word


async def test_a_better_plan_that_was_passed_over_is_said(federation: Federation, tmp_path: Path) -> None:
    """Number 1 of 2 won: it is scored again, but that number 0 made no offer is the broker's word."""
    second = receipt.Objective(
        name="J", version="1", digest="0" * 64, score=f"{SECOND.score:f}",
        terms=receipt.Terms(**{name: f"{value:f}" for name, value in SECOND.terms.items()}),
    )  # fmt: skip
    report = await judged(
        federation,
        tmp_path,
        objective=second,
        considered=receipt.Considered(root="2" * 64, count=3, selected_index=1),
        plan=receipt.Plan(digest="3" * 64, id="p", domain="hyper.us", nodes=[]),
    )
    assert claim(report, "plan-choice") == (f"asserted-by({CLINIC})", None)
    assert BEST.score < SECOND.score
