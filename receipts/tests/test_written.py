"""Receipts in the spelling that we write are read faster, never otherwise."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Annotated, Any, Final
from unittest import mock

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import Field, field_validator

from receipts.log import Draft
from receipts.log.draft import prepare_all
from receipts.log.tiles import Tree
from receipts.log.writing.signing import Signer, State
from receipts.statements import statement, written
from receipts.statements.fields import Camel, Price
from receipts.statements.promise import InclusionPromise, PromiseForm, promise_payload
from receipts.statements.receipt import ACKNOWLEDGEMENT, EXECUTION, MODELS, PLACEMENT, Budget, Cache
from receipts.statements.statement import parse_receipt
from receipts.statements.written import TIME, Essence, read_written
from receipts.tests.world import CLINIC, NOW, Domain, Node, acknowledgement, execution, placement
from schemas.errors import ComityError, Unreadable
from schemas.primitives import parse_time

NODE: Final = Node(domain=CLINIC)
CACHE: Final = Cache(hit="prefix", hit_tokens=3, miss_tokens=4, scope="tenant")
DRAFTS: Final[dict[str, list[Any]]] = {
    PLACEMENT: [
        placement(),
        placement(
            nodes=[NODE.record()],
            budget=Budget(max_price=Price(micro=3, currency="EUR")),
            trace="a" * 32,
            deadline_ms=500,
            sd=["c" * 64],
        ),
    ],
    EXECUTION: [
        execution(),
        execution(crit=["policy"]),
        execution(
            cache=Cache(hit="prefix", hit_tokens=3, miss_tokens=4, scope="tenant"), nodes=[NODE.record()]
        ),
    ],
    ACKNOWLEDGEMENT: [acknowledgement(), acknowledgement(status="disputed", response=None)],
}


@cache
def payloads() -> list[tuple[str, bytes]]:
    """Every kind as the log writes it."""
    domain = Domain.make(CLINIC, seed="written")
    with ThreadPoolExecutor(1) as pool:
        signer, state = Signer(domain.identity, domain.keys, pool), State(Tree(), {}, 0, (-1, b""))
        found = []
        for kind, drafts in DRAFTS.items():
            numbered = signer.number(prepare_all([Draft(each) for each in drafts]), state, NOW)
            found += [(kind, each.payload) for each in numbered]
    return found


def test_what_the_log_writes_is_read_the_short_way() -> None:
    """But for a receipt that names critical members."""
    short = [read_written(payload, kind) for kind, payload in payloads()]
    whole = [Essence.of(parse_receipt(payload, MODELS[kind])) for kind, payload in payloads()]
    assert [each is None for each in short] == [b'"crit":[]' not in payload for _, payload in payloads()]
    assert all(each in (None, other) for each, other in zip(short, whole, strict=True))
    assert whole == [long_way(payload, kind) for kind, payload in payloads()]


def test_a_statement_as_we_write_it_is_parsed_once() -> None:
    """Not by the strict reader as well: with it out of order, all that names no critical member is read."""
    with mock.patch.object(
        statement, "read_json", side_effect=Unreadable("test.strict", "the strict reader")
    ):
        for kind, payload in payloads():
            assert (short_way(payload, kind) is None) == (b'"crit":[]' not in payload)


def long_way(payload: bytes, kind: str) -> Essence | None:
    """By the strict reader alone."""
    with mock.patch.object(statement, "_parse_written", return_value=None):
        return short_way(payload, kind)


def short_way(payload: bytes, kind: str) -> Essence | None:
    try:
        return Essence.of(parse_receipt(payload, MODELS[kind]))
    except ComityError:
        return None


NOISE: Final = [
    b"", b'"', b"\\", b"0", b"1", b"-", b".5", b"e3", b" ", b"\n", b"null", b"true", b"{}", b"[]", b"}", b",",
    b"\\n", b"\\ud800", b"\xff", b"A", b"z", b'"seq":0,', b'"role":"broker",', b'"extra":1,',
    b"9007199254740993",
        b'"crit":["future"],', b"allow", b"deny", b"00", b"-0", b"\xc3\xa9",
]  # fmt: skip


@given(st.data())
def test_no_change_is_accepted_that_the_model_refuses(data: st.DataObject) -> None:
    kind, payload = data.draw(st.sampled_from(payloads()))
    at, gone = data.draw(st.integers(0, len(payload))), data.draw(st.integers(0, 8))
    changed = payload[:at] + data.draw(st.sampled_from(NOISE)) + payload[at + gone :]
    short, long = read_written(changed, kind), long_way(changed, kind)
    assert short is None or short == long
    assert short_way(changed, kind) == long


VALUES: Final = [
    b'""', b'"x"', b'"' + b"a" * 64 + b'"', b'"' + b"a" * 64 + b'\\n"', b'"' + b"A" * 600 + b'"', b"-1", b"0",
    b"1", b"1.0", b"9007199254740991", b"9007199254740992", b"null", b"[]", b'["x"]', b"{}", b"true",
    b'"2026-02-30T00:00:00Z"', b'"2026-01-31T00:00:00Z"', b'"1999-01-31T00:00:00Z"', b'"allow"',
    b'"2024-02-29T00:00:00Z"', b'"2026-01-01T24:00:00Z"', b'"2026-01-01T00:00:60Z"', b'"Clinic.de"',
]  # fmt: skip


@given(st.data())
def test_no_field_is_accepted_that_the_model_refuses(data: st.DataObject) -> None:
    """Whole values replaced: each member of each object by something of another kind or size."""
    kind, payload = data.draw(st.sampled_from(payloads()))
    values = [match.span(1) for match in re.finditer(rb'":("[^"]*"|\d+|\[\]|true|false)', payload)]
    begin, end = data.draw(st.sampled_from(values))
    other = data.draw(st.sampled_from(VALUES))
    changed = payload[:begin] + other + payload[end:]
    short, long = read_written(changed, kind), long_way(changed, kind)
    assert short is None or short == long
    assert short_way(changed, kind) == long


@given(st.from_regex(re.compile(TIME, re.ASCII), fullmatch=True))
@example("2100-12-31T23:59:59.999999Z")
@example("2000-01-01T00:00:00Z")
def test_the_pattern_of_a_moment_accepts_moments_only(text: str) -> None:
    if re.fullmatch(TIME, text):
        parse_time(text)


@given(st.text(alphabet="0123456789-:.TZ\n", max_size=28))
def test_no_other_text_is_a_moment(text: str) -> None:
    if re.fullmatch(TIME, text):
        parse_time(text)


def test_a_rare_moment_is_left_to_the_long_way() -> None:
    assert not re.fullmatch(TIME, "2024-02-29T00:00:00Z")
    assert parse_time("2024-02-29T00:00:00Z").day == 29


@pytest.mark.parametrize("payload", [b"", b"{}", b"[" * 100_000, b"\xff", b"0" * 200_000])
def test_noise_is_left_to_the_long_way(payload: bytes) -> None:
    assert read_written(payload, PLACEMENT) is None
    with pytest.raises(Unreadable):
        parse_receipt(payload, MODELS[PLACEMENT])


class Checking(Camel):
    name: str

    @field_validator("name")
    @classmethod
    def _check(cls, value: str) -> str:
        return value


class Nested(Camel):
    inner: Checking


class Unbounded(Camel):
    number: int


class Worded(Camel):
    word: Annotated[str, Field(pattern=r"\d")]


class Loose(Camel):
    anything: float


@pytest.mark.parametrize("model", [Nested, Unbounded, Worded, Loose])
def test_a_model_that_a_shape_cannot_say_gets_none(model: type[Camel]) -> None:
    """A new kind of rule in a receipt's model is an error here, never a rule that is passed over."""
    with pytest.raises(TypeError):
        written._nested(model, frozenset(), "")


@given(st.integers(0, 2**40), st.sampled_from(["care", "b\u00e9ta"]))
def test_a_promise_from_its_form_is_what_the_model_writes(index: int, federation: str) -> None:
    origin, times = "clinic.de/log", ("2026-01-01T00:00:00.000Z", "2026-01-01T00:00:10.000Z")
    form = PromiseForm.of(federation, CLINIC, origin)
    promise = InclusionPromise.model_construct(
        federation=federation, issuer=CLINIC, receipt_id="abc_-9", receipt_digest="1" * 64,
        leaf_hash="2" * 64, index=index, origin=origin, time=times[0], deadline=times[1],
    )  # fmt: skip
    assert form.payload("abc_-9", "1" * 64, "2" * 64, index, times) == promise_payload(promise)
