"""Forging whole chains and reports: every product, version and kind of leaf, and every fault.

A `Forge` is a made-up vendor in memory. Its certificates look like AMD's in everything but the
names' organisation and the keys. Faults are made by changing one argument.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from attestation.snp import report
from attestation.snp.origin import leaf
from attestation.snp.origin.chain import Roots
from attestation.snp.products import FIVE_PARTS, PRODUCTS, Pin, Product
from attestation.testing import der
from schemas.canonical import sha256

NOW = datetime(2026, 3, 1, tzinfo=UTC)
"""The moment at which forged evidence is good."""

CPUIDS = {
    "Milan": (0x19, 0x01, 1),
    "Genoa": (0x19, 0x11, 1),
    "Turin": (0x1A, 0x02, 1),
    "Venice": (0x1A, 0x50, 0),
}
TCBS: dict[str, dict[str, int]] = {
    "Milan": {"bl": 4, "tee": 0, "snp": 24, "ucode": 219},
    "Genoa": {"bl": 10, "tee": 0, "snp": 23, "ucode": 84},
    "Turin": {"fmc": 1, "bl": 1, "tee": 1, "snp": 4, "ucode": 81},
    "Venice": {"fmc": 1, "bl": 1, "tee": 1, "snp": 1, "ucode": 200},
}
MEASUREMENT = sha256(b"a simulated guest")[:24] * 2
GPU_MEASUREMENT = sha256(b"a simulated guest that works with a GPU")[:24] * 2
CSP_ID = "CN=cc-test-1.example.com"
GOOD_POLICY = 1 << 17 | 1 << 16 | 31
GOOD_PLATFORM = 0x25  # SMT, ECC, alias check complete


@lru_cache(maxsize=8)
def rsa_key(name: str, bits: int = 4096) -> rsa.RSAPrivateKey:
    """One RSA key per name and process: making one takes a third of a second."""
    del name
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


@lru_cache(maxsize=8)
def ec_key(name: str) -> ec.EllipticCurvePrivateKey:
    """One P-384 key per name and process."""
    del name
    return ec.generate_private_key(ec.SECP384R1())


def level(value: int) -> bytes:
    """A patch level as the certificates spell it."""
    return der.integer(value)


def ia5(text: str) -> bytes:
    return der.tlv(0x16, text.encode("ascii"))


def leaf_extensions(
    product: Product,
    *,
    kind: str = "VCEK",
    tcb: Mapping[str, int],
    hwid: bytes | None,
    csp_id: str | None = None,
    product_name: str | None = None,
) -> list[der.Extension]:
    """AMD's extension set for one leaf (snp.md 5)."""
    found: list[der.Extension] = [
        (leaf.STRUCT_VERSION, False, level(1 if product.layout is FIVE_PARTS else 0)),
        (leaf.PRODUCT_NAME, False, ia5(product_name or product.name)),
    ]
    found += [(leaf.SPL[part], False, level(tcb[part])) for part, _ in product.layout.parts]
    if kind == "VLEK":
        return [*found, (leaf.CSP_ID, False, ia5(csp_id or CSP_ID))]
    return [*found, (leaf.HWID, False, hwid or b"")]


def make_report(**fields: Any) -> bytes:
    """A report with an empty signature. Fields are those of `Report`; TCBs are raw bytes."""
    values: dict[str, Any] = {
        "version": 3, "guest_svn": 1, "policy": GOOD_POLICY, "family_id": bytes(16), "image_id": bytes(16),
        "vmpl": 0, "signature_algorithm": 1, "platform_info": GOOD_PLATFORM, "key_info": 0,
        "report_data": bytes(64), "measurement": MEASUREMENT, "host_data": bytes(32),
        "id_key_digest": bytes(48), "author_key_digest": bytes(48), "report_id": sha256(b"report"),
        "report_id_ma": b"\xff" * 32, "cpuid": (0, 0, 0), "chip_id": bytes(64),
        "current_firmware": (1, 55, 40), "committed_firmware": (1, 55, 40),
        "launch_mitigation": 0, "current_mitigation": 0,
    }  # fmt: skip
    values.update(fields)
    current, committed = values["current_firmware"], values["committed_firmware"]
    return report._FIELDS.pack(
        values["version"], values["guest_svn"], values["policy"].to_bytes(8, "little"),
        values["family_id"], values["image_id"], values["vmpl"], values["signature_algorithm"],
        values["current_tcb"], values["platform_info"].to_bytes(8, "little"), values["key_info"], bytes(4),
        values["report_data"], values["measurement"], values["host_data"], values["id_key_digest"],
        values["author_key_digest"], values["report_id"], values["report_id_ma"], values["reported_tcb"],
        *values["cpuid"], bytes(21), values["chip_id"], values["committed_tcb"],
        bytes((*reversed(current), 0)), bytes((*reversed(committed), 0)), values["launch_tcb"],
        values["launch_mitigation"].to_bytes(8, "little"), values["current_mitigation"].to_bytes(8, "little"),
        bytes(152), bytes(72), bytes(72), bytes(368),
    )  # fmt: skip


def sign_report(unsigned: bytes, key: ec.EllipticCurvePrivateKey) -> bytes:
    """The same report with its signature, little endian as AMD writes it."""
    r, s = decode_dss_signature(key.sign(unsigned[: report.SIGNED_BYTES], ec.ECDSA(hashes.SHA384())))
    return unsigned[: report.SIGNED_BYTES] + r.to_bytes(72, "little") + s.to_bytes(72, "little") + bytes(368)


@dataclass(frozen=True)
class Forge:
    """A made-up vendor for one product, with good defaults for everything it makes."""

    product: Product
    kind: str = "VCEK"
    at: datetime = NOW
    ark_key: rsa.RSAPrivateKey = field(default_factory=lambda: rsa_key("ark"), repr=False)
    intermediate_key: rsa.RSAPrivateKey = field(default_factory=lambda: rsa_key("intermediate"), repr=False)
    leaf_key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec_key("leaf"), repr=False)
    serials: tuple[int, int] = (65536, 65537)
    version: int = 3

    @staticmethod
    def of(product: str, kind: str = "VCEK", **changes: Any) -> Forge:
        version = 5 if PRODUCTS[product].layout is FIVE_PARTS else 3
        return replace(Forge(PRODUCTS[product], kind, version=version), **changes)

    @property
    def tcb(self) -> dict[str, int]:
        return TCBS[self.product.name]

    @property
    def hwid(self) -> bytes:
        return sha256(self.product.name.encode(), b"chip").ljust(64, b"\x5a")[: self.product.hwid_bytes]

    @property
    def chip_id(self) -> bytes:
        return bytes(64) if self.kind == "VLEK" else self.hwid.ljust(64, b"\0")

    @property
    def intermediate_name(self) -> str:
        return self.product.asvk if self.kind == "VLEK" else self.product.ask

    def ark(self, **changes: Any) -> bytes:
        values: dict[str, Any] = {
            "subject": self.product.ark, "issuer": self.product.ark, "public_key": self.ark_key.public_key(),
            "signing_key": self.ark_key, "serial": self.serials[0],
            "not_before": self.at - timedelta(days=900), "not_after": self.at + timedelta(days=8000),
        }  # fmt: skip
        return der.certificate(**{**values, **changes})

    def intermediate(self, **changes: Any) -> bytes:
        values: dict[str, Any] = {
            "subject": self.intermediate_name, "issuer": self.product.ark,
            "public_key": self.intermediate_key.public_key(), "signing_key": self.ark_key,
            "serial": self.serials[1],
            "not_before": self.at - timedelta(days=800), "not_after": self.at + timedelta(days=7000),
        }  # fmt: skip
        return der.certificate(**{**values, **changes})

    def extensions(self, **changes: Any) -> list[der.Extension]:
        values: dict[str, Any] = {"kind": self.kind, "tcb": self.tcb, "hwid": self.hwid}
        return leaf_extensions(self.product, **{**values, **changes})

    def leaf(self, **changes: Any) -> bytes:
        days = 365 if self.kind == "VLEK" else 7 * 365
        values: dict[str, Any] = {
            "subject": f"SEV-{self.kind}", "issuer": self.intermediate_name,
            "public_key": self.leaf_key.public_key(), "signing_key": self.intermediate_key, "serial": 0,
            "not_before": self.at - timedelta(days=30), "not_after": self.at + timedelta(days=days - 30),
        }  # fmt: skip
        if "extensions" not in changes:
            values["extensions"] = self.extensions()
        return der.certificate(**{**values, **changes})

    def crl(self, **changes: Any) -> bytes:
        values: dict[str, Any] = {
            "issuer": self.product.ark, "signing_key": self.ark_key,
            "this_update": self.at - timedelta(days=10), "next_update": self.at + timedelta(days=350),
        }  # fmt: skip
        return der.crl(**{**values, **changes})

    def unsigned_report(self, **changes: Any) -> bytes:
        raw = self.product.layout.write(self.tcb)
        values: dict[str, Any] = {
            "version": self.version, "chip_id": self.chip_id, "key_info": 4 if self.kind == "VLEK" else 0,
            "cpuid": CPUIDS[self.product.name] if self.version >= 3 else (0, 0, 0),
            "reported_tcb": raw, "committed_tcb": raw, "current_tcb": raw, "launch_tcb": raw,
            "launch_mitigation": 11 if self.version >= 5 else 0,
            "current_mitigation": 11 if self.version >= 5 else 0,
        }  # fmt: skip
        return make_report(**{**values, **changes})

    def report(self, **changes: Any) -> bytes:
        return sign_report(self.unsigned_report(**changes), self.leaf_key)

    def endorsements(self) -> list[bytes]:
        """Root, intermediate, leaf and CRL, all good."""
        return [self.ark(), self.intermediate(), self.leaf(), self.crl()]

    def pin(self, ark: bytes | None = None) -> tuple[str, Pin]:
        digest = sha256(ark or self.ark()).hex()
        return self.product.name, Pin(digest, None, simulated=True, name="forge")

    def roots(self, *arks: bytes) -> Roots:
        """AMD's roots, and this vendor's as simulated ones."""
        return Roots.amd([self.pin(ark) for ark in arks or (self.ark(),)])

    def root_toml(self, arks: Sequence[bytes] = ()) -> str:
        tables = []
        for ark in arks or (self.ark(),):
            digest = sha256(ark).hex()
            tables.append(
                f'[[simulated_root]]\nname = "forge"\nproduct = "{self.product.name}"\nsha256 = "{digest}"\n'
            )
        return "\n".join(tables)
