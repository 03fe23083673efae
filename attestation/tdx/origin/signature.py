"""ECDSA on P-256 with SHA-256, the one algorithm of Intel's attestation (DCAP; FIPS 186-5 6.4.2).

What `attestation.pki.ecdsa` says of both its forms holds here. What is remembered is that a signature is
good, never that anything is valid now; a failure is never remembered.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from attestation.pki.ecdsa import Ecdsa
from schemas.errors import Refused

ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # n of P-256, SEC 2
CACHED_KEYS: Final = 1024

P256: Final = Ecdsa(
    curve=ec.SECP256R1,
    curve_name="P-256",
    order=ORDER,
    hashing=ec.ECDSA(hashes.SHA256()),
    algorithm=bytes.fromhex("300a06082a8648ce3d040302"),
    algorithm_name="ecdsa-with-SHA256",
    raw_bytes=64,
)

p256_of = P256.key_of
verify_raw = P256.verify_raw
verify_signed = P256.verify_signed


@lru_cache(maxsize=CACHED_KEYS)
def read_point(key: bytes) -> ec.EllipticCurvePublicKey:
    """The P-256 key of x ‖ y. Raises `Refused` (`tdx.att_key_invalid`) when it is no point of the curve."""
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + key)
    except ValueError:
        raise Refused("tdx.att_key_invalid", "not a point of P-256") from None
