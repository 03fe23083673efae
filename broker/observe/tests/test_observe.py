"""What is observed is bounded, belongs to someone, and never quotes what was handled."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.context import Context

from broker.observe import Metrics, Observability, log_fields
from broker.observe.metrics import MAX_ANSWERS, MAX_RULES
from broker.observe.spans import step
from broker.observe.traces import BROKER, MAX_SPANS_PER_TRACE, REQUEST, TENANT
from broker.starting.config import Observe
from federation.observe.logs import JsonLines
from federation.observe.spans import without_texts
from schemas.errors import ConfigurationError, Refused

CANARY = "canary-7f3a"


@pytest.fixture
def observed(tmp_path: Path) -> Iterator[Observability]:
    observability = Observability.start(
        Observe(traces_kept=3, spans=tmp_path / "spans.jsonl"), "clinic.de", logs=False
    )
    yield observability
    observability.stop()


def request(observed: Observability, name: str, tenant: str = "radiology", domain: str = "clinic.de") -> str:
    """One request's trace with a child that failed; returns its trace id."""
    attributes = {BROKER: domain, TENANT: tenant, REQUEST: name}
    with observed.tracer.start_as_current_span("request", Context(), attributes=attributes) as root:
        try:
            with trace.get_tracer("comity.broker").start_as_current_span("prove", attributes={"k": 1}):
                raise ValueError(CANARY)
        except ValueError:
            pass
        return f"{root.get_span_context().trace_id:032x}"


def test_a_trace_is_found_by_request_and_by_id_for_its_tenant(observed: Observability) -> None:
    trace_id = request(observed, "r1")
    found = observed.traces.find("radiology", "r1")
    assert found is not None
    assert found == observed.traces.find("radiology", trace_id)
    assert (found["trace"], found["complete"]) == (trace_id, True)
    spans: Any = found["spans"]
    assert [span["name"] for span in spans] == ["request", "prove"]
    assert spans[1]["parent"] == spans[0]["span"]
    assert spans[1]["errors"] == ["ValueError"]
    assert observed.traces.find("billing", "r1") is None
    assert observed.traces.find("billing", trace_id) is None
    assert observed.traces.find("radiology", "x" * 32) is None


def test_traces_of_other_brokers_in_this_process_are_not_ours(observed: Observability) -> None:
    trace_id = request(observed, "r1", domain="cloud.fr")
    assert observed.traces.find("radiology", trace_id) is None


def test_the_store_is_bounded(observed: Observability) -> None:
    for number in range(5):
        request(observed, f"r{number}")
    assert [number for number in range(5) if observed.traces.find("radiology", f"r{number}")] == [2, 3, 4]
    attributes = {BROKER: "clinic.de", TENANT: "radiology", REQUEST: "many"}
    with observed.tracer.start_as_current_span("request", Context(), attributes=attributes):
        for _ in range(MAX_SPANS_PER_TRACE + 10):
            observed.tracer.start_span("one").end()
    found = observed.traces.find("radiology", "many")
    assert found is not None
    spans: Any = found["spans"]
    assert len(spans) == MAX_SPANS_PER_TRACE


def test_no_span_leaves_with_an_exceptions_text(observed: Observability, tmp_path: Path) -> None:
    request(observed, "r1")
    text = (tmp_path / "spans.jsonl").read_text()
    assert [json.loads(line)["name"] for line in text.splitlines()] == ["prove", "request"]
    assert CANARY not in text
    assert CANARY not in json.dumps(observed.traces.find("radiology", "r1"))
    failed = next(span for span in next(iter(observed.traces._traces.values())) if span.name == "prove")
    assert CANARY in failed.to_json()
    assert CANARY not in without_texts(failed).to_json()
    assert oct((tmp_path / "spans.jsonl").stat().st_mode)[-3:] == "600"


def test_a_step_is_told_with_its_time_and_its_failure(observed: Observability) -> None:
    attributes = {BROKER: "clinic.de", TENANT: "radiology", REQUEST: "steps"}
    with observed.tracer.start_as_current_span("request", Context(), attributes=attributes) as root:
        with step("rank"):
            pass
        with pytest.raises(ValueError, match=CANARY), step("prove", domain="cloud.fr"):
            raise ValueError(CANARY)
        root.add_event("said", {"text": CANARY})
    found = observed.traces.find("radiology", "steps")
    assert found is not None
    spans: Any = found["spans"]
    rank, prove = spans[0]["steps"]
    assert (rank["name"], "failed" in rank, rank["took_us"] >= 0) == ("rank", False, True)
    assert (prove["name"], prove["domain"], prove["failed"]) == ("prove", "cloud.fr", "ValueError")
    assert CANARY not in json.dumps(found)
    kept = next(iter(observed.traces._traces.values()))[0]
    sent = without_texts(kept).to_json()
    assert "cloud.fr" in sent
    assert CANARY not in sent


def test_what_was_stopped_hears_nothing_more(observed: Observability) -> None:
    other = Observability.start(Observe(), "clinic.de", logs=False)
    other.stop()
    request(observed, "r1")
    assert other.traces.find("radiology", "r1") is None
    assert observed.traces.find("radiology", "r1") is not None


def test_an_exporter_that_is_not_installed_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="opentelemetry-exporter-otlp-proto-http"):
        Observability.start(Observe(otlp="http://127.0.0.1:4318/v1/traces"), "clinic.de", logs=False)


def test_a_span_file_that_cannot_be_written_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"observe\.spans"):
        Observability.start(Observe(spans=tmp_path / "file" / "spans"), "clinic.de", logs=False)


def test_answers_that_peers_name_are_bounded() -> None:
    """A border that refuses each call in other words makes no series of its own for each."""
    metrics = Metrics()
    metrics.offer("offer")
    for number in range(MAX_ANSWERS + 50):
        metrics.offer(f"bus.code{number}")
    metrics.offer("offer")
    page = metrics.exposition()[0].decode()
    assert page.count("comity_offers_total{") == MAX_ANSWERS + 1
    assert 'comity_offers_total{answer="offer"} 2.0' in page
    assert 'comity_offers_total{answer="other"} 51.0' in page


def test_rules_that_peers_name_are_bounded() -> None:
    metrics = Metrics()
    metrics.denied((f"RULE-{number}" for number in range(MAX_RULES + 50)), by_peer=True)
    metrics.denied(["RES-001-inside-residency"])
    text = metrics.exposition()[0].decode()
    assert 'comity_policy_denials_total{rule="other"} 50.0' in text
    assert 'comity_policy_denials_total{rule="RES-001-inside-residency"} 1.0' in text
    assert text.count("comity_policy_denials_total{") == MAX_RULES + 2


def test_every_measure_shows() -> None:
    metrics = Metrics()
    metrics.answered(total_s=1.0, first_s=0.1, output_tokens=10)
    metrics.offer("NO_CAPACITY")
    metrics.hold("released")
    metrics.attestation_age(61)
    metrics.decided(0.0004, 7)
    metrics.decided(0.4, 7000)
    text = metrics.exposition()[0].decode()
    for line in (
        "comity_tpot_seconds_sum 0.1",
        'comity_offers_total{answer="NO_CAPACITY"} 1.0',
        'comity_holds_total{end="released"} 1.0',
        'comity_attestation_age_seconds_bucket{le="90.0"} 1.0',
        'comity_decision_seconds_count{candidates="le_10"} 1.0',
        'comity_decision_seconds_count{candidates="more"} 1.0',
    ):
        assert line in text


def logged(error: Exception | None = None, **extra: object) -> dict[str, Any]:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    logger = logging.Logger("comity.test")
    logger.addHandler(handler)
    with log_fields(request="r1"), log_fields(negotiation="n1"):
        logger.info("offer %s", "held", extra=extra, exc_info=error)
    line: dict[str, Any] = json.loads(stream.getvalue())
    return line


def test_a_log_line_says_what_and_for_whom() -> None:
    line = logged(domain="cloud.fr")
    assert (line["event"], line["request"], line["negotiation"]) == ("offer held", "r1", "n1")
    assert (line["level"], line["logger"], line["domain"]) == ("info", "comity.test", "cloud.fr")


def test_a_traceback_keeps_the_places_and_loses_foreign_words() -> None:
    def fail(error: Exception) -> dict[str, Any]:
        try:
            raise error
        except Exception as caught:
            return logged(caught)

    foreign, ours = fail(ValueError(CANARY)), fail(Refused("bus.absent", "nobody serves it"))
    assert CANARY not in json.dumps(foreign)
    assert foreign["error"] == "ValueError"
    assert foreign["at"][-1].endswith(" fail")
    assert ours["error"] == "bus.absent: nobody serves it"


def test_what_predictions_were_off_by_is_published_by_term_and_only_once_it_was_measured() -> None:
    metrics, errors = Metrics(), dict[str, Decimal]()
    metrics.publish_errors(lambda: errors)
    assert b"comity_prediction_error_ratio{" not in metrics.exposition()[0]
    errors["decode"] = Decimal("0.375")
    assert b'comity_prediction_error_ratio{term="decode"} 0.375' in metrics.exposition()[0]
