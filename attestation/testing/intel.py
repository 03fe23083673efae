"""An Intel-shaped vendor that does not exist: root, CAs, PCK, TCB signer, CRLs, signed documents, quotes.

`IntelForge` is one good case; a test changes one field with `dataclasses.replace` and gets evidence that
real hardware never shows. Its root is accepted only where expectations list it (`root_toml`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final, cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID

from attestation.pki.der import encode_oid
from attestation.tdx.origin.pck import SGX_EXTENSION
from attestation.testing.der import integer, sequence, tlv
from attestation.testing.intel_documents import EXPIRES, ISSUED, NOW, evaluations, qe_identity, tcb_info
from attestation.testing.intel_quote import QUOTE_BODIES, assemble, header, qe_body
from schemas.canonical import Json, sha256, write_json

CHAIN_FROM: Final = datetime(2020, 1, 1, tzinfo=UTC)
CHAIN_UNTIL: Final = datetime(2049, 12, 31, tzinfo=UTC)
ROOT_CN: Final = "Intel SGX Root CA"
PLATFORM_CN: Final = "Intel SGX PCK Platform CA"
PROCESSOR_CN: Final = "Intel SGX PCK Processor CA"
PCK_CN: Final = "Intel SGX PCK Certificate"
SIGNER_CN: Final = "Intel SGX TCB Signing"
ARC: Final = "1.2.840.113741.1.13.1"


@lru_cache
def key(name: str) -> ec.EllipticCurvePrivateKey:
    """The key of that name, the same throughout one process."""
    del name
    return ec.generate_private_key(ec.SECP256R1())


def raw_public(name: str) -> bytes:
    """x ‖ y."""
    return (
        key(name)
        .public_key()
        .public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)[1:]
    )


@lru_cache(maxsize=4096)
def sign(name: str, data: bytes) -> bytes:
    """r ‖ s, 64 bytes. Kept: the same data gets the same bytes again."""
    r, s = decode_dss_signature(key(name).sign(data, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32) + s.to_bytes(32)


def member(suffix: str, value: bytes) -> bytes:
    """One member of the SGX extension."""
    return sequence(encode_oid(f"{ARC}.{suffix}"), value)


@dataclass(frozen=True)
class Certified:
    """What one certificate says."""

    subject: str
    key: str
    issuer: str
    signer: str
    """Names of keys."""
    serial: int
    authority: bool
    cert_sign: bool
    not_before: datetime = CHAIN_FROM
    not_after: datetime = CHAIN_UNTIL
    extension: bytes | None = None
    critical: bool = False
    """An unknown critical extension."""
    any_use: bool = False
    """Whether its key usage names everything that is signed."""

    def der(self) -> bytes:
        return _certificate(self)


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, common_name),
         x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Simulated Chips")]
    )  # fmt: skip


@lru_cache(maxsize=1024)
def _certificate(of: Certified) -> bytes:
    signs = of.cert_sign or of.any_use
    usage = x509.KeyUsage(
        digital_signature=not of.cert_sign or of.any_use, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, key_cert_sign=signs, crl_sign=signs,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(of.subject))
        .issuer_name(_name(of.issuer))
        .public_key(key(of.key).public_key())
        .serial_number(of.serial)
        .not_valid_before(of.not_before)
        .not_valid_after(of.not_after)
        .add_extension(x509.BasicConstraints(ca=of.authority, path_length=None), critical=True)
        .add_extension(usage, critical=True)
    )
    if of.extension is not None:
        raw = x509.UnrecognizedExtension(x509.ObjectIdentifier(ARC), of.extension)
        builder = builder.add_extension(raw, critical=False)
    if of.critical:
        raw = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
        builder = builder.add_extension(raw, critical=True)
    return builder.sign(key(of.signer), hashes.SHA256()).public_bytes(serialization.Encoding.DER)


@lru_cache(maxsize=1024)
def crl(
    issuer: str,
    signer: str,
    revoked: tuple[int, ...] = (),
    this_update: datetime = ISSUED,
    next_update: datetime = EXPIRES,
    number: int = 1,
    *,
    partial: bool = False,
    entry: x509.ExtensionType | None = None,
) -> bytes:
    """A CRL in DER. partial: it says that it covers only part. entry: a critical extension of each entry."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(_name(issuer))
        .last_update(this_update)
        .next_update(next_update)
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key(signer).public_key()), False)
    )
    if partial:
        covers = x509.IssuingDistributionPoint(None, None, True, False, None, False, False)
        builder = builder.add_extension(covers, critical=True)
    for serial in revoked:
        listed = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(this_update)
        listed = listed if entry is None else listed.add_extension(entry, critical=True)
        builder = builder.add_revoked_certificate(listed.build())
    return builder.sign(key(signer), hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def pem(*certificates: bytes) -> bytes:
    return b"".join(
        x509.load_der_x509_certificate(each).public_bytes(serialization.Encoding.PEM) for each in certificates
    )


@dataclass(frozen=True)
class IntelForge:
    """One platform and everything about it, all good until a field is replaced."""

    shape: str = "v4"
    """A key of `QUOTE_BODIES`."""
    body: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the report that differ from the good one."""
    qe: Mapping[str, Any] = field(default_factory=dict)
    auth_data: bytes = bytes(32)
    ppid: bytes = bytes(range(16))
    components: Sequence[int] = (5,) * 16
    pcesvn: int = 11
    extension: bytes | None = None
    root: Certified = Certified(ROOT_CN, "root", ROOT_CN, "root", 1, True, True)
    ca: Certified = Certified(PLATFORM_CN, "ca", ROOT_CN, "root", 2, True, True)
    pck: Certified = Certified(PCK_CN, "pck", PLATFORM_CN, "ca", 3, False, False)
    signer: Certified = Certified(SIGNER_CN, "signer", ROOT_CN, "root", 4, False, False)
    certification: tuple[int, bytes] | None = None
    """(type, data) in place of the PEM chain."""
    order: Sequence[int] = (0, 1, 2)
    """Which of PCK, CA, root stand in the chain, and in which order."""
    info: Mapping[str, Json] = field(default_factory=dict)
    identity: Mapping[str, Json] = field(default_factory=dict)
    """Members that differ; None leaves one out."""
    document_key: str = "signer"
    root_crl: bytes | None = b""
    pck_crl: bytes | None = b""
    """b"" = a good one, None = none."""

    @property
    def tee(self) -> str:
        return "sgx" if "sgx" in self.shape else "tdx"

    def sgx_extension(self) -> bytes:
        """The platform's extension, as Intel's Platform CA writes it."""
        tcb = [member(f"2.{i + 1}", integer(svn)) for i, svn in enumerate(self.components)]
        tcb += [member("2.17", integer(self.pcesvn)), member("2.18", tlv(0x04, bytes(self.components)))]
        flags = sequence(*(member(f"7.{i}", tlv(0x01, b"\xff")) for i in (1, 2, 3)))
        return sequence(
            member("1", tlv(0x04, self.ppid)), member("2", sequence(*tcb)), member("3", tlv(0x04, bytes(2))),
            member("4", tlv(0x04, bytes.fromhex("00806f050000"))), member("5", tlv(0x0A, b"\x01")),
            member("6", tlv(0x04, bytes(16))), member("7", flags),
        )  # fmt: skip

    def chain(self) -> tuple[bytes, bytes, bytes]:
        """PCK, CA, root in DER."""
        extension = self.pck.extension or (self.sgx_extension() if self.extension is None else self.extension)
        leaf = Certified(**{**vars(self.pck), "extension": extension})
        return leaf.der(), self.ca.der(), self.root.der()

    def quote(self) -> bytes:
        """The quote, signed by its attestation key, which a QE report binds that the PCK signed."""
        version, start, body = QUOTE_BODIES[self.shape](self.body)
        signed = header(version, self.tee) + start + body
        binding = hashlib.sha256(raw_public("attestation") + self.auth_data).digest() + bytes(32)
        report = qe_body({"report_data": binding, **self.qe})
        chain = self.chain()
        kind, data = self.certification or (5, pem(*(chain[i] for i in self.order)) + b"\0")
        return assemble(
            version, signed, sign("attestation", signed), raw_public("attestation"), report,
            sign("pck", report), self.auth_data, kind, data,
        )  # fmt: skip

    def documents(self) -> tuple[bytes, bytes]:
        """TCB info and QE identity as signed."""
        info = tcb_info(self.tee, self.info)
        return write_json(cast(Json, info)), write_json(cast(Json, qe_identity(self.tee, self.identity)))

    def crls(self) -> tuple[bytes | None, bytes | None]:
        root = crl(ROOT_CN, "root") if self.root_crl == b"" else self.root_crl
        return root, crl(self.ca.subject, "ca") if self.pck_crl == b"" else self.pck_crl

    def collateral(self) -> bytes:
        """A collateral set of nine members."""
        info, identity = self.documents()
        root, pck = self.crls()
        _, ca, end = self.chain()
        issuers = pem(self.signer.der(), end).decode()
        return write_json({
            "pck_crl_issuer_chain": pem(ca, end).decode(),
            "root_ca_crl": (root or b"").hex(),
            "pck_crl": (pck or b"").hex(),
            "tcb_info_issuer_chain": issuers,
            "tcb_info": info.decode(),
            "tcb_info_signature": sign(self.document_key, info).hex(),
            "qe_identity_issuer_chain": issuers,
            "qe_identity": identity.decode(),
            "qe_identity_signature": sign(self.document_key, identity).hex(),
        })  # fmt: skip

    def pieces(self) -> list[bytes]:
        """The same collateral, each piece alone, as the service answers."""
        info, identity = self.documents()
        answers = [
            b'{"tcbInfo":' + info + b',"signature":"' + sign(self.document_key, info).hex().encode() + b'"}',
            b'{"enclaveIdentity":' + identity + b',"signature":"'
            + sign(self.document_key, identity).hex().encode() + b'"}',
        ]  # fmt: skip
        crls = [each for each in self.crls() if each]
        return [*answers, *crls, pem(self.signer.der(), self.root.der()), self.chain()[1]]

    def evaluations(self, signer: str | None = None, **changes: Json) -> bytes:
        """Intel's list of evaluation numbers, as the service answers it."""
        body = write_json(cast(Json, evaluations(self.tee, changes)))
        signature = sign(signer or self.document_key, body).hex().encode()
        return b'{"tcbEvaluationDataNumbers":' + body + b',"signature":"' + signature + b'"}'

    @property
    def root_digest(self) -> str:
        return sha256(self.root.der()).hex()


def days(count: float) -> datetime:
    """That many days from NOW."""
    return NOW + timedelta(days=count)


assert encode_oid(ARC) == SGX_EXTENSION
