"""Any bytes become an `Accepted` or a typed problem that names a field; nothing else, ever."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import event, example, given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from broker.edge.accepting.accept import Acceptance
from broker.edge.accepting.body import read_object, write_object
from broker.edge.exchange import Accepted, Tenant
from broker.problems import Invalid
from schemas.descriptors.request import Home, TagFloor
from schemas.descriptors.tags import DATA_CLASSES

CANARY = "canary-7f3a"
ACCEPTANCE = Acceptance(Home("clinic.de", ("DE",)), "EUR")
TENANT = Tenant(
    "radiology", TagFloor(data_class="personal", residency=["EU"], min_assurance=2), None, "default"
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
roles = st.sampled_from(["user", "system", "x"]) | json_values
turns = st.fixed_dictionaries({}, optional={"role": roles, "content": json_values})
messages = st.lists(turns | json_values, max_size=3)
policies = st.fixed_dictionaries(
    {},
    optional={
        "data_class": st.sampled_from([*DATA_CLASSES, "secret"]),
        "residency": st.lists(st.sampled_from(["DE", "EU", "US", "Global", "premises", "XX"]), max_size=3),
        "origin": st.sampled_from(["DE", "US", "EU"]) | json_values,
        "min_assurance": st.integers(-1, 5) | json_values,
        "allow_degraded": st.booleans(),
        "nonsense": json_values,
    },
)
extensions = st.fixed_dictionaries({}, optional={"policy": policies, "priority": st.integers(0, 6)})
bodies = st.fixed_dictionaries(
    {},
    optional={
        "model": st.text(max_size=12) | st.just("chat.small") | json_values,
        "messages": messages,
        "stream": st.booleans() | json_values,
        "n": st.integers(-1, 20) | json_values,
        "max_tokens": st.integers(-1, 10**7) | json_values,
        "temperature": st.floats() | json_values,
        "stream_options": json_values,
        "comity": extensions | json_values,
    },
)


def accept(data: bytes, headers: dict[str, str] | None = None) -> Accepted | Invalid:
    try:
        return ACCEPTANCE.accept(data, Headers(headers or {}), TENANT, 0)
    except Invalid as problem:
        return problem


def named(problem: Invalid) -> None:
    """Every refusal says which field."""
    assert problem.status == 400
    assert problem.param


@given(st.binary(max_size=300))
@example(b"\xef\xbb\xbf{}")
@example(b'{"a":' + b"9" * 5000 + b"}")
@example(b"[" * 100_000)
@example(b'{"messages":' + b"[" * 63 + b"]" * 63 + b"}")
def test_any_bytes(data: bytes) -> None:
    result = accept(data)
    if isinstance(result, Invalid):
        named(result)


NAMES = ["X-Comity-Residency", "X-Comity-Priority", "X-Comity-Origin"]
VALID = {"model": "chat.small", "messages": [{"role": "user", "content": "x"}]}
nearly_valid = st.builds(lambda extension: {**VALID, "comity": extension}, extensions)


@given(bodies | nearly_valid, st.dictionaries(st.sampled_from(NAMES), st.text("DEU,0123 ", max_size=3)))
def test_any_body_and_headers(body: dict[str, Any], headers: dict[str, str]) -> None:
    result = accept(json.dumps(body).encode(), headers)
    if isinstance(result, Invalid):
        named(result)
        return
    event("accepted")
    policy = result.descriptor.policy
    assert policy.data_class in DATA_CLASSES[2:]
    assert policy.min_assurance is not None
    assert policy.min_assurance >= 2
    assert policy.residency is not None
    assert not {"US", "Global"} & set(policy.residency)
    assert b'"comity"' not in result.body or "comity" not in read_object(result.body)


@given(st.dictionaries(st.text(max_size=6), json_values, max_size=4))
def test_what_is_written_again_reads_the_same(value: dict[str, Any]) -> None:
    try:
        read = read_object(json.dumps(value).encode())
    except Invalid:
        return
    assert read_object(write_object(read)) == read


@given(st.text(max_size=40))
def test_a_body_without_extension_goes_on_byte_for_byte(text: str) -> None:
    data = json.dumps(
        {"model": "chat.small", "messages": [{"role": "user", "content": CANARY + text}]}, indent=1
    ).encode()
    result = accept(data)
    if isinstance(result, Invalid):
        assert any("\ud800" <= letter <= "\udfff" for letter in text)
    else:
        assert result.body == data
        assert CANARY not in repr(result)
