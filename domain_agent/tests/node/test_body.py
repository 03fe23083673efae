"""Request bodies: the allow-list, and nothing that reaches out."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain_agent.node.engine.body import read_body
from domain_agent.tests.consumer import chat
from schemas.errors import ComityError, Refused, Unreadable


def raw(**fields: Any) -> bytes:
    return json.dumps({**chat("hi"), **fields}).encode()


@pytest.mark.parametrize(
    "name", ["id_slot", "cache_prompt", "slot_id", "lora", "cache_salt", "n_predict", "prompt"]
)
def test_a_field_outside_the_allow_list_is_refused(name: str) -> None:
    with pytest.raises(Refused, match=r"body\.field"):
        read_body(raw(**{name: 1}))


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "http://169.254.169.254/"}},
        {"type": "image_url", "image_url": "file:///etc/passwd"},
        {"type": "text", "text": "x", "nested": [{"url": "https://example.org"}]},
    ],
)
def test_a_remote_url_is_refused(part: dict[str, Any]) -> None:
    with pytest.raises(Refused, match=r"body\.remote_url"):
        read_body(raw(messages=[{"role": "user", "content": [part]}]))


@pytest.mark.parametrize("kind", ["file", "video_url", "input_file", None])
def test_an_unknown_content_part_is_refused(kind: str | None) -> None:
    with pytest.raises(Refused, match=r"body\.part"):
        read_body(raw(messages=[{"role": "user", "content": [{"type": kind}]}]))


def test_a_data_url_is_data() -> None:
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    assert read_body(raw(messages=[{"role": "user", "content": [part]}])).fields["messages"]


@pytest.mark.parametrize(
    ("fields", "plain"),
    [
        ({}, True),
        ({"n": 2}, False),
        ({"tools": [{}]}, False),
        ({"logprobs": True}, False),
        ({"seed": 1}, True),
    ],
)
def test_only_one_choice_of_text_alone_is_plain(fields: dict[str, Any], plain: bool) -> None:
    assert read_body(raw(**fields)).plain is plain


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_read_or_refused_in_type(data: bytes) -> None:
    with contextlib.suppress(Refused, Unreadable):
        read_body(data)


def test_a_key_twice_is_refused() -> None:
    with pytest.raises(ComityError, match=r"body\.json"):
        read_body(b'{"messages":[{"role":"user","content":"a"}],"n":1,"n":2}')
