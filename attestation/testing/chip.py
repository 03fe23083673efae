"""A simulated TEE for a machine that has none: a vendor, and chips that it certifies.

`SimulatedVendor` keeps a root in a folder; each `SimulatedChip` is a folder of its own, which a node
process loads to quote. A relying party accepts them only after listing the root (`root_toml`).
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from attestation.snp.products import PRODUCTS, Product
from attestation.testing.forge import CPUIDS, MEASUREMENT, TCBS, Forge, make_report, sign_report
from schemas.canonical import Json, read_json, sha256, write_json
from schemas.errors import ConfigurationError
from schemas.keys import read_secret, write_secret
from schemas.proof.evidence import CpuEvidence

_ENDORSEMENTS = ("ark.der", "ask.der", "vcek.der", "crl.der")


@dataclass(frozen=True, slots=True)
class SimulatedVendor:
    """A made-up root for one product line, with its intermediate and CRL."""

    name: str
    product: Product
    made_at: datetime
    ark_key: rsa.RSAPrivateKey = field(repr=False)
    ask_key: rsa.RSAPrivateKey = field(repr=False)
    ark: bytes = field(repr=False)
    ask: bytes = field(repr=False)
    crl: bytes = field(repr=False)

    @staticmethod
    def create(product: str = "Milan", *, name: str = "demo", at: datetime | None = None) -> SimulatedVendor:
        """Make a root: two RSA-4096 keys, about a second."""
        made_at = (at or datetime.now(UTC)).replace(microsecond=0)
        keys = [rsa.generate_private_key(public_exponent=65537, key_size=4096) for _ in range(2)]
        forge = Forge.of(product, at=made_at, ark_key=keys[0], intermediate_key=keys[1])
        return SimulatedVendor(
            name, PRODUCTS[product], made_at, keys[0], keys[1], forge.ark(), forge.intermediate(), forge.crl()
        )

    @property
    def root_digest(self) -> str:
        """SHA-256 of the root's DER in hex: what a relying party lists."""
        return sha256(self.ark).hex()

    def root_toml(self) -> str:
        """The entry of expected.toml that accepts this root."""
        return (
            f'[[simulated_root]]\nname = "{self.name}"\nproduct = "{self.product.name}"\n'
            f'sha256 = "{self.root_digest}"\n'
        )

    def make_chip(
        self, *, chip_id: bytes | None = None, measurement: bytes = MEASUREMENT, **report: object
    ) -> SimulatedChip:
        """A chip with a certificate of its own. `report`: fields of every report that it will make."""
        hwid = chip_id or secrets.token_bytes(self.product.hwid_bytes)
        key = ec.generate_private_key(ec.SECP384R1())
        forge = Forge.of(
            self.product.name,
            at=self.made_at,
            ark_key=self.ark_key,
            intermediate_key=self.ask_key,
            leaf_key=key,
        )
        vcek = forge.leaf(extensions=forge.extensions(hwid=hwid))
        fields = {"measurement": measurement, **report}
        return SimulatedChip(
            self.product, hwid.ljust(64, b"\0"), key, (self.ark, self.ask, vcek, self.crl), fields
        )

    def save(self, folder: Path) -> None:
        """Write keys (mode 0600) and certificates. Raises `ConfigurationError` when keys exist already."""
        folder.mkdir(parents=True, exist_ok=True)
        for key, file in ((self.ark_key, "ark.key"), (self.ask_key, "ask.key")):
            write_secret(folder / file, _pem(key))
        for data, file in ((self.ark, "ark.der"), (self.ask, "ask.der"), (self.crl, "crl.der")):
            (folder / file).write_bytes(data)
        about = {"name": self.name, "product": self.product.name, "made_at": int(self.made_at.timestamp())}
        (folder / "vendor.json").write_bytes(write_json(cast(Json, about)))

    @staticmethod
    def load(folder: Path) -> SimulatedVendor:
        """Read what `save` wrote. Raises `ConfigurationError`."""
        keys = [_load_key(folder / file) for file in ("ark.key", "ask.key")]
        match read_json(_read(folder / "vendor.json")), keys:
            case {"name": str(name), "product": str(product), "made_at": int(made_at)}, [
                rsa.RSAPrivateKey() as ark_key,
                rsa.RSAPrivateKey() as ask_key,
            ]:
                ark, ask, crl = (_read(folder / file) for file in ("ark.der", "ask.der", "crl.der"))
                at = datetime.fromtimestamp(made_at, UTC)
                return SimulatedVendor(name, PRODUCTS[product], at, ark_key, ask_key, ark, ask, crl)
        raise ConfigurationError("simulated.vendor", f"{folder}: not a simulated vendor")


@dataclass(frozen=True, slots=True)
class SimulatedChip:
    """A made-up chip that quotes. Its owner is the node process that loaded it."""

    product: Product
    chip_id: bytes
    """64 bytes, as in its reports."""
    key: ec.EllipticCurvePrivateKey = field(repr=False)
    endorsements: tuple[bytes, ...] = field(repr=False)
    """ARK, ASK, VCEK, CRL."""
    fields: dict[str, object]
    """What its reports state beyond the defaults, e.g. `measurement`, `policy`, `vmpl`."""

    def quote(self, report_data: bytes) -> CpuEvidence:
        """A report over 64 bytes, signed, with endorsements. About a millisecond."""
        tcb = self.product.layout.write(TCBS[self.product.name])
        unsigned = make_report(**{
            "version": 5, "cpuid": CPUIDS[self.product.name], "chip_id": self.chip_id,
            "reported_tcb": tcb, "committed_tcb": tcb, "current_tcb": tcb, "launch_tcb": tcb,
            "launch_mitigation": 11, "current_mitigation": 11, **self.fields, "report_data": report_data,
        })  # fmt: skip
        return CpuEvidence(
            tee="snp", report=sign_report(unsigned, self.key), endorsements=list(self.endorsements)
        )

    def save(self, folder: Path) -> None:
        """Write the key (mode 0600), the certificates and what the reports state."""
        folder.mkdir(parents=True, exist_ok=True)
        write_secret(folder / "vcek.key", _pem(self.key))
        for file, data in zip(_ENDORSEMENTS, self.endorsements, strict=True):
            (folder / file).write_bytes(data)
        fields = {
            name: value.hex() if isinstance(value, bytes) else value for name, value in self.fields.items()
        }
        about = {"product": self.product.name, "chip_id": self.chip_id.hex(), "fields": fields}
        (folder / "chip.json").write_bytes(write_json(cast(Json, about)))

    @staticmethod
    def load(folder: Path) -> SimulatedChip:
        """Read what `save` wrote. Raises `ConfigurationError`."""
        match read_json(_read(folder / "chip.json")), _load_key(folder / "vcek.key"):
            case {"product": str(product), "chip_id": str(chip_id), "fields": dict(fields)}, (
                ec.EllipticCurvePrivateKey() as key
            ):
                stated = {n: bytes.fromhex(v) if isinstance(v, str) else v for n, v in fields.items()}
                documents = tuple(_read(folder / file) for file in _ENDORSEMENTS)
                return SimulatedChip(PRODUCTS[product], bytes.fromhex(chip_id), key, documents, {**stated})
        raise ConfigurationError("simulated.chip", f"{folder}: not a simulated chip")


def _pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _load_key(path: Path) -> object:
    return serialization.load_pem_private_key(read_secret(path), password=None)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError("simulated.file", f"{path}: {error.strerror}") from None
