"""OCSP responses (RFC 6960), as they lie in a bundle: read, and held to the issuer of what was asked about.

A response counts only when the issuer signed it, or a responder that the issuer itself appointed. Times are
looked at on use. Whether the responder's own certificate is withdrawn is not asked (id-pkix-ocsp-nocheck).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Final, Literal, NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp

from attestation.gpu.pki.constraints import stated
from attestation.gpu.pki.signature import verify_link
from attestation.gpu.side import Start
from attestation.pki import der, ecdsa
from attestation.pki.der import encode_oid
from attestation.pki.x509 import Certificate, read_certificate
from schemas.errors import Refused, Unreadable

MAX_RESPONSE_BYTES: Final = 16 * 1024  # a response with its responder's certificate has about 2 KiB
MAX_ANSWERS: Final = 32  # certificates that one response speaks of
MAX_RESPONDERS: Final = 4
CACHED_RESPONSES: Final = 256
CACHED_QUESTIONS: Final = 1024
HASHES: Final = ("sha256", "sha384", "sha512")
"""Of the CertID. NVIDIA's service is asked with SHA-384; SHA-1 is not accepted."""

_EKU: Final = encode_oid("2.5.29.37")
_OCSP_SIGNING: Final = encode_oid("1.3.6.1.5.5.7.3.9")  # id-kp-OCSPSigning, RFC 6960 4.2.2.2
_ALGORITHMS: Final = {"1.2.840.10045.4.3.2": hashes.SHA256(), "1.2.840.10045.4.3.3": hashes.SHA384()}
"""ecdsa-with-SHA256 and -SHA384 (RFC 5758 3.2)."""

_MARKED: Final = (
    b"\x01\x01\xff\x04"  # as it stands in every critical extension: TRUE, then the value's header
)
_UNSUCCESSFUL: Final = (1, 2, 3, 5, 6)  # OCSPResponseStatus, RFC 6960 4.2.1

Status = Literal["good", "revoked", "hold", "unknown"]


class CertId(NamedTuple):
    """Which certificate an answer speaks of (RFC 6960 4.1.1). A tuple: many are made."""

    algorithm: str
    name_hash: bytes
    key_hash: bytes
    serial: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What a response says of one certificate."""

    about: CertId
    status: Status
    this_update: float
    next_update: float | None
    """POSIX seconds. None = the responder promises nothing, and the answer is never fresh."""


@dataclass(frozen=True, slots=True, eq=False)
class Response:
    """One response. Nothing in it has been verified."""

    signed: bytes
    signature: bytes
    algorithm: str
    responder_name: bytes | None
    responder_key: bytes | None
    """SHA-1 of the responder's key (RFC 6960 4.2.1, ResponderID byKey)."""
    certificates: tuple[Certificate, ...]
    answers: tuple[Answer, ...]


def is_declined(data: bytes) -> bool:
    """Whether a responder did not answer: a status other than successful and, unsigned, nothing else (4.2.1).

    NVIDIA's says so of every leaf, which it does not know. It speaks neither for nor against anything.
    """
    return len(data) == 5 and data.startswith(b"\x30\x03\x0a\x01") and data[4] in _UNSUCCESSFUL


@lru_cache(maxsize=CACHED_RESPONSES)
def read_response(data: bytes) -> Response:
    """Read a successful response. Raises `Refused` (`gpu.ocsp_malformed`)."""
    if len(data) > MAX_RESPONSE_BYTES:
        raise _malformed(f"more than {MAX_RESPONSE_BYTES} bytes")
    try:
        return _read(ocsp.load_der_ocsp_response(data), data)
    except (
        ValueError, TypeError, OverflowError, UnsupportedAlgorithm, Unreadable, x509.DuplicateExtension,
        x509.UnsupportedGeneralNameType,
    ) as error:  # fmt: skip
        raise _malformed(f"cannot be read: {type(error).__name__}") from None


def _read(parsed: ocsp.OCSPResponse, data: bytes) -> Response:
    if parsed.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
        raise _malformed(f"status {parsed.response_status.name}")
    answers = tuple(_answer(single) for single in parsed.responses)
    certificates = _certificates(data)
    if _MARKED in parsed.tbs_response_bytes and _is_strange(parsed, len(answers)):
        raise _malformed("a critical extension")
    if not 1 <= len(answers) <= MAX_ANSWERS or len(certificates) > MAX_RESPONDERS:
        raise _malformed("too many answers or certificates")
    name = parsed.responder_name
    return Response(
        signed=parsed.tbs_response_bytes,
        signature=parsed.signature,
        algorithm=parsed.signature_algorithm_oid.dotted_string,
        responder_name=name.public_bytes() if name is not None else None,
        responder_key=parsed.responder_key_hash,
        certificates=tuple(map(read_certificate, certificates)),
        answers=answers,
    )


def _certificates(data: bytes) -> list[bytes]:
    """What the responder sent along, cut out of a response that the library has read (RFC 6960 4.2.1)."""
    _, content = der.children(data)
    _, octets = der.children(der.children(content)[0])
    *_, last = der.children(der.split(octets)[1])
    return der.children(der.children(last)[0]) if last[:1] == b"\xa0" else []


def _is_strange(parsed: ocsp.OCSPResponse, answers: int) -> bool:
    """Whether the response, or what it says of a certificate, has a critical extension (RFC 6960 4.4).

    None is understood. The library does not say which of several answers has one.
    """
    extensions = [*parsed.extensions, *(parsed.single_extensions if answers == 1 else ())]
    return answers > 1 or any(extension.critical for extension in extensions)


def _answer(single: ocsp.OCSPSingleResponse) -> Answer:
    status: Status
    match single.certificate_status:
        case ocsp.OCSPCertStatus.GOOD:
            status = "good"
        case ocsp.OCSPCertStatus.REVOKED:
            hold = single.revocation_reason is x509.ReasonFlags.certificate_hold
            status = "hold" if hold else "revoked"
        case _:
            status = "unknown"
    about = CertId(
        single.hash_algorithm.name, single.issuer_name_hash, single.issuer_key_hash, single.serial_number
    )
    following = single.next_update_utc
    return Answer(about, status, _seconds(single.this_update_utc), _seconds(following) if following else None)


def _seconds(moment: datetime) -> float:
    return moment.timestamp()


def cert_ids(certificate: Certificate, issuer: Certificate) -> frozenset[CertId]:
    """Every spelling of the question about this certificate (RFC 6960 4.1.1)."""
    return _cert_ids(certificate.serial, issuer.der)


@lru_cache(maxsize=CACHED_QUESTIONS)
def _cert_ids(serial: int, issuer_der: bytes) -> frozenset[CertId]:
    issuer = read_certificate(issuer_der)
    key = key_bits(issuer)
    return frozenset(
        CertId(name, _digest(name, issuer.subject), _digest(name, key), serial) for name in HASHES
    )


def _digest(name: str, data: bytes) -> bytes:
    return hashlib.new(name, data).digest()


def key_bits(certificate: Certificate) -> bytes:
    """The value of the key's BIT STRING, without tag, length and unused bits."""
    return der.split(der.children(certificate.spki)[1])[1][1:]


def begin_response(response: Response, issuer: Certificate, start: Start) -> None:
    """Begins with what `verify_response` will ask of the first that may be the responder."""
    for candidate in (issuer, *response.certificates):
        if _is_named(response, candidate):
            if candidate.der != issuer.der:
                start(verify_link, candidate.der, issuer.der)
            start(_verify, candidate, response.algorithm, response.signature, response.signed)
            return


def verify_response(response: Response, issuer: Certificate, at: float, start: Start) -> Response:
    """The response, signed by the issuer or by a responder that it appointed. Raises `Refused`.

    start: how signature checks begin, or have begun.
    Code `gpu.ocsp_responder_untrusted` (RFC 6960 4.2.2.2): 1. find the responder; 2. its appointment; 3. its
    signature.
    """
    problem = "no certificate of the responder"
    for candidate in (issuer, *response.certificates):
        if not _is_named(response, candidate):
            continue
        try:
            if candidate.der != issuer.der:
                _hold_appointed(candidate, issuer, at, start)
            start(_verify, candidate, response.algorithm, response.signature, response.signed)()
        except Refused as error:
            problem = error.text
        else:
            return response
    raise Refused("gpu.ocsp_responder_untrusted", problem)


def _is_named(response: Response, candidate: Certificate) -> bool:
    if response.responder_name is not None:
        return candidate.subject == response.responder_name
    return hashlib.sha1(key_bits(candidate), usedforsecurity=False).digest() == response.responder_key


def _hold_appointed(responder: Certificate, issuer: Certificate, at: float, start: Start) -> Certificate:
    if responder.issuer != issuer.subject:
        raise Refused("ocsp", f"{responder.common_name} was not issued by {issuer.common_name}")
    start(verify_link, responder.der, issuer.der)()
    try:
        purposes = der.children(stated(responder.der).values.get(_EKU, b"\x30\x00"))
    except Unreadable as error:
        raise Refused("ocsp", error.text) from None
    if _OCSP_SIGNING not in purposes:
        raise Refused("ocsp", f"{responder.common_name} was not appointed to sign responses")
    if not responder.not_before <= at <= responder.not_after:
        raise Refused("ocsp", f"{responder.common_name} is not in date")
    return responder


@lru_cache(maxsize=CACHED_RESPONSES)
def _verify(signer: Certificate, algorithm: str, signature: bytes, signed: bytes) -> bytes:
    hash_algorithm, key = _ALGORITHMS.get(algorithm), signer.public_key
    if hash_algorithm is None or not isinstance(key, ec.EllipticCurvePublicKey):
        raise Refused("ocsp", f"signed with {algorithm}")
    try:
        return ecdsa.verify_ecdsa(key, signature, signed, ec.ECDSA(hash_algorithm))
    except Refused:
        raise Refused("ocsp", f"not signed by {signer.common_name}") from None


def answers_about(
    responses: Sequence[Response], certificate: Certificate, issuer: Certificate
) -> list[tuple[Response, Answer]]:
    """The answers to the question about this very certificate, by its whole CertID."""
    asked = cert_ids(certificate, issuer)
    return [(each, answer) for each in responses for answer in each.answers if answer.about in asked]


def _malformed(why: str) -> Refused:
    return Refused("gpu.ocsp_malformed", why)
