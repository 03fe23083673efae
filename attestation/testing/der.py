"""Just enough DER to forge: certificates and CRLs with any fault that real ones must not have."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from attestation.pki.der import encode_oid
from attestation.pki.x509 import PSS_ALGORITHMS

PSS = PSS_ALGORITHMS[0]
_KEYS = rsa.RSAPublicKey | ec.EllipticCurvePublicKey
_SHA384 = padding.PSS(mgf=padding.MGF1(hashes.SHA384()), salt_length=48)

Extension = tuple[str, bool, bytes]
"""(OID, critical, value)"""


def tlv(tag: int, *contents: bytes) -> bytes:
    body = b"".join(contents)
    if len(body) < 0x80:
        return bytes((tag, len(body))) + body
    size = len(body).to_bytes((len(body).bit_length() + 7) // 8)
    return bytes((tag, 0x80 | len(size))) + size + body


def sequence(*contents: bytes) -> bytes:
    return tlv(0x30, *contents)


def integer(value: int) -> bytes:
    return tlv(0x02, value.to_bytes(value.bit_length() // 8 + 1))


def time(moment: datetime) -> bytes:
    """UTCTime until 2049, GeneralizedTime after (RFC 5280 4.1.2.5)."""
    text = moment.astimezone(UTC).strftime("%Y%m%d%H%M%SZ")
    return tlv(0x18, text.encode()) if moment.year >= 2050 else tlv(0x17, text[2:].encode())


def name(common_name: str, organisation: str = "Simulated Micro Devices") -> bytes:
    parts = (("2.5.4.11", "Engineering"), ("2.5.4.10", organisation), ("2.5.4.3", common_name))
    return sequence(
        *(tlv(0x31, sequence(encode_oid(dotted), tlv(0x0C, text.encode()))) for dotted, text in parts)
    )


@lru_cache(maxsize=4096)
def sign(tbs: bytes, key: rsa.RSAPrivateKey, algorithm: bytes = PSS) -> bytes:
    """The outer SEQUENCE around signed content. Kept: the same content gets the same bytes again."""
    signature = key.sign(tbs, _SHA384, hashes.SHA384())
    return sequence(tbs, algorithm, tlv(0x03, b"\0", signature))


def certificate(
    *,
    subject: str,
    issuer: str,
    public_key: _KEYS,
    signing_key: rsa.RSAPrivateKey,
    serial: int,
    not_before: datetime,
    not_after: datetime,
    extensions: Sequence[Extension] = (),
    inner_algorithm: bytes = PSS,
    outer_algorithm: bytes = PSS,
) -> bytes:
    """A certificate that says exactly this, signed by `signing_key`."""
    spki = public_key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    listed = [
        sequence(encode_oid(dotted), *([tlv(0x01, b"\xff")] if critical else []), tlv(0x04, value))
        for dotted, critical, value in extensions
    ]
    tbs = sequence(
        tlv(0xA0, integer(2)),
        integer(serial),
        inner_algorithm,
        name(issuer),
        sequence(time(not_before), time(not_after)),
        name(subject),
        spki,
        *([tlv(0xA3, sequence(*listed))] if listed else []),
    )
    return sign(tbs, signing_key, outer_algorithm)


def crl(
    *,
    issuer: str,
    signing_key: rsa.RSAPrivateKey,
    this_update: datetime,
    next_update: datetime | None,
    revoked: Sequence[int] = (),
    extensions: Sequence[Extension] = (),
) -> bytes:
    """A version 2 CRL."""
    entries = [sequence(integer(serial), time(this_update)) for serial in revoked]
    listed = [
        sequence(encode_oid(dotted), *([tlv(0x01, b"\xff")] if critical else []), tlv(0x04, value))
        for dotted, critical, value in extensions
    ]
    tbs = sequence(
        integer(1),
        PSS,
        name(issuer),
        time(this_update),
        *([time(next_update)] if next_update else []),
        *([sequence(*entries)] if entries else []),
        *([tlv(0xA0, sequence(*listed))] if listed else []),
    )
    return sign(tbs, signing_key)
