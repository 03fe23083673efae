"""Policy tags: stated in the body or in headers, added to and never removed, and refused by name."""

from __future__ import annotations

import json

import pytest
from openai import BadRequestError, ConflictError

from federation_tests.plan import CLINIC, CLOUD, HYPER
from federation_tests.world import World, ask

MESSAGES = [{"role": "user", "content": "where does this go"}]


async def test_a_tag_counts_the_same_in_a_header_and_in_the_body(calm: World) -> None:
    client = calm.client()
    in_body = await client.chat.completions.create(
        **ask("where", policy={"data_class": "personal", "residency": ["FR"]})
    )
    in_headers = await client.chat.completions.create(
        model="chat.small",
        messages=[{"role": "user", "content": "where"}],
        extra_headers={"X-Comity-Data-Class": "personal", "X-Comity-Residency": "FR"},
    )
    domains = [
        answer.model_extra["comity"]["domain"] for answer in (in_body, in_headers) if answer.model_extra
    ]
    assert domains == [CLOUD, CLOUD]


async def test_data_without_a_label_is_handled_as_the_strictest(calm: World) -> None:
    answer = await calm.client().chat.completions.create(**ask("unlabelled", policy={}))
    assert answer.model_extra
    assert answer.model_extra["comity"]["domain"] == CLINIC


@pytest.mark.parametrize(
    ("comity", "headers", "field"),
    [
        ({"policy": {"dataclass": "public"}}, {}, "policy.dataclass"),
        ({"policy": {"residency": ["Atlantis"]}}, {}, "policy.residency"),
        ({"polcy": {}}, {}, "polcy"),
        ({}, {"X-Comity-Colour": "blue"}, "X-Comity-Colour"),
        ({"policy": {"data_class": "public"}}, {"X-Comity-Data-Class": "personal"}, "policy.data_class"),
        ({"budget": {"max_price": 10, "currency": "USD"}}, {}, "budget.currency"),
    ],
    ids=["unknown tag", "unknown place", "unknown member", "unknown header", "conflict", "other currency"],
)
async def test_what_cannot_be_read_is_named_and_never_ignored(
    calm: World, comity: dict[str, object], headers: dict[str, str], field: str
) -> None:
    with pytest.raises(BadRequestError) as refused:
        await calm.client().chat.completions.create(
            model="chat.small",
            messages=[{"role": "user", "content": "where"}],
            extra_body={"comity": comity},
            extra_headers=headers,
        )
    assert refused.value.param == field
    assert refused.value.code == "invalid"


async def test_no_domain_may_serve_it_and_the_refusal_says_what_binds(calm: World) -> None:
    with pytest.raises(ConflictError) as refused:
        await calm.client().chat.completions.create(
            **ask("patient record", model="code.small", policy={"data_class": "phi", "origin": "DE"})
        )
    assert refused.value.code == "infeasible"
    detail = json.loads(refused.value.response.content)["error"]["comity"]
    assert detail["binding"]
    assert detail["smallest_relaxation"]["candidates"] >= 1
    (cloud,) = [entry for entry in detail["rejected"] if "code.small" in entry["plan"]]
    assert cloud["domain"] == CLOUD
    assert "NDE-001-health-data-stays-in-germany" in cloud["rules"]
    assert refused.value.response.headers["x-should-retry"] == "false"


async def test_a_rejected_domain_is_named_with_its_rule(calm: World) -> None:
    """Residency in the EU: the cheapest domain is out, by the name of the rule that put it out."""
    response = await calm.http().post(
        "/explain",
        json={"model": "chat.small", "messages": MESSAGES, "comity": {"policy": {"residency": ["EU"]}}},
    )
    stated = response.json()
    rejected = {entry["domain"]: entry["rules"] for entry in stated["rejected"]}
    assert "RES-001-inside-residency" in rejected[HYPER]


async def test_a_name_that_was_used_before_is_a_400_that_says_so(calm: World) -> None:
    """A repeated request is no second one: whether it was answered or refused, its name stays taken."""
    for name, model in (("visit-1", "chat.small"), ("visit-2", "nobody.has-this")):
        named = {"model": model, "messages": MESSAGES, "comity": {"request_id": name}}
        first, again = [await calm.http().post("/chat/completions", json=named) for _ in range(2)]
        assert first.status_code in (200, 409)
        error = again.json()["error"]
        assert (again.status_code, error["param"]) == (400, "request_id")
        assert error["comity"]["code"] == "request.repeated"


async def test_a_floor_is_lowered_only_where_the_caller_allows_it_and_the_answer_says_so(calm: World) -> None:
    """The tag was carried and never used: whoever allowed a smaller model got the refusal all the same."""
    public = {"data_class": "public"}
    with pytest.raises(ConflictError) as refused:
        await calm.client().chat.completions.create(
            **ask("bigger", policy=public, comity={"quality": {"tier": 9}})
        )
    assert json.loads(refused.value.response.content)["error"]["comity"]["binding"] == ["QUA-001-tier"]
    allowing = public | {"allow_degraded": True}
    answer = await calm.client().chat.completions.create(
        **ask("smaller", policy=allowing, comity={"quality": {"tier": 9}})
    )
    assert answer.model_extra
    member = answer.model_extra["comity"]
    assert (member["degraded"], member["lowered"]) == (True, ["quality.tier"])
    met = await calm.client().chat.completions.create(
        **ask("as it is", policy=allowing, comity={"quality": {"tier": 1}})
    )
    assert met.model_extra
    assert "degraded" not in met.model_extra["comity"]
    with pytest.raises(ConflictError):  # policy is no floor of quality
        await calm.client().chat.completions.create(
            **ask("nowhere", policy=allowing | {"min_assurance": 4}, comity={"quality": {"tier": 9}})
        )
