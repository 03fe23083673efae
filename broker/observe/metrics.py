"""What a broker counts and measures, for Prometheus (routing.md 10).

Label values are words of ours, or rule ids and reason codes. Peers can name those too: they are bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

MAX_RULES: Final = 512  # distinct rule ids of peers; further ones are counted as `other`
MAX_ANSWERS: Final = 64  # distinct answers to calls, likewise: a refusal has six codes, a lost call some ten
SHORT_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
TOKEN_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2)
DECISION_S: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 1)
AGE_S: Final = (5, 15, 30, 60, 90, 120, 180, 240, 300, 600, 1200)
CANDIDATE_BANDS: Final = (1, 3, 10, 30, 100, 300, 1000)


class Metrics:
    """One broker's registry. Cheap to call from the event loop; owned by `Observability`."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._requests = Counter(
            "comity_requests", "Requests by how they ended", ["outcome"], registry=registry
        )
        self._ttft = Histogram(
            "comity_ttft_seconds", "Time to first token", registry=registry, buckets=SHORT_S
        )
        self._tpot = Histogram(
            "comity_tpot_seconds", "Time per further output token", registry=registry, buckets=TOKEN_S
        )
        self._total = Histogram(
            "comity_request_seconds", "Whole requests that were answered", registry=registry, buckets=SHORT_S
        )
        self.running = Gauge("comity_running", "Requests that run now", registry=registry)
        self.queued = Gauge("comity_queued", "Requests that wait for a place", registry=registry)
        self._denials = Counter(
            "comity_policy_denials", "Candidates denied, by rule", ["rule"], registry=registry
        )
        self._infeasible = Counter("comity_infeasible", "Requests that no plan allowed", registry=registry)
        self._offers = Counter(
            "comity_offers", "Calls for offers by what came back", ["answer"], registry=registry
        )
        self._holds = Counter(
            "comity_holds", "Holds on our nodes by what became of them", ["end"], registry=registry
        )
        self._acknowledged = Counter(
            "comity_acknowledgements",
            "Executions of ours by what their consumers said of them",
            ["status"],
            registry=registry,
        )
        self._age = Histogram(
            "comity_attestation_age_seconds",
            "Age of the evidence that a placement relied on",
            registry=registry,
            buckets=AGE_S,
        )
        self._decision = Histogram(
            "comity_decision_seconds",
            "Filter, rank and decide, by number of candidates",
            ["candidates"],
            registry=registry,
            buckets=DECISION_S,
        )
        self._rules, self._answers = _Known(MAX_RULES), _Known(MAX_ANSWERS)

    def ended(self, outcome: str) -> None:
        """A request ended: `ok`, `cancelled`, or the word of a problem."""
        self._requests.labels(outcome).inc()

    def answered(self, *, total_s: float, first_s: float | None, output_tokens: int) -> None:
        """A complete answer: seconds in all and to its first token."""
        self._total.observe(total_s)
        if first_s is not None:
            self._ttft.observe(first_s)
            if output_tokens > 1:
                self._tpot.observe((total_s - first_s) / (output_tokens - 1))

    def denied(self, rules: Iterable[str], *, by_peer: bool = False) -> None:
        """A candidate was rejected by these rules; our own are few, and always stand under their names."""
        for rule in rules:
            self._denials.labels(self._rules.label(rule) if by_peer else rule).inc()

    def infeasible(self) -> None:
        """A request was refused because no plan is allowed."""
        self._infeasible.inc()

    def offer(self, answer: str) -> None:
        """One call for offers: `offer`, or the code of what came instead."""
        self._offers.labels(self._answers.label(answer)).inc()

    def hold(self, end: str) -> None:
        """One hold that we granted: `executed`, `released` or `expired`."""
        self._holds.labels(end).inc()

    def acknowledged(self, status: str) -> None:
        """What a consumer says of one Execution of ours: `agreed`, `disputed` or `timeout`."""
        self._acknowledged.labels(status).inc()

    def attestation_age(self, seconds: float) -> None:
        """The age of the evidence under one placement, seconds on our clock."""
        self._age.observe(seconds)

    def decided(self, seconds: float, candidates: int) -> None:
        """One decision took this long over this many candidates."""
        band = next((band for band in CANDIDATE_BANDS if candidates <= band), None)
        self._decision.labels("more" if band is None else f"le_{band}").observe(seconds)

    def publish_errors(self, errors: Callable[[], Mapping[str, Decimal]]) -> None:
        """How far predictions of J's terms were off lately, by term, as it is whenever somebody looks."""
        self.registry.register(_Errors(errors))

    def exposition(self) -> tuple[bytes, str]:
        """The page and its content type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST


class _Errors(Collector):
    """Nothing is shown of a term that was never measured."""

    def __init__(self, errors: Callable[[], Mapping[str, Decimal]]) -> None:
        self._errors = errors

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(
            "comity_prediction_error_ratio",
            "Moving mean of |predicted - measured| / measured, by term",
            labels=["term"],
        )
        for term, error in self._errors().items():
            family.add_metric([term], float(error))
        yield family


class _Known:
    """The words that a label has had; once there are too many, each new one is `other`."""

    def __init__(self, most: int) -> None:
        self._words: set[str] = set()
        self._most = most

    def label(self, word: str) -> str:
        if word not in self._words and len(self._words) >= self._most:
            return "other"
        self._words.add(word)
        return word
