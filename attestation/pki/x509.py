"""Certificates and CRLs, read once and strictly, for chains that we walk ourselves.

AMD's chip certificates have serial 0 and no key usage or authority key identifier; an RFC 5280 path
builder refuses them. So the chain is walked by our own code (snp/chain.py), and this file only
answers: what does this certificate say, and did that key sign it. Everything that is not covered by
the signature must be spelt in exactly one way, so that no bit of a certificate is free to change.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final, NamedTuple, TypeVar, cast

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import CRLEntryExtensionOID

from attestation.pki import der
from schemas.canonical import sha256
from schemas.errors import Refused, Unreadable

MAX_CERTIFICATE_BYTES: Final = 8 * 1024  # AMD's are about 1.7 KiB
MAX_CRL_BYTES: Final = 1024 * 1024  # AMD's are under 1 KiB; Intel's a few KiB
MAX_REVOKED: Final = 10_000  # entries read from one CRL
MAX_MARKED: Final = 1_000  # entries looked at where some extension is critical, 5 µs each; no vendor has any
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


class Signed(NamedTuple):
    """A signed object, cut into its three parts."""

    tbs: bytes
    """What is signed, header included."""
    algorithm: bytes
    """The outer algorithm identifier, which is not signed."""
    signature: bytes


class Certificate(NamedTuple):
    """What one X.509 certificate says. Nothing in here has been verified.

    A tuple, like `Crl`: three are made for every chain, and a dataclass costs five times as much.
    """

    der: bytes
    spki: bytes
    serial: int
    subject: bytes
    issuer: bytes
    """Names as DER: two names are the same only if they are spelt the same."""
    common_name: str
    issuer_common_name: str
    not_before: float
    not_after: float
    """POSIX seconds; both moments belong to the validity."""
    public_key: PublicKey
    signed: Signed
    inner_algorithm: bytes
    """The algorithm identifier that is itself signed."""
    extensions: bytes
    """The element [3] that holds them all, in DER; empty where there is none."""

    def __hash__(self) -> int:
        return hash(self.der)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the DER, hex."""
        return _hex_digest(self.der)

    @property
    def spki_fingerprint(self) -> str:
        """SHA-256 of the SubjectPublicKeyInfo, hex."""
        return _hex_digest(self.spki)


class Revoked(NamedTuple):
    """The serials that a CRL lists. They stay in the library's form: a set of them all costs six times
    as much as everything else about a CRL, and a handful of them is ever asked for."""

    der: bytes
    listed: x509.CertificateRevocationList

    def __contains__(self, serial: object) -> bool:
        number = cast(int, serial)
        if number >= 0 and number.to_bytes(number.bit_length() // 8 + 1) not in self.der:
            return False  # what is listed stands in these bytes; the library takes longer to look
        return self.listed.get_revoked_certificate_by_serial_number(number) is not None


class Crl(NamedTuple):
    """What one certificate revocation list says. Nothing in here has been verified."""

    der: bytes
    issuer: bytes
    issuer_common_name: str
    this_update: float
    next_update: float | None
    revoked: Revoked
    signed: Signed
    inner_algorithm: bytes


_ZERO: Final = b"\x02\x01\x00"  # INTEGER 0
_ONE: Final = b"\x02\x01\x01"
_UNDERSTOOD: Final = (CRLEntryExtensionOID.CRL_REASON, CRLEntryExtensionOID.INVALIDITY_DATE)
_KEYS: Final = (rsa.RSAPublicKey, ec.EllipticCurvePublicKey)


def _strictly(read: Callable[[], _T], what: str) -> _T:
    """Run a reader of the library; whatever it dislikes becomes `Unreadable`."""
    try:
        return read()
    except (
        ValueError, TypeError, OverflowError, UnsupportedAlgorithm, UserWarning,
        x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType,
    ) as error:  # fmt: skip
        raise Unreadable("x509.malformed", f"{what} cannot be read: {type(error).__name__}") from None


def _load(data: bytes, serial: bytes) -> x509.Certificate:
    """The library's view of a certificate, one with serial 0 too: for its dates, key and extensions.

    Every AMD leaf has serial 0, for which the library warns and will one day refuse (RFC 5280 4.1.2.2).
    So it gets a copy with serial 1. Nothing that is compared or whose signature is checked comes from
    that copy: those are the bytes as received.
    """
    if serial[2:3] >= b"\x80":  # RFC 5280 4.1.2.2; the library only warns
        raise ValueError("a negative serial")
    if serial == _ZERO:
        at = data.index(_VERSION_3 + _ZERO) + len(_VERSION_3)
        data = data[:at] + _ONE + data[at + len(_ONE) :]
    return x509.load_der_x509_certificate(data)


@lru_cache(maxsize=CACHED_CERTIFICATES)
def read_certificate(data: bytes) -> Certificate:
    """Read a DER certificate. Raises `Unreadable`."""
    if len(data) > MAX_CERTIFICATE_BYTES:
        raise Unreadable("x509.malformed", f"a certificate of more than {MAX_CERTIFICATE_BYTES} bytes")
    signed = _signed(data)
    fields = der.children(signed.tbs)
    if len(fields) < 7 or fields[0] != _VERSION_3:
        raise Unreadable("x509.malformed", "not a version 3 certificate")
    return _strictly(lambda: _certificate(data, signed, fields), "the certificate")


def read_certificates(documents: Sequence[bytes]) -> tuple[list[Certificate], Unreadable | None]:
    """Those that can be read, and why the first of the others cannot.

    Among what anybody offers, what is not needed disturbs nothing; where a part is missing, it may be
    one of these.
    """
    certificates: list[Certificate] = []
    unreadable: Unreadable | None = None
    for document in documents:
        try:
            certificates.append(read_certificate(document))
        except Unreadable as error:
            unreadable = unreadable or error
    return certificates, unreadable


_VERSION_3: Final = bytes.fromhex("a003020102")
_VERSION_2: Final = bytes.fromhex("020101")


@lru_cache(maxsize=CACHED_CERTIFICATES)
def _hex_digest(data: bytes) -> str:
    return sha256(data).hex()


def _signed(data: bytes) -> Signed:
    """The three parts that every signed object of X.509 has (RFC 5280 4.1, 5.1)."""
    parts = der.children(data)
    if len(parts) != 3:
        raise Unreadable("x509.malformed", "not a signed object")
    tag, bits = der.split(parts[2])
    if tag != 0x03 or bits[:1] != b"\0":
        raise Unreadable("x509.malformed", "the signature is no whole number of bytes")
    return Signed(parts[0], parts[1], bits[1:])


def _certificate(data: bytes, signed: Signed, fields: list[bytes]) -> Certificate:
    _, serial, inner, issuer, _, subject, spki, *_ = fields
    parsed = _load(data, serial)
    key = parsed.public_key()
    if not isinstance(key, _KEYS):
        raise ValueError("neither RSA nor elliptic curve")
    return Certificate(  # in the order of its fields: names would cost half as much again
        data,
        spki,
        int.from_bytes(der.split(serial)[1], signed=True),
        subject,
        issuer,
        der.common_name(subject),
        der.common_name(issuer),
        parsed.not_valid_before_utc.timestamp(),
        parsed.not_valid_after_utc.timestamp(),
        key,
        signed,
        inner,
        fields[-1] if fields[-1][:1] == b"\xa3" else b"",
    )


@lru_cache(maxsize=CACHED_CRLS)
def read_crl(data: bytes) -> Crl:
    """Read a DER CRL. Raises `Unreadable`."""
    if len(data) > MAX_CRL_BYTES:
        raise Unreadable("x509.malformed", f"a CRL of more than {MAX_CRL_BYTES} bytes")
    signed = _signed(data)
    fields = der.children(signed.tbs)
    if len(fields) < 4 or fields[0] != _VERSION_2:
        raise Unreadable("x509.malformed", "not a version 2 CRL")
    return _strictly(lambda: _crl(data, signed, fields), "the CRL")


def _crl(data: bytes, signed: Signed, fields: list[bytes]) -> Crl:
    _, inner, issuer, *_, last = fields
    # RFC 5280 5.2: a partial, indirect or delta CRL is marked by a critical extension.
    if last[:1] == b"\xa0" and any(critical for critical, _ in _extensions(last).values()):
        raise ValueError("a critical extension")
    parsed = x509.load_der_x509_crl(data)
    if len(parsed) > MAX_REVOKED:
        raise ValueError("too many entries")
    if _MARKED in signed.tbs and (len(parsed) > MAX_MARKED or any(map(_is_strange, parsed))):
        raise ValueError("an entry's critical extension")
    following = parsed.next_update_utc
    return Crl(
        der=data,
        issuer=issuer,
        issuer_common_name=der.common_name(issuer),
        this_update=parsed.last_update_utc.timestamp(),
        next_update=following.timestamp() if following else None,
        revoked=Revoked(data, parsed),
        signed=signed,
        inner_algorithm=inner,
    )


def _is_strange(entry: x509.RevokedCertificate) -> bool:
    """A CRL is not used with an entry whose critical extension is not understood (RFC 5280 5.3).

    Why and since when a serial is revoked changes nothing: it is.
    """
    return any(each.critical and each.oid not in _UNDERSTOOD for each in entry.extensions)


def check_pss(document: Certificate | Crl) -> Signed:
    """Return the signed parts when they say RSASSA-PSS as AMD signs, outside and inside alike.

    The outer identifier is not signed; comparing whole bytes leaves none of it free. Raises `Refused`.
    """
    if (
        document.signed.algorithm not in PSS_ALGORITHMS
        or document.signed.algorithm != document.inner_algorithm
    ):
        raise Refused("x509.algorithm", "not signed with RSASSA-PSS, SHA-384, salt 48, in its one spelling")
    return document.signed


def verify_pss(key: PublicKey, signed: Signed) -> bytes:
    """Return what this RSA key signed (RFC 8017 8.1.2). Raises `Refused` (`x509.signature`)."""
    if not isinstance(key, rsa.RSAPublicKey):
        raise Refused("x509.signature", "the issuer's key is not RSA")
    try:
        key.verify(signed.signature, signed.tbs, _PSS, hashes.SHA384())
    except InvalidSignature:
        raise Refused("x509.signature", "not signed by the issuer's key") from None
    return signed.tbs


def extensions_of(certificate: Certificate) -> dict[bytes, tuple[bool, bytes]]:
    """Encoded OID → (critical, value) of every extension (RFC 5280 4.1). Raises `Unreadable`."""
    return _extensions(certificate.extensions)


def _extensions(explicit: bytes) -> dict[bytes, tuple[bool, bytes]]:
    """Of the explicitly tagged element that holds them, which is empty where there is none."""
    found: dict[bytes, tuple[bool, bytes]] = {}
    listed = der.children(der.children(explicit)[0]) if explicit else ()
    for element in listed:
        oid, critical, value = _short(element) or _extension(element)
        if oid in found:
            raise Unreadable("x509.extension_repeated", f"{oid.hex()} is repeated")
        found[oid] = critical, value
    return found


def _extension(element: bytes) -> tuple[bytes, bool, bytes]:
    """(encoded OID, critical, value) of one extension. Raises `Unreadable`."""
    parts = der.children(element)
    critical = len(parts) == 3 and parts[1] == _CRITICAL
    if not (critical or len(parts) == 2) or parts[-1][:1] != b"\x04":  # an OCTET STRING
        raise Unreadable("x509.malformed", "an extension that is not in DER")
    return parts[0], critical, der.split(parts[-1])[1]


def _short(element: bytes) -> tuple[bytes, bool, bytes] | None:
    """What `_extension` finds, for one whose lengths are single octets, as nearly all are; else None."""
    size = len(element)
    if not 9 <= size < 0x82 or element[1] != size - 2 or element[3] >= 0x80:
        return None
    at = end = 4 + element[3]
    critical = element[at : at + 3] == _CRITICAL
    at += 3 if critical else 0
    if at + 2 > size or element[at] != 0x04 or element[at + 1] != size - at - 2:
        return None
    return element[2:end], critical, element[at + 2 :]


_CRITICAL: Final = b"\x01\x01\xff"  # BOOLEAN TRUE; FALSE is the default and is left out
_MARKED: Final = _CRITICAL + b"\x04"  # as it stands in every extension: the value's OCTET STRING behind it
