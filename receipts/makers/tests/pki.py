"""A private certificate authority for tests, and the library that signs models under it."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import model_signing
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from schemas import envelope
from schemas.canonical import sha256

AT = datetime(2026, 6, 1, tzinfo=UTC)
DAY = timedelta(days=1)
FILE = b"weights"
DIGEST = sha256(FILE).hex()
CODE, SERVER = ExtendedKeyUsageOID.CODE_SIGNING, ExtendedKeyUsageOID.SERVER_AUTH


def usage(*names: str) -> x509.KeyUsage:
    every = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
             "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")  # fmt: skip
    return x509.KeyUsage(**{name: name in names for name in every})


@dataclass
class Holder:
    """A key with a certificate; made by `issuer`, or by itself."""

    name: str
    issuer: Holder | None = None
    ca: bool = True
    curve: type[ec.EllipticCurve] = ec.SECP256R1
    path_length: int | None = None
    usage: tuple[str, ...] | None = ("key_cert_sign", "crl_sign")
    extended: tuple[x509.ObjectIdentifier, ...] | None = None
    since: datetime = AT - 30 * DAY
    until: datetime = AT + 300 * DAY
    serial: int | None = None
    constraints: bool = True
    more: tuple[tuple[x509.ExtensionType, bool], ...] = ()
    key: ec.EllipticCurvePrivateKey = field(init=False)

    def __post_init__(self) -> None:
        self.key = ec.generate_private_key(self.curve())

    @cached_property
    def certificate(self) -> x509.Certificate:
        above = self.issuer or self
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(self.name))
            .issuer_name(_name(above.name))
            .public_key(self.key.public_key())
            .serial_number(self.serial or x509.random_serial_number())
            .not_valid_before(self.since)
            .not_valid_after(self.until)
        )
        extensions: list[tuple[x509.ExtensionType, bool]] = [
            (x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), False),
            (x509.AuthorityKeyIdentifier.from_issuer_public_key(above.key.public_key()), False),
            *self.more,
        ]
        if self.constraints:
            extensions.append((x509.BasicConstraints(self.ca, self.path_length), True))
        if self.usage is not None:
            extensions.append((usage(*self.usage), True))
        if self.extended is not None:
            extensions.append((x509.ExtendedKeyUsage(self.extended), False))
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(above.key, hashes.SHA384())

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def digest(self) -> str:
        return sha256(self.der).hex()


def signer(issuer: Holder, **changes: Any) -> Holder:
    """A signing certificate as such authorities issue it."""
    san = x509.SubjectAlternativeName([x509.RFC822Name("maker@lab.example")])
    values: dict[str, Any] = {"ca": False, "usage": ("digital_signature",), "extended": (CODE,),
                              "more": ((san, False),)} | changes  # fmt: skip
    return Holder("maker", issuer, **values)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def write(folder: Path, *holders: Holder) -> list[Path]:
    paths = [folder / f"{number}.pem" for number in range(len(holders))]
    for path, holder in zip(paths, holders, strict=True):
        path.write_bytes(holder.pem)
    return paths


def by_the_library(folder: Path, maker: Holder, *chain: Holder) -> bytes:
    """`model_signing sign certificate` over one file."""
    folder.mkdir(exist_ok=True)
    (folder / "model.gguf").write_bytes(FILE)
    form = PrivateFormat.PKCS8
    (folder / "maker.key").write_bytes(maker.key.private_bytes(Encoding.PEM, form, NoEncryption()))
    own, *others = write(folder, maker, *chain)
    signing: Any = model_signing.signing.Config
    signing().use_certificate_signer(
        private_key=folder / "maker.key", signing_certificate=own, certificate_chain=others
    ).sign(folder / "model.gguf", folder / "model.sig")
    return (folder / "model.sig").read_bytes()


def statement(digest: str) -> dict[str, Any]:
    """What the library says of a model of one file."""
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "m", "digest": {"sha256": sha256(bytes.fromhex(digest)).hex()}}],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {
            "serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": False},
            "resources": [{"name": ".", "algorithm": "sha256", "digest": digest}],
        },
    }


STATEMENT = statement(DIGEST)


def made(maker: Holder, *chain: Holder, **changes: Any) -> bytes:
    """The same form, made here in a moment; `changes`: hash of the signature, who signs, the model."""
    payload = json.dumps(statement(changes.get("digest", DIGEST))).encode()
    hashing = (
        changes.get("hashing")
        or {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}[maker.key.curve.key_size]
    )
    by = changes.get("by") or maker
    signature = by.key.sign(envelope.pae(envelope.STATEMENT, payload), ec.ECDSA(hashing))
    raw = [{"rawBytes": _base64(each.der)} for each in (maker, *chain)]
    return json.dumps(
        {
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {"x509CertificateChain": {"certificates": raw}, "tlogEntries": []},
            "dsseEnvelope": {
                "payload": _base64(payload),
                "payloadType": envelope.STATEMENT,
                "signatures": [{"sig": _base64(signature), "keyid": ""}],
            },
        }
    ).encode()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
