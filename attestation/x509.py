"""Certificates and CRLs, read once and strictly, for chains that we walk ourselves.

AMD's chip certificates have serial 0 and no key usage or authority key identifier; an RFC 5280 path
builder refuses them. So the chain is walked by our own code (snp/chain.py), and this file only
answers: what does this certificate say, and did that key sign it. Everything that is not covered by
the signature must be spelt in exactly one way, so that no bit of a certificate is free to change.
"""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import NameOID

from schemas.canonical import sha256
from schemas.errors import Refused, Unreadable

MAX_CERTIFICATE_BYTES: Final = 8 * 1024  # AMD's are about 1.7 KiB
MAX_CRL_BYTES: Final = 1024 * 1024  # AMD's are under 1 KiB; Intel's a few KiB
MAX_REVOKED: Final = 10_000  # entries read from one CRL
CACHED_CERTIFICATES: Final = 1024  # parsed forms kept per process, about 4 KiB each
CACHED_CRLS: Final = 32

_PSS_SHA384: Final = (
    "06092a864886f70d01010a{parameters}"  # id-RSASSA-PSS, RFC 4055 3.1
    "a00f300d06096086480165030402020500"  # hashAlgorithm: SHA-384
    "a11c301a06092a864886f70d010108300d06096086480165030402020500"  # maskGenAlgorithm: MGF1, SHA-384
    "a203020130"  # saltLength: 48
)
PSS_ALGORITHMS: Final = (
    bytes.fromhex("3041" + _PSS_SHA384.format(parameters="3034")),
    bytes.fromhex("3046" + _PSS_SHA384.format(parameters="3039") + "a303020101"),
)
"""RSASSA-PSS, SHA-384, MGF1-SHA-384, salt 48; without and with the explicit default trailer field."""

_PSS: Final = padding.PSS(mgf=padding.MGF1(hashes.SHA384()), salt_length=48)
_T = TypeVar("_T")

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey


@dataclass(frozen=True, slots=True)
class Certificate:
    """What one X.509 certificate says. Nothing in here has been verified."""

    der: bytes
    fingerprint: str
    """SHA-256 of the DER, hex."""
    spki_fingerprint: str
    serial: int
    subject: bytes
    issuer: bytes
    """Names as DER: two names are the same only if they are spelt the same."""
    common_name: str
    issuer_common_name: str
    not_before: float
    not_after: float
    """POSIX seconds; both moments belong to the validity."""
    public_key: PublicKey = field(repr=False, compare=False)
    tbs: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    parsed: x509.Certificate = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Crl:
    """What one certificate revocation list says. Nothing in here has been verified."""

    der: bytes
    issuer: bytes
    issuer_common_name: str
    this_update: float
    next_update: float | None
    revoked: frozenset[int]
    tbs: bytes = field(repr=False)
    signature: bytes = field(repr=False)


_quiet = threading.Lock()


def _strictly(read: Callable[[], _T], what: str) -> _T:
    """Run a reader of the library; whatever it dislikes becomes `Unreadable`.

    AMD's leaf certificates have serial 0, for which the library warns (RFC 5280 4.1.2.2); that one
    warning is expected and silenced here, and only here. The version is pinned in pyproject.toml
    and a test fails loudly on the day the library refuses such a certificate.
    """
    try:
        with _quiet, warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message="Parsed a serial number which wasn't positive",
                category=CryptographyDeprecationWarning,
            )  # fmt: skip
            return read()
    except x509.DuplicateExtension:
        raise Unreadable("x509.extension_repeated", f"{what} repeats one") from None
    except (
        ValueError, TypeError, OverflowError, UnsupportedAlgorithm, UserWarning,
        x509.InvalidVersion, x509.UnsupportedGeneralNameType,
    ) as error:  # fmt: skip
        raise Unreadable("x509.malformed", f"{what} cannot be read: {type(error).__name__}") from None


@lru_cache(maxsize=CACHED_CERTIFICATES)
def read_certificate(der: bytes) -> Certificate:
    """Read a DER certificate. Raises `Unreadable` (`x509.malformed`)."""
    if len(der) > MAX_CERTIFICATE_BYTES:
        raise Unreadable("x509.malformed", f"a certificate of more than {MAX_CERTIFICATE_BYTES} bytes")
    return _strictly(lambda: _certificate(der), "the certificate")


def _certificate(der: bytes) -> Certificate:
    parsed = x509.load_der_x509_certificate(der)
    tbs, signature = parsed.tbs_certificate_bytes, parsed.signature
    key = parsed.public_key()
    if not isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
        raise ValueError("neither RSA nor elliptic curve")
    spki = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return Certificate(
        der=der,
        fingerprint=sha256(der).hex(),
        spki_fingerprint=sha256(spki).hex(),
        serial=parsed.serial_number,
        subject=parsed.subject.public_bytes(),
        issuer=parsed.issuer.public_bytes(),
        common_name=_common_name(parsed.subject),
        issuer_common_name=_common_name(parsed.issuer),
        not_before=parsed.not_valid_before_utc.timestamp(),
        not_after=parsed.not_valid_after_utc.timestamp(),
        public_key=key,
        tbs=tbs,
        signature=signature,
        parsed=parsed,
    )


@lru_cache(maxsize=CACHED_CRLS)
def read_crl(der: bytes) -> Crl:
    """Read a DER CRL. Raises `Unreadable` (`x509.malformed`)."""
    if len(der) > MAX_CRL_BYTES:
        raise Unreadable("x509.malformed", f"a CRL of more than {MAX_CRL_BYTES} bytes")
    return _strictly(lambda: _crl(der), "the CRL")


def _crl(der: bytes) -> Crl:
    parsed = x509.load_der_x509_crl(der)
    if any(extension.critical for extension in parsed.extensions):
        # RFC 5280 5.2: a partial, indirect or delta CRL is marked by a critical extension.
        raise ValueError("a critical extension")
    if len(parsed) > MAX_REVOKED:
        raise ValueError("too many entries")
    following = parsed.next_update_utc
    return Crl(
        der=der,
        issuer=parsed.issuer.public_bytes(),
        issuer_common_name=_common_name(parsed.issuer),
        this_update=parsed.last_update_utc.timestamp(),
        next_update=following.timestamp() if following else None,
        revoked=frozenset(entry.serial_number for entry in parsed),
        tbs=parsed.tbs_certlist_bytes,
        signature=parsed.signature,
    )


def _common_name(name: x509.Name) -> str:
    values = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(values) != 1 or not isinstance(values[0].value, str):
        raise ValueError("exactly one common name")
    return values[0].value


def check_pss_spelling(der: bytes, tbs: bytes, signature: bytes) -> bytes:
    """Return the algorithm identifier when it is RSASSA-PSS as AMD signs, inside and outside alike.

    The outer identifier, the lengths and the bit string's header are not signed; comparing whole
    bytes leaves none of them free. Raises `Refused` (`x509.algorithm`).
    """
    for algorithm in PSS_ALGORITHMS:
        bits = b"\x03" + _length(len(signature) + 1) + b"\0" + signature
        body = tbs + algorithm + bits
        if b"\x30" + _length(len(body)) + body == der and algorithm == _inner_algorithm(tbs, algorithm):
            return algorithm
    raise Refused("x509.algorithm", "not signed with RSASSA-PSS, SHA-384, salt 48, in its one spelling")


def _length(size: int) -> bytes:
    """DER length octets, X.690 10.1."""
    if size < 0x80:
        return bytes((size,))
    octets = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes((0x80 | len(octets),)) + octets


_TBS_HEAD = re.compile(
    rb"\x30(?:\x82..|\x81.|.)"  # SEQUENCE
    rb"(?:\xa0\x03\x02\x01\x02\x02(?P<serial>.)|\x02\x01\x01)",  # certificate v3 and serial, or CRL v2
    re.DOTALL,
)


def _inner_algorithm(tbs: bytes, expected: bytes) -> bytes:
    """The signed algorithm identifier: as many bytes as the expected one has, where it must stand."""
    head = _TBS_HEAD.match(tbs)
    if head is None:
        return b""
    start = head.end() + (head["serial"][0] if head["serial"] else 0)
    return tbs[start : start + len(expected)]


def verify_pss(key: PublicKey, signature: bytes, tbs: bytes) -> bytes:
    """Return `tbs` when this RSA key signed it (RFC 8017 8.1.2). Raises `Refused` (`x509.signature`)."""
    if not isinstance(key, rsa.RSAPublicKey):
        raise Refused("x509.signature", "the issuer's key is not RSA")
    try:
        key.verify(signature, tbs, _PSS, hashes.SHA384())
    except InvalidSignature:
        raise Refused("x509.signature", "not signed by the issuer's key") from None
    return tbs


def extensions_of(certificate: Certificate) -> list[tuple[str, bool, bytes]]:
    """(OID, critical, value) of every extension. Raises `Unreadable`, for a repeated OID too."""
    parsed = _strictly(lambda: certificate.parsed.extensions, "an extension")
    return [
        (extension.oid.dotted_string, extension.critical, _extension_value(extension)) for extension in parsed
    ]


def _extension_value(extension: x509.Extension[x509.ExtensionType]) -> bytes:
    value = extension.value
    return value.value if isinstance(value, x509.UnrecognizedExtension) else b""
