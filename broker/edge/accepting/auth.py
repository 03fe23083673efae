"""Who is asking: an API key or a JWT, to a tenant with its floor of tags.

API keys are 256 random bits; the configuration holds their SHA-256 only. JWTs are verified under
keys of a local JWK set, each with the one algorithm that the set pins to it: what a token says of
its own algorithm only has to agree. A refusal never says which part was wrong.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from broker.edge.exchange import Tenant
from broker.problems import Forbidden, Unauthenticated
from broker.starting.config import ANY, Issuer, TenantSettings
from schemas.descriptors.request import TagFloor
from schemas.errors import ConfigurationError

MAX_CREDENTIAL_CHARS: Final = 8192  # characters of one Authorization header; a JWT with many claims fits
MAX_JWKS_BYTES: Final = 256 * 1024
MAX_KEYS: Final = 64  # keys in one set
MIN_RSA_BITS: Final = 2048
CLOCK_LEEWAY_S: Final = 30  # seconds between the issuer's clock and ours (session.md 10)
ALGORITHMS: Final = frozenset(
    {"ES256", "ES384", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "EdDSA"}
)
"""Signatures only: no shared secret, no `none`."""

_log = logging.getLogger("comity.broker.auth")


@dataclass(frozen=True, slots=True)
class TrustedIssuer:
    """One issuer of JWTs with its keys, ready for use."""

    settings: Issuer
    keys: Mapping[str, jwt.PyJWK] = field(repr=False)
    """By `kid`. Each key knows its one algorithm."""


class Authenticator:
    """Finds the tenant behind a credential. Immutable after construction; makes no request to anyone."""

    def __init__(self, tenants: Sequence[TenantSettings], issuers: Sequence[Issuer]) -> None:
        """Reads each issuer's key set. Raises `ConfigurationError` for a set that pins too little."""
        self._tenants = {entry.name: _tenant(entry) for entry in tenants}
        self._keys: dict[bytes, tuple[bytes, Tenant]] = {}
        for entry in tenants:
            for text in entry.keys:
                digest = bytes.fromhex(text)
                self._keys[digest[:8]] = (digest, self._tenants[entry.name])
        self._issuers = {entry.iss: TrustedIssuer(entry, read_jwks(entry.jwks)) for entry in issuers}

    def authenticate(self, headers: Sequence[tuple[bytes, bytes]]) -> Tenant:
        """The tenant of this request's `Authorization: Bearer …`.

        headers: raw, names in lower case. Raises `Unauthenticated`, or `Forbidden` for a valid token
        that speaks for a tenant its issuer may not speak for.
        """
        given = [value for name, value in headers if name == b"authorization"]
        if len(given) != 1 or len(given[0]) > MAX_CREDENTIAL_CHARS:
            raise Unauthenticated("auth.missing", "send one header: Authorization: Bearer <key>")
        scheme, _, credential = given[0].decode("latin-1").partition(" ")
        credential = credential.strip()
        if scheme.lower() != "bearer" or not credential.isascii():
            raise Unauthenticated("auth.scheme", "send the key or token as Authorization: Bearer …")
        if self._issuers and credential.count(".") == 2:
            return self._by_token(credential)
        return self._by_key(credential)

    def _by_key(self, key: str) -> Tenant:
        """Look up by a short prefix of the digest, then compare in constant time.

        What timing could show is 8 bytes of a digest of 256 random bits, which lead nowhere.
        """
        digest = hashlib.sha256(key.encode("ascii")).digest()
        expected, tenant = self._keys.get(digest[:8], (bytes(32), None))
        if not hmac.compare_digest(digest, expected) or tenant is None:
            raise Unauthenticated("auth.key", "this key is not known here")
        return tenant

    def _by_token(self, token: str) -> Tenant:
        try:
            issuer, claims = self._verified(token)
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
            _log.info("token refused", extra={"reason": type(error).__name__})
            raise Unauthenticated("auth.token", "this token is not valid here") from None
        name = claims.get(issuer.settings.claim)
        if not isinstance(name, str) or name not in issuer.settings.tenants:
            raise Forbidden("auth.tenant", "this token speaks for no tenant that its issuer may name")
        return self._tenants[name]

    def _verified(self, token: str) -> tuple[TrustedIssuer, dict[str, Any]]:
        """The token's claims. What it says before verification only chooses which key to try."""
        header = jwt.get_unverified_header(token)
        stated = jwt.decode(token, options={"verify_signature": False}).get("iss")
        issuer = self._issuers.get(stated) if isinstance(stated, str) else None
        key = issuer.keys.get(str(header.get("kid"))) if issuer else None
        if issuer is None or key is None:
            raise jwt.InvalidKeyError("unknown")
        claims = jwt.decode(
            token,
            key.key,
            algorithms=[key.algorithm_name],
            audience=issuer.settings.aud,
            issuer=issuer.settings.iss,
            leeway=CLOCK_LEEWAY_S,
            options={"require": ["exp", "iss", "aud"], "strict_aud": False},
        )
        return issuer, claims


def _tenant(entry: TenantSettings) -> Tenant:
    floor = entry.floor if isinstance(entry.floor, TagFloor) else TagFloor()
    policy = None if entry.policy == ANY else entry.policy
    return Tenant(entry.name, floor, policy, entry.weights, entry.retention)


def read_jwks(path: Path) -> dict[str, jwt.PyJWK]:
    """Public keys by `kid`, each pinned to its `alg` (RFC 8725 3.1). Raises `ConfigurationError`."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_JWKS_BYTES + 1)
        entries = json.loads(data)["keys"] if len(data) <= MAX_JWKS_BYTES else None
        if not isinstance(entries, list) or not 1 <= len(entries) <= MAX_KEYS:
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise ConfigurationError(
            "config.jwks", f"{path}: expected a JSON Web Key Set with 1 to {MAX_KEYS} keys"
        ) from None
    keys: dict[str, jwt.PyJWK] = {}
    for at, entry in enumerate(entries):
        kid, key = _read_jwk(entry, f"{path}: keys.{at}")
        if kid in keys:
            raise ConfigurationError("config.jwks", f"{path}: keys.{at}: kid {kid!r} stands there twice")
        keys[kid] = key
    return keys


def _read_jwk(entry: object, where: str) -> tuple[str, jwt.PyJWK]:
    if not isinstance(entry, dict) or not isinstance(entry.get("kid"), str):
        raise ConfigurationError("config.jwks", f"{where}: kid must be written")
    if entry.get("alg") not in ALGORITHMS:
        raise ConfigurationError(
            "config.jwks", f"{where}: alg must be one of {', '.join(sorted(ALGORITHMS))}"
        )
    if entry.get("use", "sig") != "sig":
        raise ConfigurationError("config.jwks", f"{where}: expected a key for signatures")
    try:
        key = jwt.PyJWK(entry)
    except (jwt.PyJWTError, ValueError, TypeError) as error:
        raise ConfigurationError(
            "config.jwks", f"{where}: not a usable key: {type(error).__name__}"
        ) from None
    if not _fits(key):
        raise ConfigurationError(
            "config.jwks", f"{where}: not a public key that fits its alg (RSA: {MIN_RSA_BITS} bits or more)"
        )
    return entry["kid"], key


def _fits(key: jwt.PyJWK) -> bool:
    """Whether a key is public and of the kind that its pinned algorithm needs (RFC 7518 3.1, RFC 8037)."""
    match key.key:
        case rsa.RSAPublicKey():
            return key.algorithm_name[:2] in ("RS", "PS") and key.key.key_size >= MIN_RSA_BITS
        case ec.EllipticCurvePublicKey():
            return (key.algorithm_name, key.key.curve.name) in (
                ("ES256", "secp256r1"),
                ("ES384", "secp384r1"),
            )
        case ed25519.Ed25519PublicKey():
            return key.algorithm_name == "EdDSA"
    return False
