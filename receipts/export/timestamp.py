"""One RFC 3161 time-stamp response, by a key of our own: CMS SignedData over a TSTInfo (RFC 5652)."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

POLICY: Final = bytes.fromhex("06042a030401")  # 1.2.3.4.1, an arc that names nobody's practice
_SHA256: Final = bytes.fromhex("300d06096086480165030402010500")  # AlgorithmIdentifier with NULL
_ECDSA_SHA256: Final = bytes.fromhex("300a06082a8648ce3d040302")
_SIGNED_DATA: Final = bytes.fromhex("06092a864886f70d010702")
_TST_INFO: Final = bytes.fromhex("060b2a864886f70d0109100104")
_CONTENT_TYPE: Final = bytes.fromhex("06092a864886f70d010903")
_MESSAGE_DIGEST: Final = bytes.fromhex("06092a864886f70d010904")
_SIGNING_CERTIFICATE_V2: Final = bytes.fromhex("060b2a864886f70d010910022f")


def respond(
    message: bytes,
    *,
    key: ec.EllipticCurvePrivateKey,
    certificate: x509.Certificate,
    serial: int,
    at: datetime,
) -> bytes:
    """A granted response (RFC 3161 2.4.2) over SHA-256 of the message, certificate included."""
    info = _tst_info(hashlib.sha256(message).digest(), serial, at)
    token = sequence(_SIGNED_DATA, tagged(0, _signed_data(info, key, certificate)))
    return sequence(sequence(integer(0)), token)


def _tst_info(imprint: bytes, serial: int, at: datetime) -> bytes:
    return sequence(
        integer(1),
        POLICY,
        sequence(_SHA256, octets(imprint)),
        integer(serial),
        der(0x18, at.strftime("%Y%m%d%H%M%SZ").encode()),
    )


def _signed_data(info: bytes, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> bytes:
    encoded = certificate.public_bytes(serialization.Encoding.DER)
    attributes = sorted(  # DER: a SET OF stands in the order of its encodings
        (
            _attribute(_CONTENT_TYPE, _TST_INFO),
            _attribute(_MESSAGE_DIGEST, octets(hashlib.sha256(info).digest())),
            # ESSCertIDv2 binds the token to this very certificate (RFC 5816).
            _attribute(
                _SIGNING_CERTIFICATE_V2,
                sequence(sequence(sequence(octets(hashlib.sha256(encoded).digest())))),
            ),
        )
    )
    signature = key.sign(der(0x31, *attributes), ec.ECDSA(hashes.SHA256()))  # signed as SET OF (RFC 5652 5.4)
    signer = sequence(
        integer(1),
        sequence(certificate.issuer.public_bytes(), integer(certificate.serial_number)),
        _SHA256,
        der(0xA0, *attributes),
        _ECDSA_SHA256,
        octets(signature),
    )
    return sequence(
        integer(3),
        der(0x31, _SHA256),
        sequence(_TST_INFO, tagged(0, octets(info))),
        der(0xA0, encoded),
        der(0x31, signer),
    )


def _attribute(kind: bytes, value: bytes) -> bytes:
    return sequence(kind, der(0x31, value))


def der(tag: int, *parts: bytes) -> bytes:
    """One DER value (X.690 8.1)."""
    body = b"".join(parts)
    if len(body) < 0x80:
        return bytes((tag, len(body))) + body
    length = len(body).to_bytes((len(body).bit_length() + 7) // 8)
    return bytes((tag, 0x80 | len(length))) + length + body


def sequence(*parts: bytes) -> bytes:
    return der(0x30, *parts)


def octets(data: bytes) -> bytes:
    return der(0x04, data)


def tagged(number: int, data: bytes) -> bytes:
    """An explicit context tag."""
    return der(0xA0 | number, data)


def integer(value: int) -> bytes:
    """A non-negative INTEGER in its shortest form."""
    return der(0x02, value.to_bytes(value.bit_length() // 8 + 1))
