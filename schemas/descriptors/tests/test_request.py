"""What a caller may state, and how a typed refusal names the field."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.canonical import Json
from schemas.descriptors.request import (
    Budget,
    Home,
    InvalidField,
    RequestDescriptor,
    TagFloor,
    describe,
    estimate_tokens,
    parse_tags,
)
from schemas.errors import Unreadable

HOME = Home("clinic.de", ("DE",))
BODY: dict[str, Any] = {"model": "chat.small", "messages": [{"role": "user", "content": "Guten Tag"}]}


def described(body: dict[str, Any], comity: Any = None, **headers: str) -> RequestDescriptor:
    stated = parse_tags(comity, {name.replace("_", "-"): value for name, value in headers.items()})
    return describe(body, stated, floor=None, home=HOME, request_id="own-1", body_bytes=77)


def test_body_and_headers_say_the_same_in_two_ways() -> None:
    in_body = parse_tags(
        {
            "policy": {"data_class": "personal", "residency": ["EU", "DE"], "min_assurance": 3},
            "slo": {"ttft_ms": 300},
            "budget": {"max_price": 500, "currency": "EUR"},
            "class": "batch",
        },
        {},
    )
    in_headers = parse_tags(
        None,
        {
            "X-Comity-Data-Class": "personal",
            "x-comity-residency": "EU, DE",
            "X-COMITY-MIN-ASSURANCE": "3",
            "X-Comity-Ttft-Ms": "300",
            "X-Comity-Max-Price": "500",
            "X-Comity-Currency": "EUR",
            "X-Comity-Class": "batch",
            "Content-Type": "application/json",
        },
    )
    assert in_body == in_headers
    both: Json = {"policy": {"residency": ["EU", "DE"]}}
    assert parse_tags(both, {"X-Comity-Residency": "DE,EU"}).policy.residency == ["EU", "DE"]


@pytest.mark.parametrize(
    ("comity", "headers", "field", "text"),
    [
        ([], {}, "comity", "object"),
        ({"surprise": 1}, {}, "surprise", "no such field"),
        ({"policy": {"surprise": 1}}, {}, "policy.surprise", "no such field"),
        ({"policy": 3}, {}, "policy", "object"),
        ({"policy": 3}, {"X-Comity-Data-Class": "phi"}, "policy", "object"),
        ({"policy": {"data_class": "secret"}}, {}, "policy.data_class", "public"),
        ({"policy": {"residency": ["EU", "XX"]}}, {}, "policy.residency", "'XX'"),
        ({"policy": {"residency": []}}, {}, "policy.residency", "Global"),
        ({"policy": {"origin": "premises"}}, {}, "policy.origin", "'premises'"),
        ({"policy": {"forbid_regimes": ["CLOUD"]}}, {}, "policy.forbid_regimes", "'CLOUD'"),
        ({"policy": {"require_certs": ["C6"]}}, {}, "policy.require_certs", "'C6'"),
        ({"policy": {"min_assurance": "3"}}, {}, "policy.min_assurance", "integer"),
        ({"policy": {"min_assurance": True}}, {}, "policy.min_assurance", "integer"),
        ({"policy": {"min_assurance": 5}}, {}, "policy.min_assurance", "4"),
        ({"policy": {"confidential_gpu": 1}}, {}, "policy.confidential_gpu", "boolean"),
        ({"policy": {"allow_debug": True}}, {}, "policy.allow_debug", "no such field"),
        ({"slo": {"ttft_ms": 1.5}}, {}, "slo.ttft_ms", "integer"),
        ({"budget": {"max_price": -1}}, {}, "budget.max_price", "0"),
        ({"priority": 6}, {}, "priority", "5"),
        ({"class": "urgent"}, {}, "class", "interactive"),
        ({"deadline": "tomorrow"}, {}, "deadline", "2026"),
        ({"request_id": "a b"}, {}, "request_id", "match"),
        ({"capability": "x" * 40_000}, {}, "comity", "at most"),
        ({"slo": {"ttft_ms": float("nan")}}, {}, "comity", "strict"),
        (None, {"X-Comity-Surprise": "1"}, "X-Comity-Surprise", "no such field"),
        (None, {"X-Comity-Min-Assurance": "three"}, "policy.min_assurance", "whole number"),
        (None, {"X-Comity-Confidential-Gpu": "yes"}, "policy.confidential_gpu", "true or false"),
        (None, {"X-Comity-Residency": ""}, "policy.residency", "''"),
        ({"affinity": "session-1"}, {}, "affinity", "no such"),
        ({"manifest": "{}"}, {}, "manifest", "no such"),
        (None, {"X-Comity-Deadline": "x" * 5_000}, "deadline", "longer"),
        ({"policy": {"data_class": "phi"}}, {"X-Comity-Data-Class": "public"}, "policy.data_class", "differ"),
        (
            {"policy": {"min_assurance": True}},
            {"X-Comity-Min-Assurance": "1"},
            "policy.min_assurance",
            "differ",
        ),
        ({"priority": 1}, {"X-Comity-Priority": "2"}, "priority", "differ"),
    ],
)
def test_a_refusal_names_the_field(comity: Any, headers: dict[str, str], field: str, text: str) -> None:
    with pytest.raises(InvalidField) as caught:
        parse_tags(comity, headers)
    assert caught.value.field == field
    assert text in caught.value.text
    assert (caught.value.code, caught.value.exit_code) == ("request.invalid_field", 2)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"model": None}, "model"),
        ({"model": "two words"}, "model"),
        ({"stream": "yes"}, "stream"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_completion_tokens": 1.5}, "max_completion_tokens"),
        ({"n": 17}, "n"),
    ],
)
def test_a_body_that_cannot_be_described_is_refused_by_field(change: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidField) as caught:
        described(BODY | change)
    assert caught.value.field == field


def test_the_descriptor_holds_what_decisions_need_and_no_content() -> None:
    asked = described(
        BODY | {"stream": True, "max_tokens": 9, "max_completion_tokens": 7, "n": 2},
        {"capability": "chat.small/tiny@1.2", "request_id": "r-1"},
    )
    assert (asked.capability_class, asked.variant, asked.version) == ("chat.small", "tiny", "1.2")
    assert (asked.request_id, asked.max_output_tokens, asked.stream, asked.body_bytes) == (
        "r-1",
        14,
        True,
        77,
    )
    assert asked.policy.data_class == "special-category"
    assert b"Guten" not in asked.write()
    assert RequestDescriptor.read(asked.write()) == asked
    plain = described(BODY)
    assert (plain.request_id, plain.variant, plain.version) == ("own-1", None, None)


def test_token_estimates_err_upwards_and_cover_every_shape() -> None:
    assert estimate_tokens(9) == 3
    assert described(BODY).input_tokens == 8 + 3
    parts = [{"type": "text", "text": "abc"}, {"type": "image_url", "image_url": {"url": "data:x"}}]
    assert (
        described({"model": "m", "messages": [{"role": "user", "content": parts}]}).input_tokens
        == 8 + 1 + 1024
    )
    tools = [{"type": "function", "function": {"name": "f", "description": "x" * 3_000}}]
    assert 1_000 < described(BODY | {"tools": tools}).input_tokens < 1_100
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"title": "x" * 300}}}
    assert described(BODY | {"response_format": form}).input_tokens > 100
    called = {"role": "assistant", "tool_calls": [{"function": {"arguments": "x" * 300}}]}
    assert described({"model": "m", "messages": [called]}).input_tokens > 100
    assert described({"model": "m", "prompt": [1, 2, 3]}).input_tokens == 3
    assert described({"model": "m", "input": ["abc", "def"]}).input_tokens == 2
    assert described({"model": "m", "messages": "nonsense"}).input_tokens == 0
    embedding = describe(
        BODY, parse_tags(None, {}), floor=None, home=HOME, request_id="r", body_bytes=1, task="embedding"
    )
    assert embedding.max_output_tokens == 0


def test_a_tenants_floor_wins_and_is_recorded() -> None:
    floor = TagFloor(data_class="phi", residency=["EU"])
    stated = parse_tags({"policy": {"data_class": "public"}}, {})
    asked = describe(BODY, stated, floor=floor, home=HOME, request_id="r", body_bytes=1)
    assert asked.policy.data_class == "phi"
    assert asked.policy.residency == ["EU"]
    assert asked.overridden == ["data_class"]
    assert asked.policy_digest == asked.policy.value_digest()
    assert b"policy_digest" not in asked.write()


def test_a_budget_in_another_currency_is_refused() -> None:
    Budget().check_currency("EUR")
    Budget(currency="EUR").check_currency("EUR")
    with pytest.raises(InvalidField, match="EUR"):
        Budget(currency="USD").check_currency("EUR")


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
groups = st.dictionaries(
    st.sampled_from(["policy", "slo", "budget", "quality", "priority", "class", "deadline"]), json_values
)
headers = st.dictionaries(
    st.sampled_from(
        ["X-Comity-Data-Class", "x-comity-residency", "X-Comity-Priority", "X-Comity-", "Accept"]
    ),
    st.text(max_size=12),
)


@given(groups | json_values, headers)
def test_any_extension_is_read_or_refused_in_type(comity: Any, stated: dict[str, str]) -> None:
    with suppress(Unreadable):
        described(BODY, comity)
    with suppress(InvalidField):
        parse_tags(comity, stated)


@given(st.dictionaries(st.sampled_from(["model", "messages", "prompt", "input", "n", "stream"]), json_values))
def test_any_body_is_described_or_refused_in_type(body: dict[str, Any]) -> None:
    with suppress(InvalidField):
        described(body)
