from __future__ import annotations

import hashlib
import json
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import given
from hypothesis import strategies as st

from schemas.canonical import jcs
from schemas.errors import ComityError, ConfigurationError, Refused, Unreadable
from schemas.keys import Jwk, SigningKey, VerifyKey, base64url, read_secret, write_secret

KEY = SigningKey.generate()
PEM, PKCS8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
SPKI = serialization.PublicFormat.SubjectPublicKeyInfo


def test_a_thumbprint_is_rfc_7638() -> None:
    required = KEY.public.jwk.as_json()
    assert base64url(hashlib.sha256(jcs(required)).digest()) == KEY.thumbprint
    assert len(KEY.thumbprint) == 43


def test_a_key_survives_each_of_its_forms() -> None:
    for again in (VerifyKey.from_jwk(KEY.public.jwk), VerifyKey.from_spki(KEY.public.spki)):
        assert again.thumbprint == KEY.thumbprint
        again.verify(KEY.sign(b"data"), b"data")


def test_signatures_are_deterministic_and_bound_to_their_data() -> None:
    assert KEY.sign(b"data") == KEY.sign(b"data")
    with pytest.raises(Refused, match=r"keys\.signature_invalid"):
        KEY.public.verify(KEY.sign(b"data"), b"Data")
    with pytest.raises(Refused, match=r"keys\.signature_invalid"):
        SigningKey.generate().public.verify(KEY.sign(b"data"), b"data")


def test_only_p256_speaks() -> None:
    for private in (ec.generate_private_key(ec.SECP384R1()), ed25519.Ed25519PrivateKey.generate()):
        der = private.public_key().public_bytes(serialization.Encoding.DER, SPKI)
        with pytest.raises(Refused, match=r"keys\.curve"):
            VerifyKey.from_spki(der)


@pytest.mark.parametrize(
    "change",
    [
        {"x": "A" * 42},
        {"x": "A" * 44},
        {"x": "A" * 43},
        {"y": base64url(b"\1" * 31)},
        {"x": "!" * 43},
        {"x": "ä" * 43},
        {"x": ""},
    ],
)
def test_coordinates_that_are_no_point(change: dict[str, str]) -> None:
    with pytest.raises(Unreadable) as caught:
        VerifyKey.from_jwk(Jwk.model_validate(KEY.public.jwk.as_json() | change))
    assert caught.value.code == "keys.jwk"


@pytest.mark.parametrize("change", [{"crv": "P-384"}, {"kty": "OKP"}, {"alg": "none"}, {"d": "AA"}])
def test_a_jwk_is_public_and_p256(change: dict[str, str]) -> None:
    with pytest.raises(Unreadable):
        Jwk.read(json.dumps(KEY.public.jwk.as_json() | change).encode())


@given(st.binary(max_size=120) | st.integers(0, 90).map(lambda cut: KEY.public.spki[:cut]))
def test_any_bytes_are_a_key_or_a_typed_error(data: bytes) -> None:
    with pytest.raises(ComityError):
        VerifyKey.from_spki(data)


@given(st.integers(0, 90), st.integers(1, 255))
def test_a_spoiled_key_is_another_key_or_a_typed_error(at: int, flip: int) -> None:
    data = bytearray(KEY.public.spki)
    data[at] ^= flip
    try:
        assert VerifyKey.from_spki(bytes(data)).thumbprint != KEY.thumbprint
    except ComityError:
        return


def test_a_secret_file_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    KEY.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert SigningKey.load(path).thumbprint == KEY.thumbprint
    with pytest.raises(ConfigurationError, match="exists"):
        KEY.save(path)
    path.chmod(0o640)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        SigningKey.load(path)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        KEY.private.private_bytes(PEM, PKCS8, serialization.BestAvailableEncryption(b"secret")),
        ed25519.Ed25519PrivateKey.generate().private_bytes(PEM, PKCS8, serialization.NoEncryption()),
        ec.generate_private_key(ec.SECP384R1()).private_bytes(PEM, PKCS8, serialization.NoEncryption()),
    ],
)
def test_a_file_that_holds_no_usable_key_is_named(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "key.pem"
    write_secret(path, data)
    with pytest.raises(ConfigurationError, match=r"key\.pem"):
        SigningKey.load(path)


def test_a_missing_secret_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"absent: No such file"):
        read_secret(tmp_path / "absent")


def test_a_private_key_does_not_print_itself() -> None:
    number = KEY.private.private_numbers().private_value
    assert str(number) not in repr(KEY)
    assert "PrivateKey object" not in repr(KEY)
