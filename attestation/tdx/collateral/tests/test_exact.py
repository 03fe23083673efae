"""The fast reading never says anything that the strict one does not say of the same bytes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.json import Decoder

from attestation.tdx.collateral.exact import read_exact, shaped
from attestation.tdx.collateral.shapes import WrittenQeIdentity, WrittenTcbInfo
from attestation.tdx.tests import recorded
from attestation.testing.intel import IntelForge
from schemas.canonical import read_json
from schemas.errors import Unreadable

TCB_INFO, QE_IDENTITY = Decoder(WrittenTcbInfo), Decoder(WrittenQeIdentity)
TEXTS = Decoder(dict[str, str])
INFO, IDENTITY = IntelForge().documents()


def strictly(data: bytes) -> Any:
    """What the strict reader says, or None."""
    try:
        return read_json(data, limit=len(data))
    except Unreadable:
        return None


def test_what_intel_writes_is_read_exactly() -> None:
    assert read_exact(INFO, TCB_INFO) == shaped(strictly(INFO), WrittenTcbInfo)
    assert read_exact(IDENTITY, QE_IDENTITY) == shaped(strictly(IDENTITY), WrittenQeIdentity)


@pytest.mark.skipif(not recorded.PRESENT, reason=recorded.ABSENT)
def test_genuine_documents_of_version_3_are_read_exactly() -> None:
    """All but version 2 and the one that was written anew on purpose."""
    sets = [json.loads(file.read_bytes()) for file in (recorded.FOLDER / "tdx" / "collateral").iterdir()]
    infos = [each["tcb_info"].encode() for each in sets if "tcb_info" in each]
    slow = [body for body in infos if read_exact(body, TCB_INFO) is None]
    assert len(infos) == 24
    assert [body for body in slow if b'"version":2' not in body and b'": ' not in body] == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"tcbType":0', b'"tcbType":0,"tcbType":0'),
        (b'"tcbType":0', b'"tcbType":7,"tcbType":0'),
        (b'"tcbType":0', b'"tcbType":0.0'),
        (b'"tcbType":0', b'"tcbType":-0'),
        (b'"tcbType":0', b'"tcbType":0,"more":1.5'),
        (b'"tcbType":0', b'"tcbType":0,"more":' + b"[" * 40 + b"]" * 40),
        (b'"tcbType":0', b'"tcbType":0,"more":' + b"[" * 4000 + b"]" * 4000),
        (b'"tcbType":0', b'"tcb\\u0054ype":0'),
        (b'"svn":5', b'"svn":5,"svn":5'),
        (b'"svn":5', b'"svn":5,"category":""'),
        (b'"id":"TDX",', b""),
        (b"UpToDate", b"\xff"),
        (b"UpToDate", b"\\ud800"),
    ],
)  # fmt: skip
def test_anything_else_is_left_to_the_strict_reader(old: bytes, new: bytes) -> None:
    body = INFO.replace(old, new, 1)
    assert body != INFO
    assert read_exact(body, TCB_INFO) is None


NAMES = st.sampled_from(["a", "b", "é", 'q"', "\\", "\n", ""])


class Pairs(dict[str, Any]):
    """An object that may name a member twice."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__({str(index): None for index in range(len(pairs))})
        self.pairs = pairs

    def items(self) -> Any:
        return self.pairs


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.lists(st.tuples(NAMES, inner), max_size=3).map(Pairs),
    max_leaves=12,
)


@given(VALUES, st.sampled_from([(",", ":"), (", ", ": "), (",\n", " : ")]), st.booleans())
def test_an_exact_reading_is_the_strict_one(value: Any, separators: tuple[str, str], plain: bool) -> None:
    data = json.dumps(value, separators=separators, ensure_ascii=plain).encode()
    texts = read_exact(data, TEXTS)
    if texts is not None:
        assert texts == strictly(data)


@given(st.lists(st.tuples(NAMES, NAMES), max_size=5), st.sampled_from([None, 1]))
def test_texts_are_read_with_any_spacing_and_once(pairs: list[tuple[str, str]], indent: int | None) -> None:
    data = json.dumps(Pairs(pairs), indent=indent).encode()
    texts, strict = read_exact(data, TEXTS), strictly(data)
    assert texts in (strict, None)
    if b"\\u" not in data and strict is not None:
        assert texts == strict


def test_a_shape_that_does_not_fit_is_unreadable() -> None:
    with pytest.raises(Unreadable, match="svn"):
        shaped(strictly(INFO.replace(b'"svn":5', b'"svn":256', 1)), WrittenTcbInfo)
