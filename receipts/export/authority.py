"""The private root of exports: a CA, a certificate log, a time-stamp authority, a log of exports.

One folder, made at first use, mode 0700. Who holds it can export anything under it: it is as
trustworthy as the domain, no more, and whoever relies on an export pins its trust configuration.
"""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import dataclass
from datetime import datetime, timedelta
from io import FileIO
from pathlib import Path
from tempfile import mkdtemp
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from receipts.export.timestamp import octets
from receipts.merkle import EMPTY_RANGE, inclusion_path, leaf_hash
from schemas.canonical import sha256
from schemas.errors import ConfigurationError
from schemas.files import sync_folder
from schemas.keys import read_secret, write_secret
from schemas.lock import lock
from schemas.primitives import format_time

VALID_DAYS: Final = 3650  # of the roots; an export's own certificate lives ten minutes
LEAF_MINUTES: Final = 10
HASH_BYTES: Final = 32
MAX_EXPORTS: Final = 1_000_000  # leaves of the export log, 32 MB
CA: Final = "export CA"
ISSUER_OID: Final = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")  # Fulcio: OIDC issuer, raw UTF-8
SCT_OID: Final = x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")


@dataclass(frozen=True, slots=True)
class Logged:
    """An export's place in the log of exports."""

    index: int
    size: int
    root: bytes
    path: list[bytes]


@dataclass(frozen=True, slots=True)
class Authority:
    """Keys and certificates of one private root."""

    folder: Path
    name: str
    """The domain that it belongs to."""
    ca: ec.EllipticCurvePrivateKey
    ca_certificate: x509.Certificate
    ct: ec.EllipticCurvePrivateKey
    tsa: ec.EllipticCurvePrivateKey
    tsa_certificate: x509.Certificate
    tsa_root: x509.Certificate
    log: ed25519.Ed25519PrivateKey

    @classmethod
    def open(cls, folder: Path, name: str, at: datetime) -> Self:
        """Load the root, or make it. Raises `ConfigurationError`; also where no tool would believe it now."""
        try:
            if not folder.exists():
                _make(folder, name, at)
            certificates = {
                each: x509.load_pem_x509_certificate((folder / f"{each}.crt").read_bytes())
                for each in ("ca", "tsa", "tsa-root")
            }
            ca, ct, tsa = (_p256(folder / f"{each}.pem") for each in ("ca", "ct", "tsa"))
            log = load_pem_private_key(read_secret(folder / "log.pem"), None)
        except (OSError, ValueError, TypeError) as error:
            raise ConfigurationError("export.authority", f"{folder}: {_said(error)}") from None
        if not isinstance(log, ed25519.Ed25519PrivateKey):
            raise ConfigurationError("export.authority", f"{folder}/log.pem: not an Ed25519 key")
        if certificates["ca"].subject != _name(name, CA):
            raise ConfigurationError("export.authority", f"{folder} is the private root of another domain")
        for certificate in certificates.values():
            _check_in_date(certificate, folder, at)
        return cls(
            folder, name, ca, certificates["ca"], ct, tsa, certificates["tsa"], certificates["tsa-root"], log
        )

    def certify(self, public: ec.EllipticCurvePublicKey, identity: str, issuer: str, at: datetime) -> bytes:
        """A ten-minute certificate (DER) for a registered receipt key, with one embedded SCT."""
        # No subject: then the alternative name is critical and speaks alone (RFC 5280 4.2.1.6).
        builder = _builder(x509.Name([]), self.ca_certificate.subject, public)
        builder = builder.not_valid_before(at).not_valid_after(at + timedelta(minutes=LEAF_MINUTES))
        extensions: list[tuple[x509.ExtensionType, bool]] = [
            (_usage(sign=True), True),
            (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), False),
            (x509.BasicConstraints(ca=False, path_length=None), True),
            (x509.SubjectKeyIdentifier.from_public_key(public), False),
            (x509.AuthorityKeyIdentifier.from_issuer_public_key(self.ca.public_key()), False),
            (x509.SubjectAlternativeName([x509.UniformResourceIdentifier(identity)]), True),
            (x509.UnrecognizedExtension(ISSUER_OID, issuer.encode()), False),
        ]
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        precertificate = builder.sign(self.ca, hashes.SHA256())
        sct = self._sct(precertificate.tbs_certificate_bytes, at)
        builder = builder.add_extension(x509.UnrecognizedExtension(SCT_OID, octets(sct)), critical=False)
        return builder.sign(self.ca, hashes.SHA256()).public_bytes(Encoding.DER)

    def _sct(self, tbs: bytes, at: datetime) -> bytes:
        """A list of one SCT over the precertificate (RFC 6962 3.2, 3.3)."""
        stamp = int(at.timestamp() * 1000).to_bytes(8)
        entry = b"\0\1" + sha256(_spki(self.ca)) + len(tbs).to_bytes(3) + tbs
        signature = self.ct.sign(b"\0\0" + stamp + entry + b"\0\0", ec.ECDSA(hashes.SHA256()))
        sct = (
            b"\0"
            + sha256(_spki(self.ct))
            + stamp
            + b"\0\0"
            + b"\4\3"
            + len(signature).to_bytes(2)
            + signature
        )
        item = len(sct).to_bytes(2) + sct
        return len(item).to_bytes(2) + item

    def append(self, body: bytes) -> Logged:
        """Add one entry to the log of exports; on disk before its proof exists.

        Raises `ConfigurationError` (`export.held` while another export writes there).
        """
        leaves = self.folder / "leaves"
        try:
            with open(lock(leaves), "r+b", 0) as file:  # two at a time would sign two trees of one size
                hashed = _whole_leaves(file)
                if len(hashed) >= MAX_EXPORTS:
                    raise ConfigurationError("export.full", f"{leaves}: begin a new authority")
                file.seek(file.truncate(len(hashed) * HASH_BYTES))
                hashed.append(leaf_hash(body))
                if file.write(hashed[-1]) < HASH_BYTES:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(file.fileno())
            if len(hashed) == 1:
                sync_folder(self.folder)
        except BlockingIOError:
            text = f"{self.folder}: another export is writing there; try again"
            raise ConfigurationError("export.held", text) from None
        except OSError as error:
            raise ConfigurationError("export.authority", f"{self.folder}: {error.strerror}") from None
        index = len(hashed) - 1
        root = EMPTY_RANGE.append(hashed).root()
        return Logged(index, len(hashed), root, inclusion_path(hashed, index))


def _whole_leaves(file: FileIO) -> list[bytes]:
    """Every entry's hash, without a piece that a crash left at the end: no proof was made of it."""
    leaves = file.read((MAX_EXPORTS + 1) * HASH_BYTES)
    whole = len(leaves) // HASH_BYTES * HASH_BYTES
    return [leaves[at : at + HASH_BYTES] for at in range(0, whole, HASH_BYTES)]


def _check_in_date(certificate: x509.Certificate, folder: Path, at: datetime) -> x509.Certificate:
    """Return the certificate if it outlives what is signed under it now. Raises `ConfigurationError`."""
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not begin <= at <= end - timedelta(minutes=LEAF_MINUTES):
        held = f"holds from {format_time(begin)} to {format_time(end)}"
        text = f"{folder} {held}, and it is {format_time(at)} here: begin a new authority"
        raise ConfigurationError("export.expired", text)
    return certificate


def _said(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or type(error).__name__


def _make(folder: Path, name: str, at: datetime) -> None:
    """All of it or nothing: under another name first."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))  # mode 0700
    try:
        _fill(fresh, name, at)
        fresh.rename(folder)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def _fill(folder: Path, name: str, at: datetime) -> None:
    ca, ct, tsa, tsa_root = (ec.generate_private_key(ec.SECP256R1()) for _ in range(4))
    for each, key in (("ca", ca), ("ct", ct), ("tsa", tsa), ("log", ed25519.Ed25519PrivateKey.generate())):
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        write_secret(folder / f"{each}.pem", pem)
    certificates = {
        "ca": _root(name, CA, ca, at),
        "tsa-root": _root(name, "export TSA root", tsa_root, at),
    }
    subject, issuer = _name(name, "export TSA"), certificates["tsa-root"].subject
    builder = _builder(subject, issuer, tsa.public_key())
    builder = builder.not_valid_before(at - timedelta(days=1)).not_valid_after(
        at + timedelta(days=VALID_DAYS)
    )
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING]), critical=True)
    builder = builder.add_extension(_usage(sign=True), critical=True)
    # The root's key is used once and never stored: no second authority can appear under it.
    certificates["tsa"] = builder.sign(tsa_root, hashes.SHA256())
    for each, certificate in certificates.items():
        (folder / f"{each}.crt").write_bytes(certificate.public_bytes(Encoding.PEM))


def _root(name: str, what: str, key: ec.EllipticCurvePrivateKey, at: datetime) -> x509.Certificate:
    subject = _name(name, what)
    builder = _builder(subject, subject, key.public_key())
    builder = builder.not_valid_before(at - timedelta(days=1)).not_valid_after(
        at + timedelta(days=VALID_DAYS)
    )
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(sign=False), critical=True)
    builder = builder.add_extension(
        x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
    )
    return builder.sign(key, hashes.SHA256())


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    serial = x509.random_serial_number()
    return x509.CertificateBuilder(issuer, subject, public, serial)


def _usage(*, sign: bool) -> x509.KeyUsage:
    """Signing alone, or certifying alone."""
    return x509.KeyUsage(
        digital_signature=sign, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=not sign, crl_sign=not sign, encipher_only=False,
        decipher_only=False,
    )  # fmt: skip


def _name(domain: str, what: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, domain[:64]),
            x509.NameAttribute(NameOID.COMMON_NAME, what),
        ]
    )


def _p256(path: Path) -> ec.EllipticCurvePrivateKey:
    key = load_pem_private_key(read_secret(path), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ConfigurationError("export.authority", f"{path}: not a P-256 key")
    return key


def _spki(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
