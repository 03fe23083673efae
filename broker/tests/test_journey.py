"""What one request carries along: the next attempt's body, its name outside, its time."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

import pytest

from broker.edge.exchange import Accepted, Tenant
from broker.journey import Journey, Segment
from receipts.log import Issued
from schemas.descriptors.extension import Extension, parse_tags
from schemas.descriptors.request import describe
from schemas.descriptors.tags import Home, TagFloor

BODY: dict[str, Any] = {
    "model": "chat.small",
    "messages": [{"role": "user", "content": "Grüße"}],
    "temperature": 0.5,
}


def journey(tenant: str = "t", request_id: str = "r1", plain: bool = True) -> Journey:
    descriptor = describe(
        BODY, Extension(), floor=None, home=Home("clinic.de", ("DE",)), request_id=request_id, body_bytes=9
    )
    body = json.dumps(BODY, ensure_ascii=False).encode()
    owner = Tenant(tenant, TagFloor(), None, "default")
    return Journey.begin(Accepted(owner, descriptor, body, plain, time.perf_counter_ns()))


def segment(**changes: Any) -> Segment:
    fields: dict[str, Any] = {
        "domain": "hyper.us",
        "node_sign": "A" * 43,
        "placement": Issued("x", b"\1" * 32, 0, b"{}", lambda: b"{}"),
        "model": "chat.small/tiny",
        "model_digest": "11" * 32,
        "engine_class": "cpu/llama.cpp",
        "header_digest": b"\2" * 32,
        "nid": "n",
    } | changes
    return Segment(**fields)


def test_the_first_attempt_sends_what_the_application_sent() -> None:
    each = journey()
    assert each.body() is each.accepted.body
    assert each.parent is None
    assert each.model_digest is None


def test_a_continuation_hands_on_what_was_shown_and_changes_nothing_else() -> None:
    each = journey()
    each.segments.append(segment())
    each.text += "Guten Täg".encode()
    body = json.loads(each.body())
    assert body["messages"][-1] == {"role": "assistant", "content": "Guten Täg"}
    assert body["messages"][:-1] == BODY["messages"]
    assert {key: body[key] for key in ("model", "temperature")} == {"model": "chat.small", "temperature": 0.5}
    assert each.model_digest == "11" * 32
    assert each.parent == (b"\2" * 32).hex()


def test_an_attempt_after_nothing_was_shown_may_run_any_model() -> None:
    each = journey()
    each.segments.append(segment())
    assert each.model_digest is None
    assert each.body() is each.accepted.body


@pytest.mark.parametrize(
    ("plain", "delivered", "may"), [(True, True, True), (False, True, False), (False, False, True)]
)
def test_only_plain_text_goes_on_after_something_was_shown(plain: bool, delivered: bool, may: bool) -> None:
    each = journey(plain=plain)
    each.delivered = delivered
    assert each.may_continue() is may


@pytest.mark.parametrize(
    ("stated", "lowered", "asked"),
    [
        ({}, (), "chat.small"),
        ({"quality": {"tier": 9}}, (), "chat.small"),
        ({"quality": {"tier": 9}, "policy": {"allow_degraded": True}}, ("quality.tier",), "chat.small"),
        (
            {"capability": "chat.small/big@2", "policy": {"allow_degraded": True}},
            ("capability",),
            "chat.small",
        ),
        ({"policy": {"allow_degraded": True}}, (), "chat.small"),
    ],
    ids=["nothing", "not allowed", "a floor", "a pin", "nothing to let go of"],
)
def test_only_what_the_caller_stated_and_lets_go_of_is_lowered(
    stated: dict[str, Any], lowered: tuple[str, ...], asked: str
) -> None:
    descriptor = describe(
        BODY,
        parse_tags(stated, {}),
        floor=None,
        home=Home("clinic.de", ("DE",)),
        request_id="r1",
        body_bytes=9,
    )
    base = journey()
    each = Journey.begin(replace(base.accepted, descriptor=descriptor))
    assert each.lower() is bool(lowered)
    assert each.lowered == lowered
    if lowered:
        assert (each.descriptor.capability, each.descriptor.quality.tier) == (asked, None)
        assert each.descriptor.policy == descriptor.policy
    each.restore()
    assert (each.descriptor, each.lowered) == (descriptor, ())


def test_the_name_outside_is_stable_and_differs_per_tenant() -> None:
    assert journey().wire_id == journey().wire_id
    assert journey().wire_id != journey(tenant="u").wire_id
    assert journey().wire_id != journey(request_id="r2").wire_id
    assert "r1" not in journey(request_id="r1").wire_id
