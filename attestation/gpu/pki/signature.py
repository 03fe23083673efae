"""ECDSA on P-384 with SHA-384, the one algorithm of NVIDIA's devices and manifests (FIPS 186-5 6.4.2).

What `attestation.pki.ecdsa` says of both its forms holds here. A failure is never remembered.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from attestation.pki.ecdsa import Ecdsa
from attestation.pki.x509 import read_certificate
from schemas.errors import Refused

ORDER: Final = int(
    "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973", 16
)
"""n of P-384 (SEC 2)."""
CACHED_LINKS: Final = 4096
"""Links between certificates: two of each device's own, three of a family, three of a manifest signer."""

P384: Final = Ecdsa(
    curve=ec.SECP384R1,
    curve_name="P-384",
    order=ORDER,
    hashing=ec.ECDSA(hashes.SHA384()),
    algorithm=bytes.fromhex("300a06082a8648ce3d040303"),
    algorithm_name="ecdsa-with-SHA384",
    raw_bytes=96,
)
RAW_BYTES: Final = P384.raw_bytes

p384_of = P384.key_of
verify_raw = P384.verify_raw
verify_signed = P384.verify_signed


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


def verify_report(leaf: bytes, signature: bytes, signed: bytes) -> bytes:
    """What a device signed with the key of its certificate `leaf` (DER), as r ‖ s. Raises `Refused`."""
    return verify_raw(p384_of(read_certificate(leaf)), signature, signed)
