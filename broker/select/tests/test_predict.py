from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from broker.select.predict import LEARNED_S, WAIT_S, Observed, Predictor, Speed, advertised, predict
from broker.select.tests.cases import cell, request

NOW_S = 1_780_000_000.0
RUN = Observed(input_tokens=900, output_tokens=70, queue_ms=0, prefill_ms=5_000, decode_ms=1_000)


def test_bands_are_believed_until_something_was_measured() -> None:
    predictor, one = Predictor(), cell()
    assert predictor.speed("d.example", one, NOW_S) == advertised(one)
    predictor.observe("d.example", one, RUN, NOW_S)
    speed = predictor.speed("d.example", one, NOW_S)
    assert speed == Speed(Decimal("180.000"), Decimal("70.000"), Decimal(0), samples=1)
    assert predictor.speed("other.example", one, NOW_S) == advertised(one)


def test_errors_shrink_while_it_learns() -> None:
    """I-48."""
    predictor, one = Predictor(), cell(decode_tps=1_000)
    seen = []
    for _ in range(12):
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
    assert predictor.speed("d.example", one, NOW_S + LEARNED_S).decode_tps == 70
    later = predictor.speed("d.example", one, NOW_S + LEARNED_S + 1)
    assert later == replace(advertised(one), queue_ms=Decimal(9))
