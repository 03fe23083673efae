"""Every problem has one status, one word and OpenAI's shape, and belongs to the house's errors."""

from __future__ import annotations

import json

import pytest

from broker.problems import (
    PROBLEMS,
    Deadline,
    Defect,
    Forbidden,
    Infeasible,
    Invalid,
    NotFound,
    RequestProblem,
    Shed,
    Unauthenticated,
    Unavailable,
    Upstream,
    problem_of,
)
from schemas.descriptors.extension import InvalidField
from schemas.errors import ComityError, Refused, Undecided, Unreadable

NO_PLAN = Infeasible("no plan", binding=[], eliminated={}, best_achievable={}, smallest_relaxation=None)
EXAMPLES: list[tuple[RequestProblem, int, str]] = [
    (Invalid("request.body", "body: not JSON", param="body"), 400, "invalid"),
    (Unauthenticated("auth.key", "unknown"), 401, "unauthenticated"),
    (Forbidden("auth.tenant", "not yours"), 403, "forbidden"),
    (NotFound("receipt.unknown", "none"), 404, "not_found"),
    (NO_PLAN, 409, "infeasible"),
    (Shed("broker.queue_full", "full", retry_after_ms=1), 429, "shed"),
    (Upstream("stream.lost", "gone"), 502, "upstream"),
    (Unavailable("broker.draining", "stopping"), 503, "unavailable"),
    (Deadline("request.deadline", "late"), 504, "deadline"),
    (Defect("broker.defect", "ours"), 500, "internal"),
]


def test_all_problems_are_listed() -> None:
    assert {type(problem) for problem, _, _ in EXAMPLES} == set(PROBLEMS)


@pytest.mark.parametrize(("problem", "status", "word"), EXAMPLES)
def test_status_word_and_shape(problem: RequestProblem, status: int, word: str) -> None:
    assert (problem.status, problem.word) == (status, word)
    assert isinstance(problem, ComityError)
    error = json.loads(json.dumps(problem.body("r1")))["error"]
    assert set(error) == {"message", "type", "param", "code", "comity"}
    assert (error["code"], error["comity"]["code"]) == (word, problem.code)
    assert error["comity"]["request"] == "r1"
    assert error["message"] == problem.text


def test_kinds_are_those_of_the_house() -> None:
    assert isinstance(EXAMPLES[0][0], Unreadable)
    assert isinstance(EXAMPLES[4][0], Refused)
    assert isinstance(EXAMPLES[6][0], Undecided)
    assert [problem.exit_code for problem, _, _ in EXAMPLES] == [2, 1, 1, 1, 1, 3, 3, 3, 3, 70]


def test_headers_that_clients_act_on() -> None:
    headers = {problem.word: problem.headers() for problem, _, _ in EXAMPLES}
    assert headers["infeasible"] == {"x-should-retry": "false"}
    assert headers["shed"] == {"Retry-After": "1"}
    assert headers["unavailable"] == {"Connection": "close"}
    assert "Bearer" in headers["unauthenticated"]["WWW-Authenticate"]


def test_any_exception_becomes_a_problem() -> None:
    field = problem_of(InvalidField("policy.residency", "no such place"))
    assert (field.word, field.param, field.code) == ("invalid", "policy.residency", "request.invalid_field")
    assert problem_of(EXAMPLES[4][0]) is EXAMPLES[4][0]
    assert problem_of(TimeoutError()).word == "deadline"
    assert problem_of(Refused("bus.absent", "nobody serves it")).word == "upstream"
    defect = problem_of(ValueError("the prompt"))
    assert defect.word == "internal"
    assert "prompt" not in json.dumps(defect.body())
