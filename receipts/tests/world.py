"""A small made-up federation for tests: two domains, their papers and logs, and a simulated node."""

from __future__ import annotations

import importlib
import secrets
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec

from receipts.bundle import ChallengeDisclosure, Disclosures
from receipts.cosignature import Cosigner
from receipts.log import Documents, Draft, Issued, Keep, LogIdentity, LogKeys, TransparencyLog
from receipts.note import NoteSigner
from receipts.statements.fields import (
    Attestation,
    Capability,
    Commitment,
    Layer,
    Link,
    ManifestRef,
    NodeRecord,
    PolicyDecision,
    PolicyFile,
    RequestRef,
    Times,
    Usage,
    Verifier,
)
from receipts.statements.node import NodeStatement, sign_node_statement
from receipts.statements.receipt import (
    AcknowledgementDraft,
    Considered,
    ExecutionDraft,
    Executor,
    Inputs,
    Objective,
    PlacementDraft,
    Plan,
    Terms,
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
from schemas.primitives import format_time
from schemas.proof.binding import ChallengeTree
from schemas.proof.evidence import ChallengeProof, ModelFile, NodeConfiguration, NodeEvidence

FEDERATION: Final = "care"
CLINIC: Final = "clinic.de"
CLOUD: Final = "cloud.fr"
NOW: Final = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
START: Final = int((NOW - timedelta(days=1)).timestamp())
END: Final = int((NOW + timedelta(days=365)).timestamp())
SWITCH: Final = int((NOW + timedelta(hours=1)).timestamp())
OVERLAPPED: Final = SWITCH + 3600
ENGINE: Final = "ab" * 32
MODEL: Final = "cd" * 32
MODEL_NAME: Final = "chat.small/smollm2"
TAGS: Final = "5" * 64  # digest of the policy tags: the same on both sides of a request
CHALLENGE: Final = bytes([7]) * 32


def digest() -> str:
    """Some digest, different each time."""
    return secrets.token_hex(32)


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


@lru_cache
def vendor() -> Any:
    """One simulated vendor for the whole run: its two RSA keys take a second."""
    return importlib.import_module("attestation.testing.chip").SimulatedVendor.create(
        "Milan", at=NOW - timedelta(days=1)
    )


@lru_cache
def chip() -> Any:
    return vendor().make_chip()


def platform() -> str:
    from attestation.appraise import platform_digest

    return platform_digest(chip().chip_id).hex()


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

    def verify(self, bundle: bytes, at: datetime = NOW, **changes: str | None) -> Report:
        return verify_bundle(bundle, self.trust(**changes), at=at)


def expected_toml() -> str:
    """What the auditor demands of nodes: the simulated root must be listed."""
    expectations = importlib.import_module("attestation.testing.expectations")
    text: str = expectations.simulated_toml(
        vendor().root_toml(), engine_digests=[ENGINE], models={MODEL_NAME: [MODEL]}
    )
    return text


@dataclass
class Node:
    """A simulated node of cloud.fr, challenged by clinic.de."""

    key: SigningKey = field(default_factory=SigningKey.generate)
    domain: str = CLOUD
    challenge: bytes = CHALLENGE

    @cached_property
    def stated(self) -> NodeEvidence:
        tree = ChallengeTree.over({CLINIC: self.challenge, CLOUD: bytes(32)})
        unquoted = NodeEvidence(
            federation=FEDERATION,
            domain=self.domain,
            node_id="node-1",
            boot_id="boot-1",
            key_epoch=1,
            sign_spki=self.key.public.spki,
            seal_key=bytes(1216),
            challenge_root=tree.root.hex(),
            challenges=[
                ChallengeProof(
                    domain=name, index=path.index, size=path.size, path=[part.hex() for part in path.path]
                )
                for name, path in tree.paths.items()
            ],
            configuration=NodeConfiguration(
                engine="in-tee",
                engine_kind="llama.cpp",
                engine_digest=ENGINE,
                engine_flags=[],
                engine_address="127.0.0.1:8080",
                models=[ModelFile(capability=MODEL_NAME, digest=MODEL)],
                prompt_logging=False,
            ),
            cpu=chip().quote(bytes(64)),
        )
        return unquoted.model_copy(update={"cpu": chip().quote(unquoted.expected_report_data())})

    @cached_property
    def evidence(self) -> bytes:
        return self.stated.write()

    def record(self, **changes: Any) -> NodeRecord:
        """The node with an appraisal of it, as a broker writes it."""
        values: dict[str, Any] = {
            "evidence_digest": sha256(self.evidence).hex(),
            "expectations_digest": "0" * 64,
            "policy_id": "standard",
            "challenge_root": self.stated.challenge_root,
            "iat": int(NOW.timestamp()) - 40,
            "status": "affirming",
            "binding_mode": "cpu-only",
            "simulated": True,
            "bound_key": self.key.thumbprint,
        }
        return NodeRecord(
            id=self.key.thumbprint, role="inference", attestation=Attestation(**(values | changes))
        )

    def statement(self, **changes: Any) -> bytes:
        values: dict[str, Any] = {
            "header": "1" * 64,
            "federation": FEDERATION,
            "domain": self.domain,
            "node_key": self.key.thumbprint,
            "segment": 0,
            "outcome": "ok",
            "code": "ok",
            "finish_reason": "stop",
            "capability": capability(),
            "usage": usage(),
            "response": Commitment(commitment="2" * 64),
            "times": Times(issued=format_time(NOW)),
        }
        return sign_node_statement(NodeStatement(**(values | changes)), self.key)

    def disclosures(self, issued_at: datetime = NOW - timedelta(seconds=40)) -> Disclosures:
        challenge = ChallengeDisclosure(
            domain=CLINIC, value=self.challenge.hex(), issued_at=format_time(issued_at)
        )
        return Disclosures(challenges=[challenge])


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


def capability() -> Capability:
    return Capability(name=MODEL_NAME, artifact_digest=MODEL)


def policy(**changes: Any) -> PolicyDecision:
    values: dict[str, Any] = {
        "verifier": Verifier(id="urn:cedar:4.12"),
        "policies": [PolicyFile(name="charter", sha256=digest())],
        "time_created": format_time(NOW),
        "verdict": "allow",
        "layers": [Layer(layer="charter", digest=digest(), verdict="allow", rules=["FED-001-member"])],
        "input_commitment": TAGS,
    }
    return PolicyDecision(**(values | changes))


def placement(peer: str = CLOUD, **changes: Any) -> PlacementDraft:
    """A Placement with every block filled."""
    zero = "0.0"
    nodes: list[NodeRecord] = changes.get("nodes", [])
    values: dict[str, Any] = {
        "audience": [CLINIC, CLOUD],
        "peer": peer,
        "request": RequestRef(id=secrets.token_hex(8), commitment=digest()),
        "times": Times(received=format_time(NOW), issued=format_time(NOW)),
        "plan": Plan(digest=digest(), id="p1", domain=peer, nodes=[node.id for node in nodes]),
        "path": "full",
        "considered": Considered(root=digest(), count=3, selected_index=1),
        "objective": Objective(
            name="J",
            version="1",
            digest=digest(),
            score="412.5",
            terms=Terms(net="3.2", queue=zero, exec="405.0", state=zero, load="4.3", policy=zero),
        ),
        "capability": Capability(name="chat.small"),
        "policy": policy(),
        "inputs": Inputs(registry=digest()),
        "executor": Executor(domain=peer, key="A" * 43),
    }
    return PlacementDraft(**(values | changes))


def execution(peer: str = CLINIC, **changes: Any) -> ExecutionDraft:
    """An Execution with every block that a run fills."""
    values: dict[str, Any] = {
        "audience": [CLINIC, CLOUD],
        "peer": peer,
        "request": RequestRef(id=secrets.token_hex(8), commitment=digest()),
        "times": Times(started=format_time(NOW), finished=format_time(NOW), issued=format_time(NOW)),
        "outcome": "ok",
        "code": "ok",
        "response": Commitment(commitment="2" * 64),
        "capability": capability(),
        "nodes": [],
        "usage": usage(),
        "policy": policy(),
    }
    return ExecutionDraft(**(values | changes))


def acknowledgement(peer: str = CLOUD, **changes: Any) -> AcknowledgementDraft:
    values: dict[str, Any] = {
        "audience": [CLINIC, CLOUD],
        "peer": peer,
        "request": RequestRef(id=secrets.token_hex(8), commitment=digest()),
        "times": Times(issued=format_time(NOW)),
        "response": Commitment(commitment="2" * 64),
        "status": "agreed",
        "usage_agreed": usage(),
    }
    return AcknowledgementDraft(**(values | changes))


def usage(**changes: int) -> Usage:
    values = {"input_tokens": 12, "output_tokens": 34, "cached_tokens": 0, "queue_ms": 0, "compute_ms": 405}
    return Usage(**(values | changes))


def drafts(count: int, peer: str = CLOUD) -> list[Draft]:
    return [Draft(placement(peer)) for _ in range(count)]
