"""ECDSA on P-256 with SHA-256, the one algorithm of Intel's attestation (DCAP; FIPS 186-5 6.4.2).

Each function returns what was signed or raises. Signatures in X.509 are DER and must be in its one
spelling; those in quotes and collateral are r ‖ s, big endian. What is remembered is that a signature
is good, never that anything is valid now; a failure is never remembered.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, cast

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from attestation.x509 import Certificate, Crl
from schemas.errors import Refused

ALGORITHM: Final = bytes.fromhex("300a06082a8648ce3d040302")  # ecdsa-with-SHA256, RFC 5758 3.2
ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # n of P-256, SEC 2
RAW_BYTES: Final = 64
CACHED_KEYS: Final = 1024

_ECDSA: Final = ec.ECDSA(hashes.SHA256())


@lru_cache(maxsize=CACHED_KEYS)
def read_point(key: bytes) -> ec.EllipticCurvePublicKey:
    """The P-256 key of x ‖ y. Raises `Refused` (`tdx.att_key_invalid`) when it is no point of the curve."""
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + key)
    except ValueError:
        raise Refused("tdx.att_key_invalid", "not a point of P-256") from None


def p256_of(certificate: Certificate) -> ec.EllipticCurvePublicKey:
    """The certificate's key. Raises `Refused` (`signature.key`) when it is not on P-256."""
    key = certificate.public_key
    if type(getattr(key, "curve", None)) is not ec.SECP256R1:
        raise Refused("signature.key", f"{certificate.common_name} has no P-256 key")
    return cast(ec.EllipticCurvePublicKey, key)


def verify_raw(key: ec.EllipticCurvePublicKey, signature: bytes, signed: bytes) -> bytes:
    """Return what this key signed with r ‖ s. Raises `Refused` (`signature.invalid`)."""
    if len(signature) != RAW_BYTES:
        raise Refused("signature.invalid", f"{len(signature)} bytes instead of {RAW_BYTES}")
    r, s = int.from_bytes(signature[:32]), int.from_bytes(signature[32:])
    if not (0 < r < ORDER and 0 < s < ORDER):  # FIPS 186-5 6.4.2 step 1
        raise Refused("signature.invalid", "r or s outside 1..n-1")
    return _verify(key, encode_dss_signature(r, s), signed)


def verify_signed(document: Certificate | Crl, issuer: Certificate) -> bytes:
    """Return the signed part of a certificate or CRL that this issuer signed. Raises `Refused`."""
    if document.signed.algorithm != ALGORITHM or document.inner_algorithm != ALGORITHM:
        raise Refused("signature.invalid", "not ecdsa-with-SHA256, inside and outside alike")
    signature = document.signed.signature
    try:
        canonical = encode_dss_signature(*decode_dss_signature(signature)) == signature
    except ValueError:
        canonical = False
    if not canonical:
        raise Refused("signature.invalid", "a signature that is not DER")
    return _verify(p256_of(issuer), signature, document.signed.tbs)


def _verify(key: ec.EllipticCurvePublicKey, signature: bytes, signed: bytes) -> bytes:
    try:
        key.verify(signature, signed, _ECDSA)
    except InvalidSignature:
        raise Refused("signature.invalid", "does not verify") from None
    return signed
