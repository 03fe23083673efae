from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from schemas.bounded import MAX_DEPTH, MAX_INTEGER
from schemas.canonical import (
    MAX_JSON_BYTES,
    Json,
    Wire,
    jcs,
    length_prefixed,
    read_json,
    sha256,
    write_json,
)
from schemas.errors import Unreadable

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
LEAVES = st.none() | st.booleans() | st.integers(-MAX_INTEGER, MAX_INTEGER) | TEXT
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner), max_leaves=20)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b'{"verdict":"deny","verdict":"permit"}', "json.duplicate_key"),
        (b'[{"a":{"b":1,"b":1}}]', "json.duplicate_key"),
        (b'{"a":1,"\\u0061":2}', "json.duplicate_key"),
        (b"1.0", "json.float"),
        (b"[1e3]", "json.float"),
        (b"NaN", "json.float"),
        (b"-Infinity", "json.float"),
        (b"9007199254740992", "json.integer_range"),
        (b"-9007199254740992", "json.integer_range"),
        (b"1" * 5000, "json.integer_range"),
        (b'"\\ud800"', "json.syntax"),
        (b'{"\\udfff":1}', "json.syntax"),
        (b'"\xff"', "json.syntax"),
        (b'"\xed\xa0\x80"', "json.syntax"),
        (b"\xef\xbb\xbf{}", "json.syntax"),
        (b"{} {}", "json.syntax"),
        (b"{} // c", "json.syntax"),
        (b"[1,]", "json.syntax"),
        (b'"\n"', "json.syntax"),
        (b"01", "json.syntax"),
        (b"", "json.syntax"),
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "json.depth"),
        (b"[" * 100_000, "json.depth"),
        (b" " * (MAX_JSON_BYTES + 1), "json.too_long"),
    ],
)
def test_what_other_parsers_let_pass_is_refused(data: bytes, code: str) -> None:
    with pytest.raises(Unreadable) as caught:
        read_json(data)
    assert caught.value.code == code


@pytest.mark.parametrize(
    "data",
    [
        b"[" * MAX_DEPTH + b"]" * MAX_DEPTH,
        b'"' + b"[{" * 200 + b'"',
        b'{"a":"\\\\","b":"\\"[[["}',
        b"9007199254740991",
        b"-9007199254740991",
        b'"\\ud83d\\ude00"',
    ],
)
def test_what_is_strict_json_is_read(data: bytes) -> None:
    assert read_json(data) == json.loads(data)


@given(st.binary(max_size=200) | TEXT.map(str.encode))
def test_any_bytes_give_a_value_or_unreadable(data: bytes) -> None:
    try:
        value = read_json(data)
    except Unreadable:
        return
    assert value == json.loads(data)


@given(VALUES)
def test_what_is_written_is_read_again(value: Json) -> None:
    assert read_json(write_json(value)) == value
    assert read_json(json.dumps(value).encode()) == value
    assert read_json(jcs(value)) == value


@pytest.mark.parametrize("name", ["arrays", "french", "structures", "unicode", "values", "weird"])
def test_jcs_agrees_with_the_published_pairs(vectors: Path, name: str) -> None:
    value = json.loads((vectors / "jcs" / "input" / f"{name}.json").read_bytes())
    assert jcs(value) == (vectors / "jcs" / "output" / f"{name}.json").read_bytes()


@given(VALUES | st.text() | st.dictionaries(st.text(), st.floats() | st.integers() | TEXT))
def test_jcs_is_what_the_library_writes(value: Json) -> None:
    try:
        expected = rfc8785.dumps(value)
    except rfc8785.CanonicalizationError:
        with pytest.raises(Unreadable, match=r"json\.not_canonical"):
            jcs(value)
        return
    assert jcs(value) == expected


def test_jcs_refuses_what_has_no_canonical_form() -> None:
    for value in (float("nan"), MAX_INTEGER + 1):
        with pytest.raises(Unreadable, match=r"json\.not_canonical"):
            jcs(value)  # type: ignore[arg-type]


@given(st.lists(st.binary(max_size=8), max_size=4), st.lists(st.binary(max_size=8), max_size=4))
def test_no_two_part_lists_share_an_encoding(one: list[bytes], other: list[bytes]) -> None:
    assert (length_prefixed(b"label", *one) == length_prefixed(b"label", *other)) == (one == other)


def test_sha256_is_over_the_parts_in_order() -> None:
    assert sha256(b"a", b"bc") == hashlib.sha256(b"abc").digest()


class Example(Wire):
    name: str
    count: int
    note: str | None = None


@pytest.mark.parametrize(
    "data",
    [
        b'{"name":"a"}',
        b'{"name":"a","count":"1"}',
        b'{"name":"a","count":true}',
        b'{"name":1,"count":1}',
        b'{"name":"a","count":1,"more":1}',
        b"[]",
    ],
)
def test_a_wire_value_is_exactly_what_it_should_be(data: bytes) -> None:
    with pytest.raises(Unreadable) as caught:
        Example.read(data)
    assert caught.value.code == "schema.Example"


def test_a_wire_value_leaves_absent_fields_out_and_has_one_name() -> None:
    value = Example(name="ä", count=1)
    assert value.write() == '{"name":"ä","count":1}'.encode()
    assert Example.read(b' {"count": 1, "name": "\xc3\xa4"}').value_digest() == value.value_digest()
    assert value.value_digest() == hashlib.sha256('{"count":1,"name":"ä"}'.encode()).digest()
