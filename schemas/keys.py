"""P-256 keys for statements and messages: one algorithm, named by the key, never by a message.

A key's name is its RFC 7638 thumbprint. Private keys live in files that only their owner reads;
a key found inside a message is never used (session.md 6).
"""

from __future__ import annotations

import base64
import hashlib
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from schemas.canonical import Wire
from schemas.errors import ConfigurationError, Refused, Unreadable

_ES256 = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)
_VERIFY = ec.ECDSA(hashes.SHA256())
# For data whose SHA-256 the caller has already: the same signatures (FIPS 186-5 6.4, RFC 6979 2.4).
_ES256_DIGEST = ec.ECDSA(Prehashed(hashes.SHA256()), deterministic_signing=True)
_VERIFY_DIGEST = ec.ECDSA(Prehashed(hashes.SHA256()))


def base64url(data: bytes) -> str:
    """base64url without padding (RFC 7515 appendix C)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


class Jwk(Wire):
    """A P-256 public key as a JSON Web Key (RFC 7518 6.2)."""

    kty: Literal["EC"] = "EC"
    crv: Literal["P-256"] = "P-256"
    x: str
    y: str


@dataclass(frozen=True, slots=True)
class VerifyKey:
    """A public key that someone registered, with its name."""

    public: ec.EllipticCurvePublicKey = field(repr=False, compare=False)
    thumbprint: str

    @classmethod
    def of(cls, public: ec.EllipticCurvePublicKey) -> Self:
        """Wrap a P-256 public key. Raises `Refused` for any other curve."""
        if not isinstance(public.curve, ec.SECP256R1):
            raise Refused("keys.curve", f"P-256 is required, not {public.curve.name}")
        return cls(public, thumbprint(public))

    @classmethod
    def from_jwk(cls, jwk: Jwk) -> Self:
        """Raises `Unreadable` when the coordinates are no point on the curve."""
        try:
            x, y = (int.from_bytes(_coordinate(part)) for part in (jwk.x, jwk.y))
            return cls.of(ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key())
        except ValueError:
            raise Unreadable("keys.jwk", "not a point on P-256") from None

    @classmethod
    def from_spki(cls, der: bytes) -> Self:
        """From DER SubjectPublicKeyInfo. Raises `Unreadable` or `Refused`."""
        try:
            public = serialization.load_der_public_key(der)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise Unreadable("keys.spki", "not a public key in DER") from None
        if not isinstance(public, ec.EllipticCurvePublicKey):
            raise Refused("keys.curve", "P-256 is required")
        return cls.of(public)

    @property
    def jwk(self) -> Jwk:
        numbers = self.public.public_numbers()
        return Jwk(x=base64url(numbers.x.to_bytes(32)), y=base64url(numbers.y.to_bytes(32)))

    @property
    def spki(self) -> bytes:
        return self.public.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def verify(self, signature: bytes, data: bytes) -> None:
        """Return if the DER ECDSA signature over `data` is this key's. Raises `Refused`."""
        try:
            self.public.verify(signature, data, _VERIFY)
        except InvalidSignature:
            raise Refused("keys.signature_invalid", "the signature is not this key's") from None

    def verify_digest(self, signature: bytes, digest: bytes) -> None:
        """As `verify`, for data of which the SHA-256 (32 bytes) is `digest`."""
        try:
            self.public.verify(signature, digest, _VERIFY_DIGEST)
        except InvalidSignature:
            raise Refused("keys.signature_invalid", "the signature is not this key's") from None


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private P-256 key in memory. Its owner is the program that made or loaded it."""

    private: ec.EllipticCurvePrivateKey = field(repr=False, compare=False)
    public: VerifyKey

    @classmethod
    def generate(cls) -> Self:
        private = ec.generate_private_key(ec.SECP256R1())
        return cls(private, VerifyKey.of(private.public_key()))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read an unencrypted PKCS#8 PEM that only its owner may read. Raises `ConfigurationError`."""
        try:
            private = serialization.load_pem_private_key(read_secret(path), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise ConfigurationError("keys.file", f"{path}: not an unencrypted PKCS#8 PEM") from None
        if not isinstance(private, ec.EllipticCurvePrivateKey) or private.key_size != 256:
            raise ConfigurationError("keys.curve", f"{path}: a P-256 key is required")
        return cls(private, VerifyKey.of(private.public_key()))

    def save(self, path: Path) -> None:
        """Write PKCS#8 PEM with mode 0600. An existing file is never overwritten."""
        write_secret(
            path,
            self.private.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
        )

    @property
    def thumbprint(self) -> str:
        return self.public.thumbprint

    def sign(self, data: bytes) -> bytes:
        """DER ECDSA over SHA-256 of `data`, deterministic nonce (RFC 6979)."""
        return self.private.sign(data, _ES256)

    def sign_digest(self, digest: bytes) -> bytes:
        """As `sign`, byte for byte, for data of which the SHA-256 (32 bytes) is `digest`."""
        return self.private.sign(digest, _ES256_DIGEST)


def thumbprint(public: ec.EllipticCurvePublicKey) -> str:
    """RFC 7638: SHA-256 over the required members in lexicographic order."""
    numbers = public.public_numbers()
    x, y = (base64url(part.to_bytes(32)) for part in (numbers.x, numbers.y))
    return base64url(hashlib.sha256(f'{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}'.encode()).digest())


def _coordinate(text: str) -> bytes:
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if len(data) != 32 or base64url(data) != text:
        raise ValueError("a coordinate is 32 bytes of base64url")
    return data


def read_secret(path: Path) -> bytes:
    """The bytes of a secret file. Refuses one that others may read. Raises `ConfigurationError`."""
    try:
        mode = path.stat().st_mode
        if stat.S_IMODE(mode) & 0o077:
            raise ConfigurationError("keys.file_mode", f"{path}: others may read it; run chmod 600")
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError("keys.file", f"{path}: {error.strerror}") from None


def write_secret(path: Path, data: bytes) -> None:
    """Create a file with mode 0600. Raises `ConfigurationError` when it exists or cannot be written."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
    except OSError as error:
        raise ConfigurationError("keys.file", f"{path}: {error.strerror}") from None
