"""OCSP responses and CRLs of a made-up vendor, good and bad (RFC 6960, RFC 5280)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp

from attestation.pki.der import children, encode_oid, split
from attestation.testing.der import sequence, tlv
from attestation.testing.nvidia import NOW, Certified, GpuForge, key, name_of
from attestation.testing.nvidia_manifest import ManifestForge

OCSP_SIGNING: Final = ("2.5.29.37", False, bytes.fromhex("300a06082b06010505070309"))
_HASHES: Final = {
    "sha1": hashes.SHA1(), "sha256": hashes.SHA256(), "sha384": hashes.SHA384(), "sha512": hashes.SHA512(),
}  # fmt: skip
_STATES: Final = {
    "good": (ocsp.OCSPCertStatus.GOOD, None),
    "revoked": (ocsp.OCSPCertStatus.REVOKED, x509.ReasonFlags.key_compromise),
    "hold": (ocsp.OCSPCertStatus.REVOKED, x509.ReasonFlags.certificate_hold),
    "unknown": (ocsp.OCSPCertStatus.UNKNOWN, None),
}


@dataclass(frozen=True)
class Answer:
    """One response about one certificate, good until a field is replaced."""

    about: Certified
    issuer: Certified
    status: str = "good"
    this_update: datetime = NOW - timedelta(hours=1)
    next_update: datetime | None = NOW + timedelta(hours=23)
    responder: str = "delegate"
    """`issuer`, or `delegate` = appointed by the issuer."""
    appointed: bool = True
    """Whether the delegate's certificate says that it may sign responses."""
    delegate_signer: str | None = None
    """Key that issued the delegate's certificate, where not the issuer's."""
    damaged: bool = False
    """Whether the signature is one over something else."""
    hash_name: str = "sha384"
    critical: str | None = None
    """`response` or `answer`: which of them has a critical extension."""

    def der(self) -> bytes:
        return _response(self)


def _load(certified: Certified) -> x509.Certificate:
    return x509.load_der_x509_certificate(certified.der())


@lru_cache(maxsize=1024)
def _response(of: Answer) -> bytes:
    state, reason = _STATES[of.status]
    delegate = Certified(
        f"{of.issuer.subject} OCSP", "delegate", of.issuer.subject, of.delegate_signer or of.issuer.key, 77,
        None, ("digital_signature",), extensions=(OCSP_SIGNING,) if of.appointed else (),
    )  # fmt: skip
    algorithm = _HASHES[of.hash_name]
    signer = delegate if of.responder == "delegate" else of.issuer
    builder = (
        ocsp.OCSPResponseBuilder()
        .add_response(
            cert=_load(of.about), issuer=_load(of.issuer), algorithm=algorithm, cert_status=state,
            this_update=of.this_update, next_update=of.next_update,
            revocation_time=of.this_update if of.status in ("revoked", "hold") else None,
            revocation_reason=reason,
        )
        .responder_id(ocsp.OCSPResponderEncoding.NAME, _load(signer))
    )  # fmt: skip
    if of.responder == "delegate":
        builder = builder.certificates([_load(delegate)])
    if of.critical == "response":
        builder = builder.add_extension(x509.OCSPNonce(bytes(32)), critical=True)
    private = key(signer.key)
    response = builder.sign(private, hashes.SHA384())
    data = response.public_bytes(serialization.Encoding.DER)
    if of.critical == "answer":
        return _marked(data, private)
    return _damage(data, response.signature, private) if of.damaged else data


def _marked(data: bytes, private: ec.EllipticCurvePrivateKey) -> bytes:
    """The response with a critical extension in its one answer, signed again (RFC 6960 4.2.1)."""
    status, explicit = children(data)
    kind, octets = children(children(explicit)[0])
    signed, algorithm, _, *rest = children(split(octets)[1])
    *before, listed = children(signed)
    members = children(children(listed)[0])
    extension = sequence(encode_oid("1.2.3.4"), tlv(0x01, b"\xff"), tlv(0x04, b"\x05\0"))
    answer = sequence(*members, tlv(0xA1, sequence(extension)))
    signed = sequence(*before, sequence(answer))
    signature = tlv(0x03, b"\0", private.sign(signed, ec.ECDSA(hashes.SHA384())))
    basic = tlv(0x04, sequence(signed, algorithm, signature, *rest))
    return sequence(status, tlv(0xA0, sequence(kind, basic)))


def _damage(data: bytes, signature: bytes, private: ec.EllipticCurvePrivateKey) -> bytes:
    """The response with a signature over nothing, of the same length."""
    other = b""
    while len(other) != len(signature):
        other = private.sign(b"", ec.ECDSA(hashes.SHA384()))
    return data.replace(signature, other)


def asked(device: GpuForge, manifests: Sequence[ManifestForge] = ()) -> list[tuple[Certified, Certified]]:
    """(certificate, issuer) of everything about which one asks."""
    chain = list(device.certified().values())
    pairs = [(chain[n], chain[n + 1]) for n in (1, 2, 3)]
    for manifest in manifests:
        above = list(manifest.certified().values())
        pairs += [(above[n], above[n + 1]) for n in (0, 1, 2)]
    return pairs


def answers(device: GpuForge, manifests: Sequence[ManifestForge] = ()) -> list[bytes]:
    """Good responses about everything."""
    return [Answer(about, issuer).der() for about, issuer in asked(device, manifests)]


@lru_cache(maxsize=256)
def crl(
    issuer: Certified,
    revoked: tuple[int, ...] = (),
    this_update: datetime = NOW - timedelta(days=1),
    next_update: datetime | None = NOW + timedelta(days=30),
    signer: str | None = None,
) -> bytes:
    """A CRL in DER."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(name_of(issuer.subject))
        .last_update(this_update)
        .next_update(next_update or this_update)
    )
    for serial in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(this_update).build()
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(key(signer or issuer.key), hashes.SHA384()).public_bytes(serialization.Encoding.DER)
