"""API keys and JWTs: what lets a tenant in, and every known way to forge one."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from broker.edge.accepting.auth import Authenticator, read_jwks
from broker.edge.tests.scripted import KEY, TENANTS, digest
from broker.problems import Forbidden, Unauthenticated
from broker.starting.config import Issuer, TenantSettings
from schemas.errors import ConfigurationError

ISS, AUD = "https://login.clinic.de", "comity"
EC_KEY = ec.generate_private_key(ec.SECP256R1())
RSA_KEY = rsa.generate_private_key(65537, 2048)
ED_KEY = ed25519.Ed25519PrivateKey.generate()
PLAIN_KEYS = Authenticator(TENANTS, ())


def jwk(key: Any, kid: str, alg: str, **more: Any) -> dict[str, Any]:
    algorithm = jwt.get_algorithm_by_name(alg)
    return {**json.loads(algorithm.to_jwk(key.public_key())), "kid": kid, "alg": alg, **more}


JWKS = {"keys": [jwk(EC_KEY, "ec", "ES256"), jwk(RSA_KEY, "rsa", "RS256"), jwk(ED_KEY, "ed", "EdDSA")]}


def write_jwks(folder: Path, document: Any) -> Path:
    path = folder / "jwks.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


@pytest.fixture
def tokens(tmp_path: Path) -> Authenticator:
    path = write_jwks(tmp_path, JWKS)
    other = TenantSettings(name="archive", floor="any", policy="any")
    issuer = Issuer(iss=ISS, aud=AUD, jwks=path, tenants=("radiology",))
    return Authenticator((*TENANTS, other), (issuer,))


def claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    values = {"iss": ISS, "aud": AUD, "exp": now + 300, "iat": now, "tenant": "radiology", **changes}
    return {name: value for name, value in values.items() if value is not None}


def bearer(credential: str | bytes) -> list[tuple[bytes, bytes]]:
    raw = credential if isinstance(credential, bytes) else credential.encode("latin-1")
    return [(b"host", b"x"), (b"authorization", b"Bearer " + raw)]


def signed(kid: str = "ec", key: Any = EC_KEY, alg: str = "ES256", **changes: Any) -> str:
    return jwt.encode(claims(**changes), key, alg, headers={"kid": kid})


def encoded(header: dict[str, Any], payload: dict[str, Any], signature: bytes) -> str:
    parts = [json.dumps(header).encode(), json.dumps(payload).encode(), signature]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def test_a_key_finds_its_tenant() -> None:
    assert PLAIN_KEYS.authenticate(bearer(KEY)).name == "radiology"
    assert PLAIN_KEYS.authenticate([(b"authorization", b"bearer  " + KEY.encode())]).name == "radiology"


def test_a_digest_that_only_begins_alike_is_another_key() -> None:
    alike = TenantSettings(name="alike", floor="any", policy="any", keys=(digest(KEY)[:16] + "0" * 48,))
    with pytest.raises(Unauthenticated):
        Authenticator([alike], ()).authenticate(bearer(KEY))


@given(st.binary(max_size=200))
def test_no_other_bytes_are_a_key(data: bytes) -> None:
    with pytest.raises(Unauthenticated):
        PLAIN_KEYS.authenticate([(b"authorization", data)])
    if data.strip().decode("latin-1") != KEY:
        with pytest.raises(Unauthenticated):
            PLAIN_KEYS.authenticate(bearer(data))


@pytest.mark.parametrize(
    ("kid", "key", "alg"), [("ec", EC_KEY, "ES256"), ("rsa", RSA_KEY, "RS256"), ("ed", ED_KEY, "EdDSA")]
)
def test_a_token_finds_its_tenant(tokens: Authenticator, kid: str, key: Any, alg: str) -> None:
    assert tokens.authenticate(bearer(signed(kid, key, alg))).name == "radiology"
    assert tokens.authenticate(bearer(signed(kid, key, alg, aud=["other", AUD]))).name == "radiology"
    assert tokens.authenticate(bearer(KEY)).name == "radiology"


def forged_with_public_key(kid: str, key: Any) -> str:
    """HS256 keyed with what everyone knows: the public key in PEM (the algorithm-confusion attack)."""
    pem = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    unsigned = encoded({"alg": "HS256", "typ": "JWT", "kid": kid}, claims(), b"").rstrip(".")
    mac = hmac.digest(pem, unsigned.encode(), hashlib.sha256)
    return unsigned + "." + base64.urlsafe_b64encode(mac).rstrip(b"=").decode()


def tampered() -> str:
    head, _, signature = signed().split(".")
    body = base64.urlsafe_b64encode(json.dumps(claims(tenant="billing")).encode()).rstrip(b"=").decode()
    return f"{head}.{body}.{signature}"


STRANGER = ec.generate_private_key(ec.SECP256R1())
FORGERIES = {
    "alg none": encoded({"alg": "none", "kid": "ec"}, claims(), b""),
    "alg None": encoded({"alg": "NoNe", "kid": "ec"}, claims(), b""),
    "no signature": signed().rpartition(".")[0] + ".",
    "public EC key as a shared secret": forged_with_public_key("ec", EC_KEY),
    "public RSA key as a shared secret": forged_with_public_key("rsa", RSA_KEY),
    "another algorithm of the same key": signed("rsa", RSA_KEY, "PS256"),
    "a stranger's key": signed(key=STRANGER),
    "a key inside the token": jwt.encode(
        claims(), STRANGER, "ES256", headers={"kid": "x", "jwk": jwk(STRANGER, "x", "ES256")}
    ),
    "no kid": jwt.encode(claims(), EC_KEY, "ES256"),
    "another key's kid": signed("rsa"),
    "a critical extension": jwt.encode(
        claims(), EC_KEY, "ES256", headers={"kid": "ec", "crit": ["b64"], "b64": True}
    ),
    "an extension nobody knows": jwt.encode(
        claims(), EC_KEY, "ES256", headers={"kid": "ec", "crit": ["x"], "x": 1}
    ),
    "tampered claims": tampered(),
    "expired": signed(exp=int(time.time()) - 60),
    "not yet valid": signed(nbf=int(time.time()) + 86_400),
    "no exp": signed(exp=None),
    "another audience": signed(aud="payroll"),
    "no audience": signed(aud=None),
    "another issuer": signed(iss="https://login.evil.example"),
    "an issuer that only begins like ours": signed(iss=ISS + ".evil.example"),
    "no issuer": signed(iss=None),
    "three parts of nothing": "a.b.c",
    "deep nesting": ".".join([base64.urlsafe_b64encode(b"[" * 2000).decode().rstrip("=")] * 2) + ".",
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_token_is_refused(tokens: Authenticator, name: str) -> None:
    with pytest.raises(Unauthenticated) as caught:
        tokens.authenticate(bearer(FORGERIES[name]))
    assert caught.value.code == "auth.token"
    assert caught.value.text == "this token is not valid here"


@pytest.mark.parametrize("tenant", ["billing", "archive", "nobody", None, ["radiology"], 7])
def test_a_token_speaks_only_for_its_issuers_tenants(tokens: Authenticator, tenant: Any) -> None:
    with pytest.raises(Forbidden):
        tokens.authenticate(bearer(signed(tenant=tenant)))


@given(st.text(alphabet="abcXYZ019-_.=", max_size=120))
def test_any_text_is_a_typed_refusal(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = write_jwks(tmp_path_factory.getbasetemp(), JWKS)
    issuer = Issuer(iss=ISS, aud=AUD, jwks=path, tenants=("radiology",))
    with pytest.raises(Unauthenticated):
        Authenticator(TENANTS, (issuer,)).authenticate(bearer(text))


SMALL = rsa.generate_private_key(65537, 1024)
WRONG_SETS: list[Any] = [
    [],
    {"keys": []},
    {"keys": [{"kty": "EC"}]},
    {"keys": [{name: value for name, value in jwk(EC_KEY, "a", "ES256").items() if name != "alg"}]},
    {"keys": [jwk(EC_KEY, "a", "ES256") | {"alg": "HS256"}]},
    {"keys": [jwk(EC_KEY, "a", "ES256") | {"alg": "ES384"}]},
    {"keys": [jwk(EC_KEY, "a", "ES256") | {"alg": "RS256"}]},
    {"keys": [jwk(EC_KEY, "a", "ES256"), jwk(RSA_KEY, "a", "RS256")]},
    {"keys": [jwk(EC_KEY, "a", "ES256", use="enc")]},
    {"keys": [{**json.loads(jwt.get_algorithm_by_name("ES256").to_jwk(EC_KEY)), "kid": "a", "alg": "ES256"}]},
    {"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "a", "alg": "HS256"}]},
    {"keys": [jwk(SMALL, "a", "RS256")]},
]


@pytest.mark.parametrize("at", range(len(WRONG_SETS)))
def test_a_key_set_that_pins_too_little_is_a_configuration_error(tmp_path: Path, at: int) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_jwks(write_jwks(tmp_path, WRONG_SETS[at]))
    assert "jwks.json" in caught.value.text
