"""What is read by the compiled reader and written again is read no other way than strictly."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Tuple  # noqa: UP035

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import Field

from schemas.bounded import MAX_DEPTH, MAX_INTEGER, is_bounded
from schemas.canonical import Wire, read_json
from schemas.errors import Unreadable
from schemas.primitives import Bytes64, Count, Digest, Seconds, TimeText


class Inner(Wire):
    kind: Literal["a", "b", 3]
    data: Bytes64 = b""
    at: TimeText | None = None


class Outer(Wire):
    number: Count
    words: list[str]
    named: dict[str, Inner]
    pair: tuple[bool, Annotated[int, Field(gt=-5, lt=5)]]
    either: Digest | Seconds | None = None
    inner: Inner | None = Field(default=None, alias="in")


VALUES: Final = [
    Outer(number=0, words=[], named={}, pair=(True, -4)),
    Outer(
        number=MAX_INTEGER,
        words=["ä", "[{", '"\\', "\x01", "\x7f"],
        named={"x": Inner(kind=3)},
        pair=(False, 0),
    ),
    Outer(
        number=7,
        words=["\U0001f600"],
        named={"": Inner(kind="a", data=b"\xff\xfe", at="2026-01-31T12:00:00Z")},
        pair=(True, 4),
        either="0" * 64,
        inner=Inner(kind="b"),
    ),
]
NOISE: Final = [
    b"", b'"', b"\\", b"0", b"-", b".0", b"e1", b" ", b"\n", b"null", b"true", b"{}", b"[]", b"}", b",",
    b"\xff", b"\\u0061", b"\\ud800", b'"number":1,', b'"in":null,', b'"inner":{"kind":"a"},', b'"more":1,',
    b'"x":{},', b"\\/", b"9007199254740993", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"-0", b"1.5",
]  # fmt: skip


def strictly(data: bytes) -> Outer | None:
    try:
        return Outer.from_json(read_json(data))
    except Unreadable:
        return None


@pytest.mark.parametrize("value", VALUES)
def test_what_is_written_is_read_as_it_is(value: Outer) -> None:
    assert Outer.read_written(value.write()) == value == strictly(value.write())


@given(st.data())
def test_no_change_is_read_that_strict_reading_refuses(data: st.DataObject) -> None:
    written = data.draw(st.sampled_from(VALUES)).write()
    at, gone = data.draw(st.integers(0, len(written))), data.draw(st.integers(0, 6))
    changed = written[:at] + data.draw(st.sampled_from(NOISE)) + written[at + gone :]
    assert Outer.read_written(changed) in (None, strictly(changed))


@given(st.binary(max_size=80) | st.text(max_size=40).map(str.encode))
@example(b"[" * 100_000)
@example(b"0" * 5000)
def test_any_bytes_are_read_strictly_or_not_at_all(data: bytes) -> None:
    assert Outer.read_written(data) in (None, strictly(data))


class Fraction(Wire):
    value: float


class AnyInteger(Wire):
    value: int


class HalfBounded(Wire):
    value: Annotated[int, Field(ge=0)]


class TooFar(Wire):
    value: Annotated[int, Field(ge=0, le=MAX_INTEGER + 1)]


class FarWord(Wire):
    value: Literal[9007199254740992]


class Anything(Wire):
    value: Any


class AnyList(Wire):
    value: list  # type: ignore[type-arg]


class AnyPair(Wire):
    value: Tuple  # type: ignore[type-arg]  # noqa: UP006


class Mixed(Wire):
    value: list[dict[str, tuple[str, float]]] | None = None


class Endless(Wire):
    value: list[Endless] = Field(default_factory=list)


@pytest.mark.parametrize(
    "model",
    [Fraction, AnyInteger, HalfBounded, TooFar, FarWord, Anything, AnyList, AnyPair, Mixed, Endless],
)
def test_a_model_that_may_hold_what_is_refused_is_always_read_strictly(model: type[Wire]) -> None:
    assert not is_bounded(model)
    assert model.read_written(b'{"value":[]}') is None


DEEP: Final = b'{"value":' + b'[{"value":' * MAX_DEPTH + b"[]" + b"}]" * MAX_DEPTH + b"}"


@pytest.mark.parametrize(
    ("model", "data", "code"), [(Fraction, b'{"value":1.5}', "json.float"), (Endless, DEEP, "json.depth")]
)
def test_and_what_strict_reading_refuses_stays_refused(model: type[Wire], data: bytes, code: str) -> None:
    with pytest.raises(Unreadable, match=code):
        model.read(data)
