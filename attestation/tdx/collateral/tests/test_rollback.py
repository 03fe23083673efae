"""Marks are written and read back exactly, and only ever move forward."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation.tdx.collateral.rollback import Mark, raised, read_marks, write_marks
from schemas.errors import Refused, Unreadable

MARK = Mark(18, datetime(2026, 3, 1, tzinfo=UTC).timestamp(), "ab" * 32)


def test_marks_come_back_as_they_were() -> None:
    marks = {"tdx/00806f050000": MARK, "crl/Intel": Mark(0, MARK.issued, "cd" * 32)}
    assert read_marks(write_marks(marks)) == marks
    assert read_marks(write_marks({})) == {}


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=8))
def test_marks_never_go_back(seen: list[tuple[int, int]]) -> None:
    marks: dict[str, Mark] = {}
    for evaluation, issued in seen:
        before = marks.get("name")
        try:
            marks = raised(marks, "name", Mark(evaluation, issued, ""))
        except Refused as error:
            assert error.code == "tdx.collateral_rollback"  # noqa: PT017
        now = marks["name"]
        assert before is None or (now.evaluation >= before.evaluation and now.issued >= before.issued)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{}", b"[]", b'{"marks":[]}', b'{"marks":{"a":1}}', b'{"marks":{},"x":1}',
        b'{"marks":{"a":{"evaluation":true,"issued":"2026-03-01T00:00:00Z","sha256":"%s"}}}' % (b"0" * 64),
        b'{"marks":{"a":{"evaluation":1,"issued":"soon","sha256":"%s"}}}' % (b"0" * 64),
        b'{"marks":{"a":{"evaluation":1,"issued":"2026-03-01T00:00:00Z","sha256":"../x"}}}',
        b'{"marks":{"*":{"evaluation":1,"issued":"2026-03-01T00:00:00Z","sha256":"%s"}}}' % (b"0" * 64),
    ],
)  # fmt: skip
def test_marks_that_are_none(data: bytes) -> None:
    with pytest.raises(Unreadable) as error:
        read_marks(data)
    assert error.value.code == "tdx.marks_malformed"
