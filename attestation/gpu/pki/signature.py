"""ECDSA on P-384 with SHA-384, the one algorithm of NVIDIA's devices and manifests (FIPS 186-5 6.4.2).

Each function returns what was signed or raises. Signatures in X.509 are DER and must be in its one
spelling; those in reports and manifests are r ‖ s, big endian. A failure is never remembered.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from attestation.x509 import Certificate, Crl, read_certificate
from schemas.errors import Refused

ALGORITHM: Final = bytes.fromhex("300a06082a8648ce3d040303")  # ecdsa-with-SHA384, RFC 5758 3.2
ORDER: Final = int(
    "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973", 16
)
"""n of P-384 (SEC 2)."""
RAW_BYTES: Final = 96
CACHED_LINKS: Final = 4096
"""Links between certificates: two of each device's own, three of a family, three of a manifest signer."""

_ECDSA: Final = ec.ECDSA(hashes.SHA384())


def p384_of(certificate: Certificate) -> ec.EllipticCurvePublicKey:
    """The certificate's key. Raises `Refused` (`signature.key`) when it is not on P-384."""
    key = certificate.public_key
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise Refused("signature.key", f"{certificate.common_name} has no P-384 key")
    return key


def verify_raw(key: ec.EllipticCurvePublicKey, signature: bytes, signed: bytes) -> bytes:
    """Return what this key signed with r ‖ s. Raises `Refused` (`signature.invalid`)."""
    if len(signature) != RAW_BYTES:
        raise Refused("signature.invalid", f"{len(signature)} bytes instead of {RAW_BYTES}")
    r, s = int.from_bytes(signature[:48]), int.from_bytes(signature[48:])
    if not (0 < r < ORDER and 0 < s < ORDER):  # FIPS 186-5 6.4.2 step 1
        raise Refused("signature.invalid", "r or s outside 1..n-1")
    return verify_ecdsa(key, encode_dss_signature(r, s), signed)


def verify_signed(document: Certificate | Crl, issuer: Certificate) -> bytes:
    """Return the signed part of a certificate or CRL that this issuer signed. Raises `Refused`."""
    if document.signed.algorithm != ALGORITHM or document.inner_algorithm != ALGORITHM:
        raise Refused("signature.invalid", "not ecdsa-with-SHA384, inside and outside alike")
    return verify_der(p384_of(issuer), document.signed.signature, document.signed.tbs)


def verify_der(key: ec.EllipticCurvePublicKey, signature: bytes, signed: bytes) -> bytes:
    """Return what this key signed with a DER signature. Raises `Refused` (`signature.invalid`)."""
    try:
        canonical = encode_dss_signature(*decode_dss_signature(signature)) == signature
    except ValueError:
        canonical = False
    if not canonical:
        raise Refused("signature.invalid", "a signature that is not DER")
    return verify_ecdsa(key, signature, signed)


def verify_ecdsa(key: ec.EllipticCurvePublicKey, signature: bytes, signed: bytes) -> bytes:
    """The one public-key operation: a signature whose encoding was held. Raises `Refused`."""
    try:
        key.verify(signature, signed, _ECDSA)
    except InvalidSignature:
        raise Refused("signature.invalid", "does not verify") from None
    return signed


@lru_cache(maxsize=CACHED_LINKS)
def verify_link(child: bytes, parent: bytes) -> bytes:
    """The certificate `child` (DER), which the key of `parent` signed. Raises `Refused`.

    Remembered by both certificates' bytes: devices of one family share all links but their own two.
    """
    certificate, issuer = read_certificate(child), read_certificate(parent)
    try:
        verify_signed(certificate, issuer)
    except Refused as error:
        text = f"{certificate.common_name} by {issuer.common_name}: {error.text}"
        raise Refused("signature.link", text) from None
    return child
