from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from broker.select import predict as predicting
from broker.select.cost import Weights
from broker.select.predict import (
    LEARNED_S,
    LEAST_ANSWER,
    LEAST_PROMPT,
    MAX_ERROR,
    OUTLIER,
    WAIT_S,
    Observed,
    Predictor,
    Speed,
    advertised,
    predict,
)
from broker.select.rank import rank
from broker.select.tests.cases import SECONDS, cell, cut, request, three

NOW_S = 1_780_000_000.0
RUN = Observed(input_tokens=900, output_tokens=70, queue_ms=0, prefill_ms=5_000, decode_ms=1_000)


def test_bands_are_believed_until_something_was_measured() -> None:
    predictor, one = Predictor(), cell()
    assert predictor.speed("d.example", one, NOW_S) == advertised(one)
    predictor.observe("d.example", one, RUN, NOW_S)
    speed = predictor.speed("d.example", one, NOW_S)
    assert speed == Speed(Decimal("340.000"), Decimal("85.000"), Decimal(0), samples=1)  # half of the way
    assert predictor.speed("other.example", one, NOW_S) == advertised(one)


def test_errors_shrink_while_it_learns() -> None:
    """I-48."""
    predictor, one = Predictor(), cell(decode_tps=1_000)
    seen = []
    for _ in range(30):
        predictor.observe("d.example", one, RUN, NOW_S)
        seen.append(predictor.errors()["decode"])
    assert seen[0] > 1
    assert seen[-1] < Decimal("0.6")
    assert seen == sorted(seen, reverse=True)


def test_a_run_without_tokens_or_time_teaches_nothing() -> None:
    predictor, one = Predictor(), cell()
    predictor.observe("d.example", one, Observed(0, 0, 0, 0, 0), NOW_S)
    speed = predictor.speed("d.example", one, NOW_S)
    assert speed.prefill_tps == 500
    assert speed.decode_tps == 100


def test_round_trips_are_smoothed_and_rounded_up() -> None:
    predictor = Predictor()
    predictor.observe_rtt("d.example", Decimal("10.2"))
    assert predictor.rtts_ms() == {"d.example": 11}
    predictor.observe_rtt("d.example", Decimal("18.2"))
    assert predictor.rtts_ms() == {"d.example": 13}  # 12.2
    assert predictor.errors()["network"] > 0


def test_a_prediction_adds_road_wait_prompt_and_answer() -> None:
    one = cell(cold=True)
    asked = request({"slo": {"percentile": 50}})
    said = predict(asked, one, advertised(one), rtt_ms=20)
    assert said.tpot_ms == 10
    assert said.ttft_ms == Decimal("20.080") + 216 + 5_000
    assert said.total_ms == said.ttft_ms + 1_000
    assert said.as_json()["tpotMs"] == "10.000"


def test_a_wait_that_was_stated_once_does_not_shut_a_domain_out_for_ever() -> None:
    """A request with a response time was refused for good after one offer of a long wait."""
    predictor, one = Predictor(), cell()
    predictor.observe_queue("d.example", one, 60_000, NOW_S)
    assert predictor.speed("d.example", one, NOW_S + WAIT_S).queue_ms == 60_000
    assert predictor.speed("d.example", one, NOW_S + WAIT_S + 1) == advertised(one)


def test_a_speed_that_was_measured_grows_old_and_a_wait_does_not_renew_it() -> None:
    predictor, one = Predictor(), cell()
    predictor.observe("d.example", one, RUN, NOW_S)
    predictor.observe_queue("d.example", one, 9, NOW_S + LEARNED_S)
    assert predictor.speed("d.example", one, NOW_S + LEARNED_S).decode_tps == 85
    later = predictor.speed("d.example", one, NOW_S + LEARNED_S + 1)
    assert later == replace(advertised(one), queue_ms=Decimal(9))


def run(decode_tps: int = 100, **changes: int) -> Observed:
    """Two hundred tokens at this rate, after a prompt of a thousand in two seconds: as `cell` says."""
    values = {"input_tokens": 1_000, "output_tokens": 200, "queue_ms": 0, "prefill_ms": 2_000}
    return Observed(**{**values, "decode_ms": 200_000 // decode_tps, **changes})


def decode_after(*runs: Observed) -> Decimal:
    predictor, one = Predictor(), cell()
    for each in runs:
        predictor.observe("d.example", one, each, NOW_S)
    return predictor.speed("d.example", one, NOW_S).decode_tps


def winner(predictor: Predictor) -> str:
    """Of three domains with equal words, where clinic.de and hyper.us say that they are three times as fast
    as cloud.fr: with the same prices, speed decides."""
    fast = {"decode_tps": 300, "prefill_tps": 1_500}
    listed = three(clinic=cell(jur="DE", cold=True), hyper=cell(jur="US", **fast), cloud=cell(jur="FR"))
    asked = request(max_tokens=200)
    found = cut(asked, listed, predictor=predictor)
    return rank(asked, found.candidates, Weights())[0].domain


def test_a_domain_that_says_thrice_its_speed_is_ranked_down_after_its_runs() -> None:
    """D, liars: it keeps a third of its word; cloud.fr keeps all of a smaller one, and a bit more."""
    predictor, boast = Predictor(), cell(jur="US", decode_tps=300, prefill_tps=1_500)
    assert winner(predictor) == "hyper.us"
    for _ in range(20):
        predictor.observe("hyper.us", boast, run(decode_tps=90, prefill_ms=2_200), SECONDS)
    assert winner(predictor) == "cloud.fr"
    assert predictor.errors().keys() >= {"prefill", "decode"}
    later = predictor.speed("hyper.us", boast, SECONDS + LEARNED_S + 1)
    assert later == advertised(boast), "and it may show itself anew"


def test_a_peer_that_slows_one_consumer_is_found_out_by_that_one_alone() -> None:
    slowed, other, boast = Predictor(), Predictor(), cell(jur="US", decode_tps=300, prefill_tps=1_500)
    for _ in range(20):
        slowed.observe("hyper.us", boast, run(decode_tps=90, prefill_ms=2_200), SECONDS)
        other.observe("hyper.us", boast, run(decode_tps=300, prefill_ms=666), SECONDS)
    assert (winner(slowed), winner(other)) == ("cloud.fr", "hyper.us")


def test_what_one_capability_of_one_domain_did_says_nothing_of_others() -> None:
    predictor, one, other = Predictor(), cell(), cell(variant="large-q8")
    predictor.observe("d.example", one, run(decode_tps=10), NOW_S)
    assert predictor.speed("d.example", other, NOW_S) == advertised(other)
    assert predictor.speed("e.example", one, NOW_S) == advertised(one)


def test_no_run_makes_a_domain_faster_than_it_says() -> None:
    """A border that holds an answer back and sends it in one burst has an infinite rate."""
    assert decode_after(run(decode_tps=20_000), run(decode_tps=20_000)) == 100
    assert decode_after(run(decode_ms=0)) == 100


def test_one_outlier_moves_little_and_is_soon_forgotten() -> None:
    once = decode_after(*[run()] * 10, run(decode_ms=86_400_000))
    assert once == 100 - Decimal("0.25") * (100 - Decimal(100) / OUTLIER)
    assert decode_after(run(decode_ms=86_400_000)) > 60
    assert decode_after(*[run()] * 10, run(decode_ms=86_400_000), *[run()] * 10) > 98


def test_a_flapping_peer_stands_between_its_two_speeds() -> None:
    settled = decode_after(*[run(decode_tps=25), run(decode_tps=100)] * 50)
    assert 50 < settled < 85
    assert settled - decode_after(*[run(decode_tps=25), run(decode_tps=100)] * 50, run(decode_tps=25)) < 15


def test_the_slowest_of_runs_leave_a_speed_to_divide_by() -> None:
    assert decode_after(*[run(decode_ms=86_400_000)] * 200) > 0


@pytest.mark.parametrize(
    "short",
    [
        {"output_tokens": LEAST_ANSWER - 1, "decode_ms": 10_000},
        {"output_tokens": -5, "decode_ms": 10_000},
        {"decode_ms": -1},
        {"input_tokens": LEAST_PROMPT - 1, "prefill_ms": 60_000},
        {"input_tokens": -5, "prefill_ms": 60_000},
        {"prefill_ms": -1},
        {"queue_ms": -1},
    ],
    ids=lambda short: next(iter(short)),
)
def test_too_little_and_less_than_nothing_teach_nothing(short: dict[str, int]) -> None:
    predictor, one = Predictor(), cell()
    predictor.observe("d.example", one, run(**short), NOW_S)
    assert replace(predictor.speed("d.example", one, NOW_S), samples=0) == advertised(one)


@pytest.mark.parametrize("odd", ["NaN", "sNaN", "Infinity", "-1"])
def test_a_round_trip_that_is_no_time_is_left_out(odd: str) -> None:
    predictor = Predictor()
    predictor.observe_rtt("d.example", Decimal(odd))
    assert predictor.rtts_ms() == {}
    assert predictor.errors() == {}


def test_an_error_is_bounded() -> None:
    predictor, one = Predictor(), cell(decode_tps=100_000)
    predictor.observe("d.example", one, run(decode_tps=1), NOW_S)
    assert predictor.errors()["decode"] == MAX_ERROR


def test_the_table_is_bounded_and_who_was_longest_unseen_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refusing new ones instead would end all learning for good once it is full."""
    monkeypatch.setattr(predicting, "MAX_TRACKED", 2)
    predictor, one = Predictor(), cell()
    for domain in ("a.example", "b.example", "a.example", "c.example"):
        predictor.observe(domain, one, run(decode_tps=50), NOW_S)
    known = [each for each in "abc" if predictor.speed(f"{each}.example", one, NOW_S).samples]
    assert known == ["a", "c"]
