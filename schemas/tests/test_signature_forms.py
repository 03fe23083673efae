"""ECDSA signatures in other spellings than DER, or with numbers that prove nothing (SEC 1 4.1.4)."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

from schemas.canonical import sha256
from schemas.errors import Refused
from schemas.keys import SigningKey

KEY = SigningKey.generate()
DATA = b"what was signed"
GOOD = KEY.sign(DATA)
R, S = decode_dss_signature(GOOD)
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""Order of P-256's group (FIPS 186-5, SP 800-186 3.2.1.3)."""
P = 0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF


def tlv(tag: int, content: bytes) -> bytes:
    """BER with the shortest length."""
    size = len(content)
    return bytes((tag, size) if size < 128 else (tag, 0x81, size)) + content


def integer(value: int, *, padding: bytes = b"") -> bytes:
    return tlv(2, padding + value.to_bytes(value.bit_length() // 8 + 1, signed=True))


def pair(*parts: bytes) -> bytes:
    return tlv(0x30, b"".join(parts))


def numbers(r: int, s: int) -> bytes:
    """A signature of these, which may be below zero."""
    return pair(integer(r), integer(s))


BODY = integer(R) + integer(S)
FORMS = {
    "empty": b"",
    "an empty sequence": pair(),
    "one number": pair(integer(R)),
    "three numbers": pair(integer(R), integer(S), integer(1)),
    "r and s as they are": R.to_bytes(32) + S.to_bytes(32),
    "a set": tlv(0x31, BODY),
    "a byte behind": GOOD + b"\0",
    "a byte inside": pair(BODY, b"\0"),
    "a null inside": pair(BODY, tlv(5, b"")),
    "a byte missing": GOOD[:-1],
    "a length in long form": b"\x30\x81" + GOOD[1:],
    "a length in longer form": b"\x30\x82\x00" + GOOD[1:],
    "no definite length": b"\x30\x80" + BODY + b"\0\0",
    "r with a zero before": pair(integer(R, padding=b"\0"), integer(S)),
    "s with a zero before": pair(integer(R), integer(S, padding=b"\0")),
    "r as text": pair(tlv(4, R.to_bytes(32)), integer(S)),
    "r wrapped": pair(tlv(0xA0, integer(R)), integer(S)),
    "an r of no bytes": pair(tlv(2, b""), integer(S)),
    "a negative r": pair(tlv(2, b"\xff" + R.to_bytes(32)), integer(S)),
    "r below zero by N": numbers(R - N, S),
    "s below zero by N": numbers(R, S - N),
    "turned about": numbers(S, R),
}
NUMBERS = {
    "0": 0, "1": 1, "-1": -1, "N - 1": N - 1, "N": N, "N + 1": N + 1,
    "P": P, "P + 1": P + 1, "2^256": 1 << 256,
}  # fmt: skip


def refuses(signature: bytes) -> None:
    for check, signed in ((KEY.public.verify, DATA), (KEY.public.verify_digest, sha256(DATA))):
        with pytest.raises(Refused, match=r"keys\.signature_invalid"):
            check(signature, signed)


@pytest.mark.parametrize("form", FORMS)
def test_a_signature_has_one_spelling(form: str) -> None:
    KEY.public.verify(numbers(R, S), DATA)
    refuses(FORMS[form])


@pytest.mark.parametrize("r", NUMBERS)
@pytest.mark.parametrize("s", NUMBERS)
def test_numbers_that_prove_nothing(r: str, s: str) -> None:
    refuses(numbers(NUMBERS[r], NUMBERS[s]))


@pytest.mark.parametrize("added", [N, 2 * N, -2 * N])
def test_numbers_of_the_same_rest_are_others(added: int) -> None:
    refuses(numbers(R + added, S))
    refuses(numbers(R, S + added))


def test_the_other_half_holds_and_names_nothing() -> None:
    """(r, N - s) verifies too: why no identifier is made from a signature (receipts.md 5)."""
    KEY.public.verify(numbers(R, N - S), DATA)


@given(st.integers(0, len(GOOD) * 8 - 1))
def test_no_bit_of_a_signature_is_free(bit: int) -> None:
    refuses(bytes(each ^ (1 << bit % 8 if at == bit // 8 else 0) for at, each in enumerate(GOOD)))
