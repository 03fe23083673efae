"""Golden decisions, each term of J, ties, herds, and replay."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest

from broker.select.cost import Inputs, Stage, Terms, Weights, staged, terms
from broker.select.predict import Predictor
from broker.select.rank import MAX_RECORDED, Plan, RankRecord, StoredPlan, rank, record, replay
from broker.select.tests.cases import SECONDS, cell, cut, listing, request, three
from schemas.canonical import Json, read_json
from schemas.descriptors.capability import Rates
from schemas.descriptors.request import RequestDescriptor
from schemas.errors import Unreadable

FREE = Rates(input=0, output=0, cached=0)
HURRIED = Weights(money=Decimal("0.1"))
THRIFTY = Weights(queue=Decimal("0.05"), execution=Decimal("0.05"), money=Decimal(10))


def first(asked: RequestDescriptor, found: Any, weights: Weights | None = None, **more: Any) -> str:
    return rank(asked, found.candidates, weights or Weights(), **more)[0].domain


def ordered(found: Any) -> list[Plan]:
    return rank(request(), found.candidates, Weights())


def two(near: Any, far: Any, *, rtt_ms: int = 20, **more: Any) -> Any:
    """clinic.de next door, hyper.us down the road."""
    listed = [listing("clinic.de", "DE", near), listing("hyper.us", "US", far)]
    return cut(request(), listed, rtts_ms={"hyper.us": rtt_ms}, **more)


def test_ten_milliseconds_of_network_beat_a_queue_of_a_hundred() -> None:
    """T-11."""
    near, far, predictor = cell(), cell(jur="US"), Predictor()
    idle = {one.domain: one.score for one in ordered(two(near, far, rtt_ms=10))}
    assert idle["clinic.de"] < idle["hyper.us"]
    predictor.observe_queue("clinic.de", near, 100, SECONDS)
    assert first(request(), two(near, far, rtt_ms=10, predictor=predictor)) == "hyper.us"


def test_a_far_fast_chip_against_a_near_slow_one_flips_with_cost_and_with_the_slo() -> None:
    """T-12."""
    near = cell(decode_tps=20, rates=Rates(input=100, output=300, cached=0))
    far = cell(jur="US", decode_tps=200, rates=Rates(input=5_000, output=50_000, cached=0))
    found = two(near, far, rtt_ms=150)
    assert first(request(), found, HURRIED) == "hyper.us"
    assert first(request(), found, THRIFTY) == "clinic.de"
    hurried = request({"slo": {"tpot_ms": 20}})
    cut_by_slo = cut(hurried, [listing("clinic.de", "DE", near), listing("hyper.us", "US", far)])
    assert first(hurried, cut_by_slo, THRIFTY) == "hyper.us"


def test_a_public_question_goes_where_it_is_clearly_cheaper() -> None:
    """DESIGN 9.1, with default weights."""
    cheap = cell(jur="US", rates=Rates(input=500, output=1_500, cached=50))
    for number in range(50):
        asked = request({"request_id": f"r{number}"})
        assert first(asked, cut(asked, three(hyper=cheap))) == "hyper.us"


SAME: dict[str, Any] = {"price": 100, "rtt_ms": 60}
WORSE: dict[str, dict[str, Any]] = {
    "network": {"rtt_ms": 500},
    "queue": {"queue_ms": "500"},
    "execution": {"decode_tps": "50"},
    "state": {"cold": True},
    "load": {"headroom": "1"},
    "policy": {"assurance": 1},
    "money": {"price": 600},
}


@pytest.mark.parametrize("term", WORSE)
def test_each_term_decides_one_scenario(term: str) -> None:
    """I-43: hyper.us is worse in this term alone and clearly better in one other; the term turns it."""
    better = {"price": 1} if term == "network" else {"rtt_ms": 1}
    weights = Weights(policy=Decimal(100))
    near = plan(key="clinic.de", **SAME)
    far = plan(key="hyper.us", **{**SAME, **better, **WORSE[term]})
    assert winner([near, far], weights) == "clinic.de"
    assert winner([near, far], replace(weights, **{term: Decimal(0)})) == "hyper.us"


def winner(plans: list[Inputs], weights: Weights, seed: str = "s") -> str:
    stored = RankRecord(
        seed=seed,
        weights=weights.as_json(),
        plans=[StoredPlan(inputs=one, stale=False) for one in plans],
    )
    return replay(stored)[0][0]


def plan(**changes: Any) -> Inputs:
    values: dict[str, Any] = {
        "key": "d.example chat.small/tiny DE snp",
        "rtt_ms": 10,
        "body_bytes": 125_000,
        "queue_ms": "5",
        "fresh_tokens": 100,
        "output_tokens": 50,
        "prefill_tps": "500",
        "decode_tps": "100",
        "cold": False,
        "move_ms": "0",
        "headroom": "5",
        "assurance": 3,
        "preferred": True,
        "price": 42,
    }
    return Inputs(**(values | changes))


def test_every_term_has_its_unit_and_its_value() -> None:
    parts = terms(plan())
    assert parts.as_json() == {
        "network": "20.000",  # 10 ms of road and 125,000 bytes at 12,500 a millisecond
        "queue": "5",
        "execution": "700.000",  # 200 ms of prompt, 500 ms of answer
        "state": "0",
        "load": "20.000",  # half loaded
        "policy": "1",
        "money": "42",
    }
    assert parts.score(Weights()) == Decimal("788.000")
    assert terms(plan(headroom="0")).load == 2_000
    assert terms(plan(cold=True, move_ms="7")).state == 5_007
    assert terms(plan(preferred=False)).policy == 21
    assert terms(plan(rtt_ms=0)).network == 0


def test_reuse_is_counted_once() -> None:
    asked = request()
    found = cut(asked, [listing("clinic.de", "DE")], reusable_tokens={"clinic.de": 100})
    (ranked,) = rank(asked, found.candidates, Weights())
    assert ranked.inputs.fresh_tokens == asked.input_tokens - 100
    assert (asked.input_tokens, ranked.candidate.price) == (108, 318)  # 8 new, 100 cached, 100 out


def test_load_rises_convexly() -> None:
    loads = [terms(plan(headroom=str(headroom))).load for headroom in (10, 8, 5, 2, 1)]
    steps = [after - before for before, after in pairwise(loads)]
    assert steps == sorted(steps)
    assert loads[0] == 0


def test_ties_go_by_name_and_near_equals_are_drawn_by_headroom_from_the_request_id() -> None:
    listed = [listing(f"d{number}.example", "DE") for number in range(4)]
    listed.append(listing("e.example", "DE", cell(headroom=5)))
    rtts = {one.domain: 10 for one in listed}
    counts: dict[str, int] = {}
    weights = Weights(load=Decimal(0))
    for number in range(400):
        asked = request({"request_id": f"r{number}"})
        found = cut(asked, listed, rtts_ms=rtts)
        order = [ranked.domain for ranked in rank(asked, found.candidates, weights)]
        again = [ranked.domain for ranked in rank(asked, tuple(reversed(found.candidates)), weights)]
        assert order == again
        assert len(set(order)) == 5
        counts[order[0]] = counts.get(order[0], 0) + 1
    assert set(counts) == {one.domain for one in listed}
    assert counts["e.example"] < min(counts[f"d{number}.example"] for number in range(4))


def test_a_clearly_cheaper_plan_is_never_drawn_against_a_dearer_one() -> None:
    slow = {"prefill_tps": "20", "decode_tps": "20"}
    for number in range(40):
        plans = [plan(key="clinic.de", price=60, **slow), plan(key="hyper.us", price=40, **slow)]
        assert winner(plans, Weights(), seed=f"r{number}") == "hyper.us"
        alike = [plan(key="clinic.de", price=41, **slow), plan(key="hyper.us", price=40, **slow)]
        assert winner(alike, Weights(), seed=f"r{number}") in ("clinic.de", "hyper.us")
    drawn = {winner(alike, Weights(), seed=f"r{number}") for number in range(40)}
    assert drawn == {"clinic.de", "hyper.us"}


def test_a_stale_summary_ranks_after_every_fresh_one() -> None:
    dear = cell(jur="FR", rates=Rates(input=90_000, output=90_000, cached=0))
    listed = [
        listing("cloud.fr", "FR", dear),
        listing("hyper.us", "US", cell(jur="US", rates=FREE), iat=1_780_271_960),
    ]
    found = cut(request(), listed)
    assert [candidate.stale for candidate in found.candidates] == [False, True]
    assert first(request(), found) == "cloud.fr"


def test_a_tenants_preference_grades_allowed_plans_only() -> None:
    found = cut(request(), three())
    assert (
        first(request(), found, Weights(policy=Decimal(50)), preferred=frozenset({"cloud.fr"})) == "cloud.fr"
    )
    strict = cut(request({"policy": {"data_class": "internal", "residency": ["premises"]}}), three())
    ranked = rank(
        request(), strict.candidates, Weights(policy=Decimal(10**6)), preferred=frozenset({"hyper.us"})
    )
    assert [one.domain for one in ranked] == ["clinic.de"]


def test_a_stored_decision_replays_bit_for_bit() -> None:
    cheap = cell(jur="US", rates=Rates(input=990, output=2_999, cached=0), headroom=5)
    for number in range(20):
        asked = request({"request_id": f"r{number}"})
        plans = rank(asked, cut(asked, three(hyper=cheap)).candidates, Weights())
        stored = record(asked, plans, Weights()).write()
        assert b"." in stored
        read_json(stored)  # strict: no float anywhere
        assert replay(RankRecord.read(stored)) == [(one.inputs.key, one.score) for one in plans]


@pytest.mark.parametrize(
    ("name", "value"), [("queue_ms", "1e3"), ("price", "4"), ("surprise", 1), ("assurance", 5), ("cold", 0)]
)
def test_a_record_that_is_not_exact_is_unreadable(name: str, value: Json) -> None:
    stored = RankRecord(seed="s", weights=Weights().as_json(), plans=[StoredPlan(inputs=plan(), stale=False)])
    data = stored.as_json()
    data["plans"][0]["inputs"][name] = value  # type: ignore[index, call-overload]
    with pytest.raises(Unreadable, match=name):
        RankRecord.from_json(data)


def test_a_domain_that_lists_many_plans_draws_once() -> None:
    """Sixty-four names for one offer were sixty-four lots in the draw."""
    crowd = listing("crowd.example", "DE", *[cell(variant=f"v{number}") for number in range(64)])
    found = cut(request(), [crowd, listing("single.example", "DE")], rtts_ms={})
    firsts = []
    for number in range(200):
        asked = request().model_copy(update={"request_id": f"request-{number}"})
        firsts.append(rank(asked, found.candidates, Weights())[0].domain)
    assert 60 < firsts.count("single.example") < 140


def test_more_equal_plans_than_a_record_holds_replay_all_the_same() -> None:
    """The draw was among all of them, the record's among those it holds: an honest broker seemed to cheat."""
    listed = [listing(f"d{number}.example", "DE") for number in range(MAX_RECORDED + 50)]
    asked = request()
    plans = rank(asked, cut(asked, listed, rtts_ms={}).candidates, Weights())
    stored = record(asked, plans, Weights())
    assert len(stored.plans) == MAX_RECORDED
    assert replay(stored) == [(one.inputs.key, one.score) for one in plans[:MAX_RECORDED]]


def test_nobody_is_an_empty_order() -> None:
    assert rank(request(), [], Weights()) == []


def test_a_staged_plan_takes_its_critical_path_and_costs_its_sum() -> None:
    def stage(execution: int, money: int, *needs: int) -> Stage:
        zero = Decimal(0)
        return Stage(Terms(zero, zero, Decimal(execution), zero, zero, zero, Decimal(money)), needs)

    both = staged([stage(100, 1), stage(300, 2), stage(50, 4, 0, 1)])
    assert both.execution == 350
    assert both.money == 7
    assert staged([stage(100, 1)]).execution == 100
    with pytest.raises(ValueError, match="earlier"):
        staged([stage(1, 1, 1), stage(1, 1)])
