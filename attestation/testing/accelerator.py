"""A simulated GPU for a machine that has none: a maker whose roots are listed by name, and its devices.

`SimulatedAccelerators` makes devices while a federation is founded; its keys stay in that process. Each
`SimulatedGpu` is a folder: leaf key, chain, and the manifests and OCSP answers that a node sends along.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, cast

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from attestation.gpu.node.composite import device_digest
from attestation.testing.nvidia import GpuForge, key, spki_digest
from attestation.testing.nvidia_manifest import DRIVER_INDICES, VBIOS_INDICES, ManifestForge
from attestation.testing.nvidia_node import PRODUCTION, VBIOS
from attestation.testing.nvidia_report import field as opaque_field
from attestation.testing.nvidia_report import make_report
from attestation.testing.nvidia_status import Answer, asked
from schemas.canonical import Json, read_json, write_json
from schemas.errors import ConfigurationError
from schemas.keys import read_secret, write_secret
from schemas.proof.evidence import DeviceEvidence

BLOCKS: Final = 64
DEVICE_KEY: Final = "leaf.key"
CHAIN: Final = "chain.pem"
ABOUT: Final = "device.json"
COLLATERAL: Final = ("*.xml", "*.ocsp")


@dataclass(frozen=True, slots=True)
class SimulatedAccelerators:
    """A made-up maker of GPUs. One process has one: its root keys are made once and never written."""

    name: str
    made_at: datetime
    days: int
    """For how long its manifests and answers serve: nobody renews them."""

    @staticmethod
    def create(*, name: str = "demo", at: datetime | None = None, days: int = 30) -> SimulatedAccelerators:
        return SimulatedAccelerators(name, (at or datetime.now(UTC)).replace(microsecond=0), days)

    @property
    def roots(self) -> dict[str, str]:
        """Anchor (`device`, `manifest`) → SHA-256 of its root's key in hex: what a relying party lists."""
        return {anchor: spki_digest(f"{anchor} root") for anchor in ("device", "manifest")}

    def make_gpu(self) -> SimulatedGpu:
        """A device with keys, certificates and identity of its own."""
        forge = GpuForge(number=secrets.randbits(63))
        versions = ((forge.driver, DRIVER_INDICES), (VBIOS.upper(), VBIOS_INDICES))
        manifests = [self._manifest(version, indices) for version, indices in versions]
        documents = [(f"{n}.xml", each.document()) for n, each in enumerate(manifests)]
        answers = [
            replace(Answer(about, issuer), this_update=self._since, next_update=self._until).der()
            for about, issuer in dict.fromkeys(asked(forge, manifests))
        ]
        documents += [(f"{n}.ocsp", answer) for n, answer in enumerate(answers)]
        opaque = b"".join(opaque_field(kind, value) for kind, value in forge.opaque().items())
        leaf = forge.certified()["leaf"]
        return SimulatedGpu(str(leaf.serial), key(forge.device_key), forge.chain(), dict(documents), opaque)

    @property
    def _since(self) -> datetime:
        return self.made_at - timedelta(hours=1)

    @property
    def _until(self) -> datetime:
        return self.made_at + timedelta(days=self.days)

    def _manifest(self, version: str, indices: tuple[int, ...]) -> ManifestForge:
        """A manifest in date. It lists its active values alone, so that evidence stays small."""
        period = {"not_before": self._since, "not_after": self._until}
        good = ManifestForge(version=version, indices=indices, changes={"signer": period})
        return replace(good, resources="\n".join(good.resource(index) for index in indices))


@dataclass(frozen=True, slots=True)
class SimulatedGpu:
    """A made-up GPU that reports. Its owner is the node process that loaded it."""

    ueid: str
    """Decimal, as in its certificate."""
    key: ec.EllipticCurvePrivateKey = field(repr=False)
    chain: bytes = field(repr=False)
    documents: dict[str, bytes] = field(repr=False)
    """File name → manifest or OCSP answer."""
    opaque: bytes = field(repr=False)

    @property
    def platform_digest(self) -> str:
        """What its domain enrols, hex."""
        return device_digest(self.ueid).hex()

    def report(self, nonce: bytes) -> DeviceEvidence:
        """A report on 32 bytes, signed, with chain and collateral. About a millisecond."""
        frame = {"responder": self.ueid.encode(), "opaque": self.opaque}
        unsigned = make_report(nonce, BLOCKS, {}, {}, frame)
        r, s = decode_dss_signature(self.key.sign(unsigned, ec.ECDSA(hashes.SHA384())))
        endorsements = [self.chain, *self.documents.values()]
        report = unsigned + r.to_bytes(48) + s.to_bytes(48)
        return DeviceEvidence(kind="gpu", report=report, endorsements=endorsements, state=PRODUCTION)

    def save(self, folder: Path) -> None:
        """Write the key (mode 0600), the certificates, the collateral and what its reports state."""
        folder.mkdir(parents=True, exist_ok=True)
        pem = self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write_secret(folder / DEVICE_KEY, pem)
        for name, data in {CHAIN: self.chain, **self.documents}.items():
            (folder / name).write_bytes(data)
        about = {"ueid": self.ueid, "opaque": self.opaque.hex()}
        (folder / ABOUT).write_bytes(write_json(cast(Json, about)))

    @staticmethod
    def load(folder: Path) -> SimulatedGpu:
        """Read what `save` wrote. Raises `ConfigurationError`."""
        try:
            about = read_json((folder / ABOUT).read_bytes())
            chain = (folder / CHAIN).read_bytes()
            files = sorted(path for pattern in COLLATERAL for path in folder.glob(pattern))
            documents = {path.name: path.read_bytes() for path in files}
        except OSError as error:
            raise ConfigurationError("simulated.file", f"{error.filename}: {error.strerror}") from None
        private = serialization.load_pem_private_key(read_secret(folder / DEVICE_KEY), password=None)
        match about, private:
            case {"ueid": str(ueid), "opaque": str(opaque)}, ec.EllipticCurvePrivateKey() as leaf:
                return SimulatedGpu(ueid, leaf, chain, documents, bytes.fromhex(opaque))
        raise ConfigurationError("simulated.gpu", f"{folder}: not a simulated GPU")


@dataclass(frozen=True, slots=True)
class SimulatedBoard:
    """All simulated GPUs of one node: a folder with a folder for each."""

    gpus: tuple[SimulatedGpu, ...]

    def __call__(self, nonce: bytes) -> list[DeviceEvidence]:
        """Every device's report, in the order of their ueids (gpu.md 10)."""
        return [gpu.report(nonce) for gpu in sorted(self.gpus, key=lambda each: int(each.ueid))]

    @staticmethod
    def load(folder: Path) -> SimulatedBoard:
        """Raises `ConfigurationError`, also for a folder without a device."""
        found = sorted(path.parent for path in folder.glob(f"*/{ABOUT}"))
        if not found:
            raise ConfigurationError("simulated.gpu", f"{folder}: no folder of a simulated GPU in it")
        return SimulatedBoard(tuple(map(SimulatedGpu.load, found)))
