"""TOML files: whatever stands in one, a value or an error that names file and key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import ConfigurationError
from schemas.toml import Table, load_toml, parse_toml

LIMIT = 8192
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


def table(**values: Any) -> Table:
    return Table("x.toml", "part", values)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_a_document_or_an_error_that_names_the_file(data: bytes) -> None:
    try:
        assert isinstance(parse_toml(data, "x.toml", limit=LIMIT, area="x"), dict)
    except ConfigurationError as error:
        assert str(error).startswith("x.syntax: x.toml: not TOML: ")  # noqa: PT017 - of many, each


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"a = 1\n" * 2000, "x.file"),
        (b"a = " + b"[" * 3000, "x.syntax"),
        (b"a = " + b"1" * 5000, "x.syntax"),
        (b"a = 1\na = 2", "x.syntax"),
        (b"a = '\xff'", "x.syntax"),
    ],
    ids=["long", "deep", "a number without end", "twice", "not utf-8"],
)
def test_what_is_no_document(data: bytes, code: str, tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_bytes(data)
    with pytest.raises(ConfigurationError, match=r"x\.toml: ") as error:
        load_toml(tmp_path / "x.toml", limit=LIMIT, area="x")
    assert error.value.code == code


def test_a_byte_order_mark_and_a_file_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_bytes(b"\xef\xbb\xbfa = 1\r\n")
    assert load_toml(tmp_path / "x.toml", limit=LIMIT, area="x") == {"a": 1}
    for path in (tmp_path, tmp_path / "absent.toml"):
        with pytest.raises(ConfigurationError) as error:
            load_toml(path, limit=LIMIT, area="x")
        assert (error.value.code, str(path) in error.value.text) == ("x.file", True)


@given(st.dictionaries(st.text(min_size=1, max_size=3), VALUES, max_size=3))
def test_any_value_is_read_or_refused_by_key(values: dict[str, Any]) -> None:
    for key in values:
        for read in (
            lambda each, key=key: each.text(key, r"[a-z]*", write="x"),
            lambda each, key=key: each.choice(key, frozenset({"a", "b"})),
            lambda each, key=key: each.child(key).finish(),
            lambda each, key=key: [child.finish() for child in each.children(key, least=1)],
        ):
            try:
                read(table(**values))
            except ConfigurationError as error:
                assert error.text.startswith("x.toml: [part")  # noqa: PT017 - of many, each


def test_errors_say_where_and_what_to_write() -> None:
    for attempt, text in (
        (lambda: table().text("a", "b", write='a = "b"'), 'x.toml: [part] a is not set; write a = "b"'),
        (lambda: table(a="c").choice("a", ["b"]), "x.toml: [part] a is 'c'; write a = \"b\""),
        (lambda: table(a=1).child("a"), "x.toml: [part] a is no table; write [part.a]"),
        (lambda: table(a=[1]).children("a"), "x.toml: [part] a is no array of tables; write [[part.a]]"),
        (
            lambda: table().children("a", least=1),
            "x.toml: [part] a has 0 entries; write at least 1 of [[part.a]]",
        ),
        (lambda: table(a=1).finish(), "x.toml: [part] a is not a key here; known: "),
    ):
        with pytest.raises(ConfigurationError) as error:
            attempt()
        assert error.value.text == text


def test_a_key_that_was_taken_or_excepted_is_no_misspelling() -> None:
    read = table(a="b", c=[{"d": "e"}], f=1)
    assert read.text("a", "b", write="") == "b"
    (inner,) = read.children("c")
    assert (inner.name, inner.text("d", ".", write="")) == ("part.c.0", "e")
    read.finish(except_for=["f"])
    with pytest.raises(ConfigurationError, match=r"\[part\] f is not a key here; known: a, c"):
        read.finish()
