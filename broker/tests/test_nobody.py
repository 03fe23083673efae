"""Everybody who was called refused: which typed end the application sees, and what it is told."""

from __future__ import annotations

import pytest

from broker.placing.negotiate import Declined
from broker.placing.refusals import LATER, RETRY_MS, Fell, nobody
from broker.problems import Infeasible, RequestProblem, Shed, Upstream
from broker.select.cost import Weights
from broker.select.rank import Plan, rank
from broker.select.tests.cases import cut, request, three

RULE = "PRV-001-no-strangers"
ASKED = request()
PLANS: dict[str, Plan] = {
    plan.domain: plan for plan in rank(ASKED, cut(ASKED, three()).candidates, Weights())
}
DOMAINS = ["clinic.de", "cloud.fr", "hyper.us"]


def refused(domain: str, code: str, *rules: str, signed: bool = True, retry_ms: int = 0) -> Fell:
    return Fell.of(PLANS[domain], Declined(domain, code, rules, retry_ms, b"signed" if signed else None))


def ended(*fell: Fell) -> RequestProblem:
    return nobody(ASKED, DOMAINS, fell)


def test_a_veto_by_every_provider_is_a_409_that_names_each_ones_rule() -> None:
    """It ended as a 502, as though something were broken that a second try might mend."""
    problem = ended(*(refused(domain, "POLICY", RULE, "PRV-002-x") for domain in DOMAINS))
    assert isinstance(problem, Infeasible)
    assert (problem.status, problem.headers()["x-should-retry"]) == (409, "false")
    assert problem.detail["binding"] == [RULE]
    assert problem.detail["eliminated"] == {RULE: 3, "PRV-002-x": 3}
    rejected = problem.detail["rejected"]
    assert isinstance(rejected, list)
    assert rejected[0] == {
        "domain": "clinic.de",
        "plan": PLANS["clinic.de"].inputs.key,
        "rules": [RULE, "PRV-002-x"],
    }


@pytest.mark.parametrize("code", sorted(LATER))
@pytest.mark.parametrize("other", ["NO_CAPACITY", "RATE", "DRAINING", "POLICY"])
def test_one_that_may_serve_it_later_makes_it_a_429(code: str, other: str) -> None:
    problem = ended(refused("clinic.de", code, retry_ms=7_000), refused("cloud.fr", other, retry_ms=900))
    assert isinstance(problem, Shed)
    assert problem.headers() == {"Retry-After": "7"}


def test_where_nobody_says_when_there_is_a_time_all_the_same() -> None:
    assert ended(refused("clinic.de", "DRAINING")).retry_after_ms == RETRY_MS


@pytest.mark.parametrize(
    "broken",
    [
        refused("hyper.us", "bus.nobody", signed=False),
        refused("hyper.us", "POLICY", RULE, signed=False),
        refused("hyper.us", "NO_CAPACITY", signed=False),
        refused("hyper.us", "UNKNOWN_CAPABILITY"),
        refused("hyper.us", "BUDGET"),
        Fell(PLANS["hyper.us"], ("attempt.node_swapped",)),
    ],
    ids=["silent", "a veto without a signature", "full without one", "unknown", "price", "another node"],
)
@pytest.mark.parametrize("code", ["POLICY", "NO_CAPACITY"])
def test_one_failure_among_refusals_is_upstream_with_everybodys_reason(broken: Fell, code: str) -> None:
    problem = ended(refused("clinic.de", code, RULE), refused("cloud.fr", code, RULE), broken)
    assert isinstance(problem, Upstream)
    assert problem.detail["declined"] == {
        "clinic.de": [RULE],
        "cloud.fr": [RULE],
        "hyper.us": list(broken.reasons),
    }


def test_a_domain_that_was_not_asked_vetoed_nothing() -> None:
    problem = ended(refused("clinic.de", "POLICY", RULE), refused("cloud.fr", "POLICY", RULE))
    assert isinstance(problem, Upstream)


def test_both_plans_of_a_domain_keep_their_reasons() -> None:
    problem = ended(refused("clinic.de", "POLICY", RULE), refused("clinic.de", "BUDGET"))
    assert problem.detail["declined"] == {"clinic.de": [RULE, "BUDGET"]}


def test_long_words_of_peers_stay_within_an_error() -> None:
    problem = ended(*(refused(domain, "POLICY", *[f"{domain}-{'x' * 100}"] * 64) for domain in DOMAINS))
    assert len(problem.text) <= 512
