"""An NVIDIA-shaped vendor that does not exist: device and manifest roots, devices, their reports and status.

`GpuForge` is one good device; a test changes one field with `dataclasses.replace` and gets evidence that
real hardware never shows. Its roots are accepted only where expectations list them (`root_toml`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID

from attestation.pki.der import encode_oid
from attestation.testing.der import sequence, tlv
from attestation.testing.nvidia_report import NONCE, Fields, gpu_fields, make_report, switch_fields

NOW: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)
FROM: Final = datetime(2022, 1, 1, tzinfo=UTC)
UNTIL: Final = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
ROOT_CN: Final = "NVIDIA Device Identity CA"
HOPPER_FWID: Final = "2.23.133.5.4.1"
TCB_INFO: Final = "2.23.133.5.4.1.1"
SHAPES: Final = {
    "GH100": ("GH100 A01 GSP", "GH100", "GH100", "gpu"),
    "GB100": ("GB100 A01 GSP", "GB100", "GB100", "gpu"),
    "GB20X": ("GB20X A01 GSP", "GB202", "GB20X", "gpu"),
    "LS_10": ("LS_10 A01 FSP", "LS_10", "GH100", "switch"),
}
"""Chip → leaf and boot ROM, provisioner, identity, kind."""


@lru_cache(maxsize=4096)
def key(name: str) -> ec.EllipticCurvePrivateKey:
    """The P-384 key of that name, the same throughout one process."""
    del name
    return ec.generate_private_key(ec.SECP384R1())


@lru_cache(maxsize=8192)
def sign(name: str, data: bytes) -> bytes:
    """r ‖ s, 96 bytes. Kept: the same data gets the same bytes again."""
    r, s = decode_dss_signature(key(name).sign(data, ec.ECDSA(hashes.SHA384())))
    return r.to_bytes(48) + s.to_bytes(48)


@dataclass(frozen=True)
class Certified:
    """What one certificate says."""

    subject: str
    key: str
    issuer: str
    signer: str
    """Names of keys."""
    serial: int
    authority: bool | None
    """None = no basicConstraints, as in a leaf."""
    usage: tuple[str, ...]
    path_length: int | None = None
    not_before: datetime = FROM
    not_after: datetime = UNTIL
    extensions: tuple[tuple[str, bool, bytes], ...] = ()
    """(OID, critical, value)"""
    key_id: bytes | None = None
    """Authority key id in place of the signer's."""

    def der(self) -> bytes:
        return _certificate(self)


def name_of(common_name: str) -> x509.Name:
    return x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, common_name),
         x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Simulated Accelerators")]
    )  # fmt: skip


@lru_cache(maxsize=4096)
def _certificate(of: Certified) -> bytes:
    names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
             "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")  # fmt: skip
    usage = x509.KeyUsage(**{name: name in of.usage for name in names})
    issuer_id = x509.SubjectKeyIdentifier.from_public_key(key(of.signer).public_key()).digest
    builder = (
        x509.CertificateBuilder()
        .subject_name(name_of(of.subject))
        .issuer_name(name_of(of.issuer))
        .public_key(key(of.key).public_key())
        .serial_number(of.serial)
        .not_valid_before(of.not_before)
        .not_valid_after(of.not_after)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key(of.key).public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier(of.key_id or issuer_id, None, None), critical=False)
    )
    if of.authority is not None:
        basic = x509.BasicConstraints(ca=of.authority, path_length=of.path_length if of.authority else None)
        builder = builder.add_extension(basic, critical=True)
    for oid, critical, value in of.extensions:
        raw = x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value)
        builder = builder.add_extension(raw, critical=critical)
    return builder.sign(key(of.signer), hashes.SHA384()).public_bytes(serialization.Encoding.DER)


def pem(*certificates: bytes) -> bytes:
    return b"".join(
        x509.load_der_x509_certificate(each).public_bytes(serialization.Encoding.PEM) for each in certificates
    )


def spki_digest(name: str) -> str:
    """SHA-256 of a key's SubjectPublicKeyInfo, hex."""
    spki = key(name).public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )  # fmt: skip
    return hashlib.sha256(spki).hexdigest()


ISSUES: Final = ("key_cert_sign", "crl_sign")
DEVICE_ROOT: Final = Certified(ROOT_CN, "device root", ROOT_CN, "device root", 1, True, ISSUES)


@dataclass(frozen=True)
class GpuForge:
    """One device and everything about it, all good until a field is replaced."""

    chip: str = "GH100"
    number: int = 0
    """Tells devices apart: serials, PDI and keys follow from it."""
    driver: str = "550.90.07"
    vbios: bytes = bytes.fromhex("009f009601000000")
    nonce: bytes = NONCE
    measurements: Mapping[int, bytes | None] = field(default_factory=dict)
    """Manifest index → value that differs; None leaves the block out."""
    fields: Fields = field(default_factory=dict)
    """Opaque fields that differ; None leaves one out."""
    frame: Mapping[str, Any] = field(default_factory=dict)
    """Parts of the report's frame that differ (see `make_report`)."""
    fwid: bytes = hashlib.sha384(b"firmware").digest()
    certified_fwid: bytes | None = None
    """In place of the same."""
    changes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """`leaf`, `brom`, `provisioner`, `identity`, `root` → what its certificate says differently."""
    signer: str | None = None
    """Another key than the leaf's signs the report."""

    @property
    def kind(self) -> str:
        return SHAPES[self.chip][3]

    @property
    def pdi(self) -> bytes:
        return hashlib.sha256(f"{self.chip} {self.number}".encode()).digest()[:8]

    @property
    def device_key(self) -> str:
        return f"{self.chip} {self.number}"

    def fwid_extension(self) -> tuple[str, bool, bytes]:
        digest = self.certified_fwid or self.fwid
        named = sequence(encode_oid("2.16.840.1.101.3.4.2.2"), tlv(0x04, digest))
        if self.chip.startswith("GB"):
            zero = sequence(encode_oid("2.16.840.1.101.3.4.2.2"), tlv(0x04, bytes(48)))
            return TCB_INFO, False, sequence(tlv(0x80, b"NVIDIA"), tlv(0xA6, named, zero))
        return HOPPER_FWID, False, sequence(tlv(0x02, b"\x01"), sequence(), named)

    def alternative_name(self) -> tuple[str, bool, bytes]:
        text = tlv(0xA0, tlv(0x0C, f"NVIDIA:{self.chip}:{self.pdi.hex().upper()}".encode()))
        return "2.5.29.17", False, sequence(tlv(0xA0, encode_oid("1.3.6.1.4.1.412.274.1"), text))

    def certified(self) -> dict[str, Certified]:
        """The five certificates by name, leaf first."""
        unit, provisioner, identity, kind = SHAPES[self.chip]
        prefix = 0x41 if kind == "gpu" else 0x50
        leaf, brom = f"{unit} FMC LF", f"{unit} BROM"
        ica, family = f"NVIDIA {provisioner} Provisioner ICA 1", f"NVIDIA {identity} Identity"
        extensions = (self.alternative_name(), self.fwid_extension())
        own, serial = self.device_key, 10_000 + int.from_bytes(self.pdi)
        good = {
            "leaf": Certified(leaf, own, brom, f"{own} brom", serial, None, ("digital_signature",),
                              extensions=extensions),
            "brom": Certified(brom, f"{own} brom", ica, ica, prefix << 64 | int.from_bytes(self.pdi), True,
                              ("key_cert_sign",)),
            "provisioner": Certified(ica, ica, family, family, 3, True, ISSUES),
            "identity": Certified(family, family, ROOT_CN, "device root", 2, True, ISSUES),
            "root": DEVICE_ROOT,
        }  # fmt: skip
        return {
            name: Certified(**{**vars(each), **self.changes.get(name, {})}) for name, each in good.items()
        }

    def chain(self) -> bytes:
        """PEM, leaf first, as the device delivers it."""
        return pem(*(each.der() for each in self.certified().values()))

    def opaque(self) -> dict[int, bytes]:
        good = (
            switch_fields(self.pdi)
            if self.kind == "switch"
            else gpu_fields(self.chip, self.driver, self.vbios, self.fwid)
        )
        merged = {**good, **self.fields}
        return {kind: value for kind, value in merged.items() if value is not None}

    def report(self) -> bytes:
        """The report, signed by the leaf's key."""
        frame = {"responder": self.device_key.encode(), **self.frame}
        count = 31 if self.kind == "switch" else 64
        unsigned = make_report(self.nonce, count, self.measurements, self.opaque(), frame)
        return unsigned + sign(self.signer or self.device_key, unsigned) + bytes(self.frame.get("tail", b""))


def root_toml(prefix: str = "nvidia") -> str:
    """The tables that accept the made-up roots."""
    table = f'[[{prefix}.simulated_root]]\nname = "forge"\n'
    return "".join(
        f'{table}anchor = "{anchor}"\nspki_sha256 = "{spki_digest(name)}"\n'
        for anchor, name in (("device", "device root"), ("manifest", "manifest root"), ("service", "service"))
    )
