"""A small made-up federation for tests: two domains, their papers and logs, and one request between them.

The one door to it all: who and when is in `names`, what receipts say in `bodies`, the node in `machine`.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

from cryptography.hazmat.primitives.asymmetric import ec

from receipts.bundle import Disclosures
from receipts.cosignature import Cosigner
from receipts.log import Documents, Draft, Issued, Keep, LogIdentity, LogKeys, TransparencyLog
from receipts.note import NoteSigner
from receipts.statements.fields import Link, ManifestRef, RequestRef
from receipts.tests.bodies import (
    acknowledgement,
    capability,
    digest,
    drafts,
    execution,
    placement,
    policy,
    usage,
)
from receipts.tests.machine import Node, chip, expected_toml, platform, vendor
from receipts.tests.names import (
    CLINIC,
    CLOUD,
    END,
    ENGINE,
    FEDERATION,
    MODEL,
    MODEL_NAME,
    NOW,
    OVERLAPPED,
    START,
    SWITCH,
    TAGS,
)
from receipts.verify import Report, verify_bundle
from receipts.verify.trust_file import TrustFile, parse
from schemas import envelope
from schemas.canonical import sha256
from schemas.descriptors.profile import DomainProfile, LegalEntity, ProfileEvidence
from schemas.keys import SigningKey, VerifyKey
from schemas.papers.charter import Charter, Endorsement, Member, sign_charter
from schemas.papers.manifest import (
    DomainManifest,
    LogKey,
    RevokedKey,
    RoleKey,
    Roots,
    WitnessKey,
    sign_manifest,
)

__all__ = [
    "CLINIC", "CLOUD", "END", "ENGINE", "FEDERATION", "MODEL", "MODEL_NAME", "NOW", "OVERLAPPED", "START",
    "SWITCH", "TAGS", "Domain", "Federation", "Node", "Run", "acknowledgement", "capability", "chip",
    "digest", "drafts", "execution", "expected_toml", "placement", "platform", "policy", "seeded_key",
    "usage", "vendor",
]  # fmt: skip


def seeded_key(seed: str) -> SigningKey:
    """The same key for the same seed. The first bit is cleared: below the order of P-256."""
    scalar = int.from_bytes(sha256(seed.encode())) >> 1
    private = ec.derive_private_key(scalar, ec.SECP256R1())
    return SigningKey(private, VerifyKey.of(private.public_key()))


def _roles(keys: LogKeys | None) -> list[tuple[str, SigningKey]]:
    return [("receipt", keys.receipt), ("promise", keys.promise)] if keys else []


@dataclass(frozen=True)
class Domain:
    """A domain's keys, its manifest, and the log that it runs."""

    name: str
    root: SigningKey
    keys: LogKeys
    platforms: tuple[str, ...] = ()
    revoked: tuple[RevokedKey, ...] = ()
    witness: Cosigner | None = None
    """Signs checkpoints of other domains' logs, where the domain runs a witness."""
    version: int = 1
    """Of the manifest."""
    documents: Documents = field(default_factory=Documents)
    coming: LogKeys | None = None
    """Keys that the same manifest registers from `SWITCH` on; the ones before end at `OVERLAPPED`."""
    advert: SigningKey | None = None
    """Signs what the domain offers, where a test needs that said."""

    @classmethod
    def make(cls, name: str, platforms: tuple[str, ...] = (), seed: str | None = None) -> Domain:
        """Fresh keys, or always the same ones for a seed."""
        seed = seed or digest()
        note = NoteSigner.of(f"{name}/log", sha256(f"{seed} note".encode()))
        keys = LogKeys(seeded_key(f"{seed} receipt"), seeded_key(f"{seed} promise"), note)
        return cls(name, seeded_key(f"{seed} root"), keys, platforms)

    @property
    def origin(self) -> str:
        return f"{self.name}/log"

    @property
    def roots(self) -> Roots:
        return Roots(threshold=1, keys=[self.root.public.jwk])

    @cached_property
    def manifest(self) -> DomainManifest:
        until = OVERLAPPED if self.coming else END
        roles = [(role, key, START, until) for role, key in _roles(self.keys)]
        roles += [(role, key, SWITCH, END) for role, key in _roles(self.coming)]
        roles += [("advert", self.advert, START, END)] if self.advert else []
        return DomainManifest(
            federation=FEDERATION,
            domain=self.name,
            version=self.version,
            expires=END,
            roots=self.roots,
            keys=[
                RoleKey.model_validate(
                    {"thumbprint": key.thumbprint, "jwk": key.public.jwk, "role": role,
                     "not_before": begin, "not_after": end}
                )
                for role, key, begin, end in roles
            ],
            logs=[
                LogKey(
                    origin=self.origin,
                    vkey=keys.note.key.vkey,
                    max_merge_delay_s=10,
                    beside=keys.beside.key.vkey if keys.beside else None,
                )
                for keys in (self.keys, self.coming)
                if keys
            ],
            platforms=list(self.platforms),
            revoked=list(self.revoked),
            witnesses=[WitnessKey(name=self.witness.key.name, vkey=self.witness.key.vkey)]
            if self.witness
            else [],
        )  # fmt: skip

    @cached_property
    def signed_manifest(self) -> bytes:
        return sign_manifest(self.manifest, self.root)

    @property
    def manifest_digest(self) -> str:
        return envelope.read(self.signed_manifest).digest.hex()

    @property
    def identity(self) -> LogIdentity:
        reference = ManifestRef(version=self.version, digest=self.manifest_digest)
        return LogIdentity(FEDERATION, self.name, self.origin, reference, self.documents)

    async def open(
        self, folder: Path, clock: Any = lambda: NOW, keys: LogKeys | None = None
    ) -> TransparencyLog:
        return await TransparencyLog.open(
            folder / f"{self.name}.db", identity=self.identity, keys=keys or self.keys, clock=clock
        )

    def watching(self) -> Domain:
        """The same domain with a witness."""
        seed = sha256(f"{self.name} witness".encode())
        return replace(self, witness=Cosigner.of(f"{self.name}/witness", seed))

    def member(self) -> Member:
        profile = DomainProfile(
            domain=self.name,
            operator=self.name,
            legal_entity=LegalEntity(name=self.name),
            jurisdictions=["DE"],
            exposed_to=[],
            evidence=ProfileEvidence(),
            valid_from=START,
            valid_until=END,
        )
        return Member(
            domain=self.name,
            roots=self.roots,
            manifest_digest=self.manifest_digest,
            endorsed=Endorsement(issuer="care-charter", profile=profile),
        )


@dataclass
class Federation:
    """Both domains, and the charter that makes them one federation."""

    clinic: Domain
    cloud: Domain
    others: tuple[Domain, ...] = ()
    policy_digest: str = "0" * 64
    """Of the rules that the charter names."""
    files: dict[str, bytes] = field(default_factory=dict)
    """What a trust file may name, beside the expectations."""

    @classmethod
    def found(cls) -> Federation:
        federation = cls(Domain.make(CLINIC), Domain.make(CLOUD, (platform(),)))
        federation.publish()
        return federation

    def publish(self) -> None:
        """Sign the charter over the manifests as they are, and give it to both logs."""
        documents = Documents(
            self.charter,
            {domain.name: domain.signed_manifest for domain in (self.clinic, self.cloud, *self.others)},
        )
        self.clinic = replace(self.clinic, documents=documents)
        self.cloud = replace(self.cloud, documents=documents)

    @cached_property
    def charter(self) -> bytes:
        charter = Charter(
            federation=FEDERATION,
            version=1,
            issued=START,
            expires=END,
            currency="EUR",
            threshold=2,
            members=[domain.member() for domain in (self.clinic, self.cloud, *self.others)],
            publishers=[],
            vendor_roots=[],
            simulated_roots=[],
            policy_digest=self.policy_digest,
        )
        return sign_charter(charter, self.clinic.root, self.cloud.root)

    @property
    def trust_toml(self) -> str:
        pin = envelope.read(self.charter).digest.hex()
        return (
            f'federation = "{FEDERATION}"\ncharter = "{pin}"\nquorum = "none"\n'
            'expectations = "expected.toml"\n'
        )

    def trust(self, **changes: str | None) -> TrustFile:
        """The auditor's trust file; `changes`: key → TOML value, None to leave it out."""
        lines = dict(line.split(" = ", 1) for line in self.trust_toml.splitlines())
        lines |= {key: value for key, value in changes.items() if value is not None}
        text = "".join(
            f"{key} = {value}\n" for key, value in lines.items() if changes.get(key, "") is not None
        )
        return parse(text.encode(), source="trust.toml", read=self._file)

    def _file(self, name: str) -> bytes:
        return self.files.get(name) or expected_toml().encode()

    @asynccontextmanager
    async def opened(self, folder: Path) -> AsyncIterator[tuple[TransparencyLog, TransparencyLog]]:
        """The logs of clinic.de and cloud.fr."""
        clinic, cloud = await self.clinic.open(folder), await self.cloud.open(folder)
        try:
            yield clinic, cloud
        finally:
            await clinic.close()
            await cloud.close()

    async def play(self, folder: Path, run: Run | None = None, more: More | None = None) -> bytes:
        """The consumer's bundle of one request; `more` acts on both open logs before it is made."""
        run = run or Run()
        async with self.opened(folder) as (clinic, cloud):
            data = await run.play(clinic, cloud)
            if more is None:
                return data
            await more(run, clinic, cloud)
            await clinic.checkpoint()
            return await clinic.bundle(run.request.id)

    def verify(self, bundle: bytes, at: datetime = NOW, **changes: str | None) -> Report:
        return verify_bundle(bundle, self.trust(**changes), at=at)


@dataclass
class Run:
    """One request from clinic.de on a node of cloud.fr, with what each side wrote."""

    node: Node = field(default_factory=Node)
    request: RequestRef = field(
        default_factory=lambda: RequestRef(id=secrets.token_hex(8), commitment=digest())
    )
    placement: dict[str, Any] = field(default_factory=dict)
    """Changes to the Placement."""
    execution: dict[str, Any] = field(default_factory=dict)
    statement: dict[str, Any] = field(default_factory=dict)
    links: list[Link] | None = None
    disclosures: Disclosures | None = None
    placed: Issued | None = None
    executed: Issued | None = None

    async def play(self, clinic: TransparencyLog, cloud: TransparencyLog) -> bytes:
        """Place, run, execute, deliver with proof; returns the consumer's bundle."""
        place = placement(request=self.request, nodes=[self.node.record()], **self.placement)
        disclosed = self.disclosures or self.node.disclosures()
        (self.placed,) = await clinic.issue([Draft(place, disclosed)])
        said = self.node.statement(**self.statement)
        links = self.links if self.links is not None else self._links(said)
        changes = {"links": links, "nodes": [self.node.record()], **self.execution}
        (self.executed,) = await cloud.issue([Draft(execution(request=self.request, **changes))])
        await cloud.checkpoint()
        proof = await cloud.proof(self.executed.receipt_id)
        assert proof is not None
        await clinic.keep(
            Keep(
                self.request.id,
                envelopes=[said, self.executed.envelope, self.executed.promise],
                proofs={self.executed.digest: proof},
                evidence=[self.node.evidence],
            )
        )
        await clinic.checkpoint()
        return await clinic.bundle(self.request.id)

    @property
    def both(self) -> list[Link]:
        """What an Acknowledgement names."""
        assert self.placed is not None
        assert self.executed is not None
        return [
            Link(rel="placement", digest=self.placed.digest.hex()),
            Link(rel="execution", digest=self.executed.digest.hex()),
        ]

    def _links(self, said: bytes) -> list[Link]:
        assert self.placed is not None
        return [
            Link(rel="placement", digest=self.placed.digest.hex()),
            Link(rel="node", digest=envelope.read(said).digest.hex()),
        ]


More: TypeAlias = Callable[[Run, TransparencyLog, TransparencyLog], Awaitable[None]]
