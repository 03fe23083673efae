from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import envelope
from schemas.errors import ComityError, Refused, Unreadable
from schemas.keys import SigningKey
from schemas.messages import answer, execute, message
from schemas.messages.advert import MAX_ADVERT_BYTES, receive_advert
from schemas.messages.negotiation import Release, Revoke
from schemas.seal import SEALED_SECRET_BYTES

KEY = SigningKey.generate()
NOW = datetime(2026, 6, 1, tzinfo=UTC)
SECONDS = int(NOW.timestamp())
FIELDS: dict[str, Any] = {
    "typ": "Release",
    "federation": "test",
    "iss": "a.example",
    "aud": "b.example",
    "nid": "n-1",
    "seq": 0,
    "iat": SECONDS,
    "exp": SECONDS + 60,
    "prev": message.FIRST,
    "hold_id": "h-1",
    "reason": "lost",
}


def release(**changes: Any) -> Release:
    return Release.model_validate(FIELDS | {"nonce": message.new_nonce()} | changes)


def receive(data: bytes, key: SigningKey = KEY, now: datetime = NOW) -> message.Received[Release]:
    return message.receive(
        data,
        Release,
        keys=[key.public],
        sender="a.example",
        audience="b.example",
        federation="test",
        now=now,
    )


def test_a_message_is_received_with_its_identity() -> None:
    sent = release()
    data = message.sign(sent, KEY)
    held = receive(data)
    assert (held.body, held.signer, held.envelope) == (sent, KEY.thumbprint, data)
    assert held.digest == envelope.digest(envelope.MESSAGE, sent.write())


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"typ": "Cancel"}, "message.type"),
        ({"iss": "c.example"}, "message.sender"),
        ({"aud": "c.example"}, "message.audience"),
        ({"federation": "other"}, "message.federation"),
        ({"exp": SECONDS + message.MAX_LIFETIME_S + 1}, "message.lifetime"),
        ({"exp": SECONDS}, "message.lifetime"),
        ({"exp": SECONDS - 60}, "message.lifetime"),
        ({"iat": SECONDS + 31, "exp": SECONDS + 60}, "CLOCK_SKEW"),
        ({"iat": SECONDS - 90, "exp": SECONDS - 31}, "message.expired"),
    ],
)
def test_each_refusal_has_its_code(changes: dict[str, Any], code: str) -> None:
    with pytest.raises(Refused) as caught:
        receive(message.sign(release(**changes), KEY))
    assert caught.value.code == code


def test_clocks_may_differ_by_the_tolerance() -> None:
    receive(message.sign(release(iat=SECONDS + 30, exp=SECONDS + 60), KEY))
    receive(message.sign(release(iat=SECONDS - 90, exp=SECONDS - 30), KEY))


def test_authentication_comes_before_parsing() -> None:
    with pytest.raises(Refused, match=r"envelope\.signature_invalid"):
        receive(envelope.sign(envelope.MESSAGE, b"not JSON at all", SigningKey.generate()))
    with pytest.raises(Unreadable, match=r"json\.syntax"):
        receive(envelope.sign(envelope.MESSAGE, b"not JSON at all", KEY))
    with pytest.raises(Refused, match=r"envelope\.payload_type"):
        receive(envelope.sign(envelope.STATEMENT, release().write(), KEY))


@pytest.mark.parametrize("change", [{"nonce": "short"}, {"nid": "a b"}, {"seq": -1}, {"hold": "x"}])
def test_a_malformed_body_is_unreadable(change: dict[str, Any]) -> None:
    body = release().as_json() | change
    with pytest.raises(Unreadable, match=r"schema\.Release"):
        Release.from_json(body)


def test_a_refusal_quotes_no_content() -> None:
    with pytest.raises(Unreadable) as caught:
        Revoke.from_json({"reason": "canary-7731"})
    assert "canary" not in str(caught.value)


def test_a_nonce_counts_once() -> None:
    cache, sent = message.ReplayCache(), release()
    cache.admit(sent, NOW)
    with pytest.raises(Refused, match=r"message\.replayed"):
        cache.admit(sent, NOW + timedelta(seconds=60))
    cache.admit(release(iss="c.example", nonce=sent.nonce), NOW)
    cache.admit(release(), NOW)


def test_a_nonce_is_remembered_until_its_message_has_expired_everywhere() -> None:
    """With the tolerance: as long as `check_times` admits the message, the cache knows its nonce."""
    cache, sent = message.ReplayCache(), release()
    cache.admit(sent, NOW)
    for later in range(0, 60 + message.CLOCK_SKEW_S + 1, 5):
        at = NOW + timedelta(seconds=later)
        message.check_times(sent.iat, sent.exp, at)
        cache.admit(release(exp=SECONDS + 3000), at)
        with pytest.raises(Refused, match=r"message\.replayed"):
            cache.admit(sent, at)


def test_a_full_cache_refuses_instead_of_forgetting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(message, "MAX_REPLAY_ENTRIES", 3)
    cache, first = message.ReplayCache(), release()
    for sent in (first, release(), release()):
        cache.admit(sent, NOW)
    with pytest.raises(Refused, match=r"message\.replay_cache_full"):
        cache.admit(release(), NOW)
    with pytest.raises(Refused, match=r"message\.replayed"):
        cache.admit(first, NOW)
    cache.admit(release(), NOW + timedelta(seconds=91))


def test_a_clock_that_was_set_back_fills_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was swept last in a time to come is swept by the clock as it goes now."""
    monkeypatch.setattr(message, "MAX_REPLAY_ENTRIES", 3)
    cache = message.ReplayCache()
    cache.admit(release(exp=SECONDS + 7260), NOW + timedelta(seconds=7200))
    for later in range(0, 1000, 100):
        cache.admit(release(exp=SECONDS + later + 60), NOW + timedelta(seconds=later))


def test_who_says_too_much_shuts_out_itself_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(message, "MAX_REPLAY_ENTRIES", 3)
    cache = message.ReplayCache()
    for _ in range(3):
        cache.admit(release(), NOW)
    cache.admit(release(iss="c.example"), NOW)
    with pytest.raises(Refused, match=r"message\.replay_cache_full"):
        cache.admit(release(), NOW)


@given(st.binary(min_size=1, max_size=100))
def test_the_head_of_an_execute_stream(header: bytes) -> None:
    sealed = bytes(SEALED_SECRET_BYTES)
    assert execute.unpack(execute.pack(header, sealed)) == (header, sealed)
    for wrong in (execute.pack(header, sealed)[:-1], execute.pack(header, sealed) + b"\0"):
        with pytest.raises(Unreadable, match=r"execute\.head"):
            execute.unpack(wrong)


@pytest.mark.parametrize("size", [0, execute.MAX_HEADER_BYTES + 1, 2**32 - 1])
def test_a_head_of_the_wrong_size_is_refused(size: int) -> None:
    data = struct.pack(">I", size) + bytes(min(size, execute.MAX_HEADER_BYTES + 1) + SEALED_SECRET_BYTES)
    with pytest.raises(Unreadable, match=r"execute\.head"):
        execute.unpack(data)


@given(st.binary(max_size=2000))
def test_any_bytes_are_a_head_or_unreadable(data: bytes) -> None:
    try:
        execute.unpack(data)
    except Unreadable:
        return
    assert len(data) > SEALED_SECRET_BYTES


@given(st.integers(0, 3 * 65532))
def test_a_body_is_cut_and_joined(size: int) -> None:
    body = bytes(size)
    parts = execute.chunk_body(body)
    assert b"".join(parts) == body
    assert 1 <= len(parts) <= execute.MAX_REQUEST_CHUNKS


def test_a_body_is_bounded() -> None:
    assert len(execute.chunk_body(bytes(execute.MAX_BODY_BYTES))) == execute.MAX_REQUEST_CHUNKS
    with pytest.raises(Unreadable, match=r"execute\.body_too_long"):
        execute.chunk_body(bytes(execute.MAX_BODY_BYTES + 1))


@given(st.sampled_from([answer.RUN, answer.CHUNK, answer.PROBLEM]), st.binary(max_size=50))
def test_a_frame_keeps_its_kind(kind: bytes, content: bytes) -> None:
    allowed = answer.RUN + answer.CHUNK + answer.PROBLEM
    tagged = answer.untag(answer.tag(kind, content), allowed)
    assert (tagged.kind, tagged.content) == (kind, content)


@pytest.mark.parametrize("data", [b"", b"S{}", b"\0"])
def test_a_frame_of_another_kind_is_refused(data: bytes) -> None:
    with pytest.raises(Unreadable, match=r"answer\.kind"):
        answer.untag(data, answer.RUN + answer.CHUNK)


@given(st.binary(max_size=200))
def test_any_bytes_are_no_message_and_no_advert(data: bytes) -> None:
    with pytest.raises(ComityError):
        receive(data)
    with pytest.raises(ComityError):
        receive_advert(data, keys=[KEY.public], sender="a.example", federation="test", now=NOW)


def test_an_advert_is_bounded_before_it_is_read() -> None:
    with pytest.raises(Refused, match=r"advert\.too_long"):
        receive_advert(
            bytes(MAX_ADVERT_BYTES + 1), keys=[KEY.public], sender="a.example", federation="test", now=NOW
        )
