"""ECDSA as quotes, device reports and their certificates use it (FIPS 186-5 6.4.2): one curve, one hash.

Everything returns what was signed or raises. Signatures in X.509 are DER and must be in its one spelling;
those in quotes, reports and documents are r ‖ s, big endian.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from attestation.pki.x509 import Certificate, Crl
from schemas.errors import Refused


@dataclass(frozen=True, slots=True)
class Ecdsa:
    """The one algorithm of a maker: a curve with its hash."""

    curve: type[ec.EllipticCurve]
    curve_name: str
    order: int
    """n, the order of the base point."""
    hashing: ec.ECDSA
    algorithm: bytes = field(repr=False)
    """Its AlgorithmIdentifier in DER (RFC 5758 3.2)."""
    algorithm_name: str
    raw_bytes: int
    """Length of r ‖ s."""

    def key_of(self, certificate: Certificate) -> ec.EllipticCurvePublicKey:
        """The certificate's key. Raises `Refused` (`signature.key`) when it is not on this curve."""
        key = certificate.public_key
        if type(getattr(key, "curve", None)) is not self.curve:
            raise Refused("signature.key", f"{certificate.common_name} has no {self.curve_name} key")
        return cast(ec.EllipticCurvePublicKey, key)

    def verify_raw(self, key: ec.EllipticCurvePublicKey, signature: bytes, signed: bytes) -> bytes:
        """Return what this key signed with r ‖ s. Raises `Refused` (`signature.invalid`)."""
        length = self.raw_bytes
        if len(signature) != length:
            raise Refused("signature.invalid", f"{len(signature)} bytes instead of {length}")
        r, s = int.from_bytes(signature[: length // 2]), int.from_bytes(signature[length // 2 :])
        if not (0 < r < self.order and 0 < s < self.order):  # FIPS 186-5 6.4.2 step 1
            raise Refused("signature.invalid", "r or s outside 1..n-1")
        return verify_ecdsa(key, encode_dss_signature(r, s), signed, self.hashing)

    def verify_signed(self, document: Certificate | Crl, issuer: Certificate) -> bytes:
        """Return the signed part of a certificate or CRL that this issuer signed. Raises `Refused`."""
        if document.signed.algorithm != self.algorithm or document.inner_algorithm != self.algorithm:
            raise Refused("signature.invalid", f"not {self.algorithm_name}, inside and outside alike")
        signature = document.signed.signature
        try:
            canonical = encode_dss_signature(*decode_dss_signature(signature)) == signature
        except ValueError:
            canonical = False
        if not canonical:
            raise Refused("signature.invalid", "a signature that is not DER")
        return verify_ecdsa(self.key_of(issuer), signature, document.signed.tbs, self.hashing)


def verify_ecdsa(key: ec.EllipticCurvePublicKey, signature: bytes, signed: bytes, hashing: ec.ECDSA) -> bytes:
    """The one public-key operation: a signature whose encoding was held. Raises `Refused`."""
    try:
        key.verify(signature, signed, hashing)
    except InvalidSignature:
        raise Refused("signature.invalid", "does not verify") from None
    return signed
