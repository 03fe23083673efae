"""`NodeEvidence`: the one shape of a node's proof, from device to auditor (DESIGN 20).

Nodes send it, agents and peers fetch it by digest, receipts keep it, `comity attest verify --tee
node` reads it. It carries raw evidence and collateral; it states no verdict.
"""

from __future__ import annotations

import zlib
from typing import Annotated, Final, Literal, Self

from pydantic import Field

from schemas.canonical import Wire, length_prefixed, sha256
from schemas.errors import Refused, Unreadable
from schemas.keys import VerifyKey
from schemas.primitives import Bytes64, Count, Digest, DomainName, Label, Token
from schemas.proof import binding

MAX_EVIDENCE_BYTES = 1024 * 1024  # 8 GPUs and 4 switches with chains and logs stay below it
MAX_PACKED_BYTES = 192 * 1024  # as one bus message carries it (session.md 10): a forged board takes 61 KiB
PACKED_FROM = 64 * 1024  # bytes; smaller documents travel as they are
PACKING = 1  # zlib's fastest: base64 shrinks by a quarter at any level, repeated chains and manifests by more

Items = Field(max_length=64)


class ModelFile(Wire):
    """One model file that the node itself hashed at load."""

    capability: Label
    """Class and variant this file realises, e.g. `chat.small/smollm2-135m-q4_1`."""
    digest: Digest


class NodeConfiguration(Wire):
    """What runs beside the node program. Its digest is inside `report_data` (session.md 4)."""

    engine: Literal["in-tee", "outside-tee"]
    """`outside-tee` is a claim that every class but public denies."""
    engine_kind: Label
    """E.g. `llama.cpp`, `vllm`."""
    engine_digest: Digest
    """SHA-256 of the engine's binary."""
    engine_flags: Annotated[list[str], Field(max_length=128)]
    engine_address: str
    """Loopback or a Unix socket; anything else is refused for an `in-tee` engine."""
    models: Annotated[list[ModelFile], Items]
    prompt_logging: bool


class ChallengeProof(Wire):
    """Where a domain's challenge stands under `challenge_root`."""

    domain: DomainName
    index: Count
    size: Count
    path: Annotated[list[Digest], Items]

    def as_path(self) -> binding.ChallengePath:
        return binding.ChallengePath(self.index, self.size, tuple(bytes.fromhex(part) for part in self.path))


class CpuEvidence(Wire):
    """A CPU TEE's report with the collateral that belongs to it."""

    tee: Literal["snp", "tdx"]
    report: Bytes64
    endorsements: Annotated[list[Bytes64], Items]
    """Certificates, CRLs and collateral documents, each recognised by its content."""


class DeviceState(Wire):
    """What the node's driver says of a GPU and its report does not: worth as much as the measured guest."""

    confidential: bool
    environment: Literal["unavailable", "simulation", "production"]
    devtools: bool


class DeviceEvidence(Wire):
    """A GPU's or switch's report with its certificate chain and collateral."""

    kind: Literal["gpu", "switch"]
    report: Bytes64
    endorsements: Annotated[list[Bytes64], Items]
    state: DeviceState | None = None


class NodeEvidence(Wire):
    """A node's proof for one key epoch."""

    v: Literal[1] = 1
    federation: Label
    domain: DomainName
    node_id: Token
    boot_id: Token
    key_epoch: Count
    sign_spki: Bytes64
    seal_key: Bytes64
    challenge_root: Digest
    challenges: Annotated[list[ChallengeProof], Field(min_length=1, max_length=binding.MAX_CHALLENGES)]
    configuration: NodeConfiguration
    cpu: CpuEvidence
    devices: Annotated[list[DeviceEvidence], Items] = Field(default_factory=list)
    device_challenge_root: Digest | None = None
    event_log: Bytes64 | None = None

    @classmethod
    def read(cls, data: bytes, *, limit: int = MAX_EVIDENCE_BYTES) -> Self:
        return super().read(data, limit=limit)

    @property
    def identity(self) -> binding.NodeIdentity:
        return binding.NodeIdentity(
            federation=self.federation,
            domain=self.domain,
            node_id=self.node_id,
            boot_id=self.boot_id,
            key_epoch=self.key_epoch,
            sign_spki=self.sign_spki,
            seal_key=self.seal_key,
        )

    @property
    def sign_key(self) -> VerifyKey:
        """The node's signing key: usable only under an appraisal that we made. Raises `Refused`."""
        return VerifyKey.from_spki(self.sign_spki)

    @property
    def device_evidence_digest(self) -> bytes:
        """Covers the whole device bundle; zeros where there is none."""
        if not self.devices:
            return binding.NO_DEVICES
        return sha256(length_prefixed(b"comity devices v1", *(device.write() for device in self.devices)))

    def expected_report_data(self) -> bytes:
        """The 64 bytes that the CPU report must carry if all of the above is true."""
        return binding.report_data(
            self.identity,
            challenge_root=bytes.fromhex(self.challenge_root),
            node_config_digest=self.configuration.value_digest(),
            device_evidence_digest=self.device_evidence_digest,
        )

    def challenge_path(self, domain: str) -> binding.ChallengePath:
        """The path of `domain`'s challenge. Raises `Refused` when this quote does not answer it."""
        for proof in self.challenges:
            if proof.domain == domain:
                return proof.as_path()
        raise Refused("binding.not_challenged", f"this evidence answers no challenge of {domain}")


def evidence_digest(data: bytes) -> bytes:
    """The name of a stored evidence document: SHA-256 of its exact bytes (32 bytes)."""
    return sha256(data)


def pack(document: bytes) -> bytes:
    """A document as it travels: deflated where it is large (RFC 1950). Its name is that of the document."""
    return zlib.compress(document, PACKING) if len(document) >= PACKED_FROM else document


def unpack(data: bytes, *, limit: int = MAX_EVIDENCE_BYTES) -> bytes:
    """What `pack` was given; JSON never begins as zlib does. Raises `Unreadable`, also for what swells."""
    if data[:1] != _ZLIB:
        return data
    inflating = zlib.decompressobj()
    try:
        document = inflating.decompress(data, limit + 1)
    except zlib.error:
        raise Unreadable("evidence.packed", "it cannot be inflated") from None
    if len(document) > limit or not inflating.eof or inflating.unused_data:
        raise Unreadable("evidence.packed", f"more than {limit} bytes, or not one document")
    return document


_ZLIB: Final = b"\x78"  # deflate with a window of 32 KiB, RFC 1950 2.2
