"""The seal: what is refused, and known answers computed by other means than the code under test."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import seal
from schemas.errors import ComityError, Refused, Unreadable

SECRET, HEADER, RUN = b"\1" * 32, b"\2" * 32, b"\3" * 32
SEALED = b"\4" * seal.SEALED_SECRET_BYTES
NODE = seal.SealKey.generate()
TEXTS = [b"one", b"two " * 100, b"", b"x" * seal.MAX_CHUNK_TEXT]


def answer() -> tuple[seal.ChunkSealer, seal.ChunkOpener]:
    ends = (SECRET, HEADER, SEALED, RUN)
    return seal.answer_sealer(*ends), seal.answer_opener(*ends)


def sealed_stream() -> list[bytes]:
    sealer, _ = answer()
    return [sealer.seal(text, final=at == len(TEXTS) - 1) for at, text in enumerate(TEXTS)]


def open_all(chunks: list[bytes]) -> list[bytes]:
    _, opener = answer()
    return [opener.open(chunk) for chunk in chunks]


def refusal(chunks: list[bytes]) -> str:
    with pytest.raises(ComityError) as caught:
        open_all(chunks)
    return caught.value.code


def hkdf(secret: bytes, salt: bytes, info: bytes) -> bytes:
    """RFC 5869 for one block of SHA-256, written out."""
    prk = hmac.digest(salt or bytes(32), secret, "sha256")
    return hmac.digest(prk, info + b"\1", "sha256")


def test_a_stream_is_opened_as_it_was_sealed() -> None:
    sealer, opener = answer()
    for at, text in enumerate(TEXTS):
        assert opener.open(sealer.seal(text, final=at == 3)) == text
        assert opener.done == (at == 3)


def test_every_rearrangement_is_refused() -> None:
    one, two, three, four = sealed_stream()
    assert refusal([two]) == "seal.chunk_invalid"
    assert refusal([one, three]) == "seal.chunk_invalid"
    assert refusal([one, one]) == "seal.chunk_invalid"
    assert refusal([two, one]) == "seal.chunk_invalid"
    assert refusal([one, two, three, four, four]) == "seal.after_final"
    assert refusal([one, two, four]) == "seal.chunk_invalid"


def test_a_truncated_stream_is_never_done() -> None:
    _, opener = answer()
    for chunk in sealed_stream()[:-1]:
        opener.open(chunk)
    assert not opener.done


def test_the_final_flag_is_bound() -> None:
    one, *_, four = sealed_stream()
    assert refusal([b"\1" + one[1:]]) == "seal.chunk_invalid"
    assert refusal([*sealed_stream()[:-1], b"\0" + four[1:]]) == "seal.chunk_invalid"
    assert refusal([b"\2" + one[1:]]) == "seal.chunk"


def test_a_wrong_chunk_ends_the_stream_for_good() -> None:
    one, two, *_ = sealed_stream()
    _, opener = answer()
    for chunk in (two, one):
        with pytest.raises(Refused):
            opener.open(chunk)
    with pytest.raises(Refused, match=r"seal\.broken"):
        opener.open(one)


def test_nothing_is_sealed_after_the_final_chunk() -> None:
    sealer, _ = answer()
    sealer.seal(b"", final=True)
    with pytest.raises(Refused, match=r"seal\.after_final"):
        sealer.seal(b"more")


@pytest.mark.parametrize(
    ("secret", "header", "sealed", "run"),
    [
        (b"\7" * 32, HEADER, SEALED, RUN),
        (SECRET, b"\7" * 32, SEALED, RUN),
        (SECRET, HEADER, b"\7" * len(SEALED), RUN),
        (SECRET, HEADER, SEALED, b"\7" * 32),
    ],
)
def test_chunks_of_another_attempt_are_refused(
    secret: bytes, header: bytes, sealed: bytes, run: bytes
) -> None:
    chunk = sealed_stream()[0]
    with pytest.raises(Refused, match=r"seal\.chunk_invalid"):
        seal.answer_opener(secret, header, sealed, run).open(chunk)


def test_directions_share_no_key() -> None:
    chunk = seal.request_sealer(SECRET, HEADER).seal(b"prompt")
    assert seal.request_opener(SECRET, HEADER).open(chunk) == b"prompt"
    with pytest.raises(Refused):
        seal.answer_opener(SECRET, HEADER, SEALED, RUN).open(chunk)
    with pytest.raises(Refused):
        seal.request_opener(SECRET, HEADER).open(sealed_stream()[0])


@given(st.integers(0, 3), st.data())
def test_any_flipped_bit_is_refused(index: int, data: st.DataObject) -> None:
    chunks = sealed_stream()
    at = data.draw(st.integers(0, len(chunks[index]) - 1))
    spoiled = bytearray(chunks[index])
    spoiled[at] ^= 1 << data.draw(st.integers(0, 7))
    chunks[index] = bytes(spoiled)
    assert refusal(chunks) in {"seal.chunk_invalid", "seal.chunk"}


@given(st.binary(max_size=400))
def test_any_bytes_are_refused(data: bytes) -> None:
    assert refusal([data]) in {"seal.chunk_invalid", "seal.chunk"}


@given(st.integers(0, seal.MAX_CHUNK_TEXT))
def test_padding_shows_a_bucket_alone(size: int) -> None:
    padded = seal.pad(b"a" * size)
    assert len(padded) in seal.PADDING_BUCKETS
    assert not [bucket for bucket in seal.PADDING_BUCKETS if size + 4 <= bucket < len(padded)]
    assert seal.unpad(padded) == b"a" * size


@pytest.mark.parametrize(
    "padded",
    [
        b"",
        b"\0" * 255,
        (253).to_bytes(4, "big") + bytes(252),
        (1).to_bytes(4, "big") + b"ab" + bytes(250),
        b"\xff" * 256,
    ],
)
def test_wrong_padding_is_refused(padded: bytes) -> None:
    with pytest.raises(Refused, match=r"seal\.padding"):
        seal.unpad(padded)


def test_what_no_chunk_can_hold_is_refused() -> None:
    with pytest.raises(Refused, match=r"seal\.chunk_too_long"):
        seal.pad(bytes(seal.MAX_CHUNK_TEXT + 1))
    with pytest.raises(Unreadable, match=r"seal\.run_nonce"):
        seal.answer_sealer(SECRET, HEADER, SEALED, b"short")


def test_a_secret_opens_with_its_key_under_its_header_alone() -> None:
    secret = seal.new_secret()
    sealed = seal.seal_secret(secret, NODE.public, HEADER)
    assert len(sealed) == seal.SEALED_SECRET_BYTES
    assert NODE.open_secret(sealed, HEADER) == secret
    assert seal.seal_secret(secret, NODE.public, HEADER) != sealed
    with pytest.raises(Refused, match=r"seal\.secret_invalid"):
        NODE.open_secret(sealed, b"\7" * 32)
    with pytest.raises(Refused, match=r"seal\.secret_invalid"):
        seal.SealKey.generate().open_secret(sealed, HEADER)
    with pytest.raises(Unreadable, match=r"seal\.secret_length"):
        NODE.open_secret(sealed[:-1], HEADER)


@given(st.integers(0, seal.SEALED_SECRET_BYTES - 1), st.integers(1, 255))
def test_a_spoiled_secret_is_refused(at: int, flip: int) -> None:
    sealed = bytearray(seal.seal_secret(SECRET, NODE.public, HEADER))
    sealed[at] ^= flip
    with pytest.raises(Refused, match=r"seal\.secret_invalid"):
        NODE.open_secret(bytes(sealed), HEADER)


@pytest.mark.parametrize(
    "key", [b"", b"\xff" * seal.SEAL_KEY_BYTES, NODE.public[:1184] + bytes(32), NODE.public[:-1]]
)
def test_what_is_no_seal_key_is_refused(key: bytes) -> None:
    with pytest.raises(Refused, match=r"seal\.key"):
        seal.seal_secret(SECRET, key, HEADER)


def test_keys_and_commitments_derive_as_written() -> None:
    body = hmac.digest(hkdf(SECRET, b"", b"comity commit in"), b"body", "sha256")
    assert seal.input_commitment(SECRET, b"body") == body
    output = hmac.digest(hkdf(SECRET, b"", b"comity commit out"), b"body", "sha256")
    assert seal.output_commitment(SECRET, b"body") == output
    assert hkdf(SECRET, HEADER, b"comity req") != hkdf(SECRET, b"", b"comity req")


def test_frozen_known_answers() -> None:
    """These bytes never change: an old receipt and a peer of an older version depend on them."""
    assert seal.input_commitment(SECRET, b"body").hex() == INPUT_COMMITMENT
    assert seal.output_commitment(SECRET, b"body").hex() == OUTPUT_COMMITMENT
    request = seal.request_sealer(SECRET, HEADER).seal(b"prompt", final=True)
    assert hashlib.sha256(request).hexdigest() == REQUEST_CHUNK
    assert hashlib.sha256(sealed_stream()[0]).hexdigest() == ANSWER_CHUNK


INPUT_COMMITMENT = "5e0f6245687b7e871ba561aaf8d0f12d5a01168500d4e26b61288b2ad0a077d7"
OUTPUT_COMMITMENT = "a5e290c4541f6d8a14e82e2e8b586e7bf978332c35dc9dba877dec087d6e2ffc"
REQUEST_CHUNK = "0d6dd0ddb4458870fc5a66d15ede34a720226ced794a76b51ae993df6f42231a"
ANSWER_CHUNK = "4f8618fc0f64af948e435229272e31d91eac8178f87aebec8a0efe9dd77fcebf"
