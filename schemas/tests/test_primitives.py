from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.canonical import Wire
from schemas.errors import Unreadable
from schemas.primitives import (
    Bytes64,
    Digest,
    DomainName,
    TimeText,
    decode_base64,
    domain_of_token,
    format_time,
    parse_time,
    subject_token,
)


class Named(Wire):
    domain: DomainName = "a.example"
    digest: Digest = "0" * 64
    data: Bytes64 = b""
    at: TimeText = "2026-01-31T12:00:00Z"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("domain", "A.example"),
        ("domain", "a_b.example"),
        ("domain", "example"),
        ("domain", "-a.example"),
        ("domain", "a.example."),
        ("domain", "a.example\n"),
        ("domain", "a." * 130 + "de"),
        ("digest", "0" * 63),
        ("digest", "A" * 64),
        ("digest", "0" * 64 + "\n"),
        ("data", "AA"),
        ("data", "AB=="),
        ("data", "AA==\n"),
        ("data", "-_8="),
        ("at", "2026-01-31T12:00:00"),
        ("at", "2026-01-31T12:00:00+00:00"),
        ("at", "2026-01-31T12:00:60Z"),
        ("at", "2026-02-30T12:00:00Z"),
        ("at", "1999-01-31T12:00:00Z"),
        ("at", "2026-01-31T12:00:00Z\n"),
        ("at", "٢٠٢٦-01-31T12:00:00Z"),
    ],
)
def test_what_is_not_in_its_one_spelling_is_refused(field: str, value: str) -> None:
    with pytest.raises(Unreadable) as caught:
        Named.from_json({field: value})
    assert caught.value.code == "schema.Named"
    assert caught.value.text.startswith(field)


@given(st.binary(max_size=100))
def test_bytes_survive_the_wire(data: bytes) -> None:
    assert Named.read(Named(data=data).write()).data == data


@given(st.text(max_size=40))
def test_any_text_is_base64_or_unreadable(text: str) -> None:
    try:
        data = decode_base64(text)
    except Unreadable:
        return
    assert Named(data=data).as_json()["data"] == text


@given(st.text(max_size=40))
def test_any_text_is_a_time_or_unreadable(text: str) -> None:
    try:
        assert parse_time(text).tzinfo is UTC
    except Unreadable:
        return


@given(st.integers(946_684_800_000_000, 4_133_980_799_000_000))
def test_a_time_is_written_to_the_millisecond(microseconds: int) -> None:
    time = datetime.fromtimestamp(microseconds / 1e6, UTC)
    assert abs(parse_time(format_time(time)) - time).total_seconds() < 0.001


@given(st.from_regex(r"[a-z0-9]{1,8}(-[a-z0-9]{1,4})?(\.[a-z]{2,5}){1,3}", fullmatch=True))
def test_a_domain_survives_as_a_subject_token(domain: str) -> None:
    assert Named(domain=domain).domain == domain
    assert "." not in subject_token(domain)
    assert domain_of_token(subject_token(domain)) == domain
