"""From a configuration to the parts of a broker, each made once and handed to whoever needs it."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from attestation.expected import Expectations
from attestation.narrow import check_roots
from broker.answering import Answering
from broker.config import ANY, BrokerConfig
from broker.directory import Directory
from broker.dispatch import Dispatcher
from broker.observe.metrics import Metrics
from broker.peers import Peers, new_negotiation
from broker.placing.agreement import Placing, Terms
from broker.placing.appraisals import Appraisals, ChallengeBook
from broker.placing.decide import ConsumerPolicy, ProviderPolicy, Rulebook
from broker.placing.placements import Placements
from broker.providing.border import Border
from broker.providing.executions import Executions
from broker.providing.interior import Interior
from broker.providing.pricing import PriceBook
from broker.select.cost import Weights
from broker.select.predict import Predictor
from broker.service import Service
from broker.shelf import Shelf
from broker.witnesses import circle, open_witness
from federation.client.login import overridden
from federation.connection import Bus, BusSettings
from receipts.cosignature import Cosigner
from receipts.log import Documents, LogIdentity, LogKeys, TransparencyLog
from receipts.note import NoteSigner
from receipts.statements.fields import ManifestRef
from receipts.witnessing.asking import Circle
from receipts.witnessing.state import WitnessState
from schemas import envelope
from schemas.descriptors.summary import CapabilitySummary
from schemas.errors import ConfigurationError, Refused, Unreadable
from schemas.keys import SigningKey, read_secret
from schemas.messages.negotiation import FetchEvidence
from schemas.policy.packs import load_file, load_pack
from schemas.policy.policy_set import PolicySet
from schemas.trust import FederationTrust

EVIDENCE_S = 5.0  # seconds for a peer to send an evidence document
DEFAULT_TENANT_RULES = "default"


@dataclass(slots=True)
class Parts:
    """A broker, assembled and not yet serving."""

    bus: Bus
    log: TransparencyLog
    service: Service
    border: Border
    executions: Executions
    shelf: Shelf
    dispatcher: Dispatcher
    answering: Answering
    circle: Circle
    """The other members' witnesses of our log."""


@dataclass(frozen=True, slots=True)
class TrustFiles:
    """The federation's public documents as they were read."""

    charter: bytes
    manifests: list[bytes]
    reference_values: list[bytes]
    trust: FederationTrust

    def documents(self) -> Documents:
        """What goes into every bundle."""
        by_digest = {envelope.read(data).digest: data for data in self.manifests}
        return Documents(
            charter=self.charter,
            manifests={
                domain: by_digest[digest]
                for domain, digest in self.trust.manifest_digests.items()
                if digest in by_digest
            },
            reference_values=self.reference_values,
        )


def read_trust(config: BrokerConfig) -> TrustFiles:
    """Read and verify charter, manifests and reference values. Raises `ConfigurationError`."""
    files = config.federation
    charter = files.charter.read_bytes()
    manifests, values = _files(files.manifests), _files(files.reference_values)
    try:
        trust = FederationTrust.load(
            charter, pin=bytes.fromhex(files.pin), manifests=manifests, reference_values=values
        )
        trust.manifest(config.domain)
    except (Refused, Unreadable) as error:
        raise ConfigurationError("config.trust", f"[federation] does not hold: {error}") from None
    return TrustFiles(charter, manifests, values, trust)


def read_rules(config: BrokerConfig, trust: FederationTrust) -> Rulebook:
    """Load every owner's policies through the gate. Raises `ConfigurationError`."""
    policies = config.policies
    charter = load_file(policies.charter)
    if charter.digest != trust.charter.policy_digest:
        raise ConfigurationError(
            "config.policies.charter", f"{policies.charter}: not the policies whose digest the charter names"
        )
    return Rulebook(
        charter=charter,
        national=() if policies.national == ANY else (load_file(Path(policies.national)),),
        tenants={
            DEFAULT_TENANT_RULES: load_pack("tenant-default"),
            **{name: load_file(path) for name, path in policies.tenant.items()},
        },
        provider=_provider(policies.provider),
    )


def _provider(path: Path | str) -> PolicySet:
    return load_pack("provider-default") if path == ANY else load_file(Path(path))


def read_expectations(config: BrokerConfig, trust: FederationTrust) -> Expectations:
    """Our own expectations of nodes; they may narrow the charter, never widen it."""
    expectations = Expectations.load(config.federation.expectations)
    check_roots(expectations, trust)
    return expectations


async def open_log(config: BrokerConfig, files: TrustFiles, rules: Rulebook) -> TransparencyLog:
    """Become the holder of this domain's log. Raises `ConfigurationError` or `Refused`."""
    manifest = files.trust.manifest(config.domain)
    if not manifest.logs:
        raise ConfigurationError("config.log", f"the manifest of {config.domain} registers no log")
    origin = manifest.logs[0].origin
    return await TransparencyLog.open(
        config.database,
        identity=LogIdentity(
            federation=files.trust.federation,
            domain=config.domain,
            origin=origin,
            manifest=ManifestRef(
                version=manifest.version, digest=files.trust.manifest_digests[config.domain].hex()
            ),
            documents=replace(files.documents(), policies=rules.texts()),
        ),
        keys=LogKeys(
            receipt=SigningKey.load(config.keys.receipt),
            promise=SigningKey.load(config.keys.promise),
            note=_note_signer(origin, config.keys.log),
        ),
    )


def _note_signer(origin: str, path: Path) -> NoteSigner:
    return NoteSigner.of(origin, _ed25519_seed("log", path))


def _open_witness(config: BrokerConfig, trust: FederationTrust) -> WitnessState | None:
    """Our witness, under the name that our manifest gives it; None where no key is configured."""
    registered = trust.manifest(config.domain).witnesses
    if config.keys.witness is None or not registered:
        return None
    name, seed = registered[0].name, _ed25519_seed("witness", config.keys.witness)
    if Cosigner.of(name, seed).key.vkey != registered[0].vkey:
        raise ConfigurationError("config.keys.witness", f"{config.domain} has not registered this key")
    path = config.database.with_name(f"{config.database.stem}-witness.db")
    return open_witness(path, name, seed, trust, config.domain)


def _ed25519_seed(role: str, path: Path) -> bytes:
    """An Ed25519 key, from the same PKCS#8 PEM as every other key."""
    try:
        private = load_pem_private_key(read_secret(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        private = None
    if not isinstance(private, Ed25519PrivateKey):
        raise ConfigurationError(f"config.keys.{role}", f"{path}: an Ed25519 key in PKCS#8 PEM is required")
    return private.private_bytes_raw()


async def assemble(config: BrokerConfig, metrics: Metrics) -> Parts:
    """Everything that a broker is made of. Raises `ComityError`; nothing is left open then."""
    files = read_trust(config)
    trust = files.trust
    rules, expectations = read_rules(config, trust), read_expectations(config, trust)
    message_key = SigningKey.load(config.keys.message)
    _check_registered(trust, config.domain, message_key)
    bus = await Bus.connect(_bus_settings(config))
    try:
        log = await open_log(config, files, rules)
    except BaseException:
        await bus.close()
        raise
    return _join(config, trust, rules, expectations, message_key, bus, log, metrics)


def _join(
    config: BrokerConfig,
    trust: FederationTrust,
    rules: Rulebook,
    expectations: Expectations,
    message_key: SigningKey,
    bus: Bus,
    log: TransparencyLog,
    metrics: Metrics,
) -> Parts:
    async def local(sender: str, op: str, payload: bytes) -> bytes:
        return await service.handle(sender, op, payload)

    async def fetch(domain: str, digest: str) -> bytes:
        if domain == config.domain:
            return await interior.evidence(digest)
        asked = peers.compose(FetchEvidence, domain, nid=new_negotiation(), evidence=digest)
        return await peers.ask(domain, "evidence", peers.sign(asked), within=EVIDENCE_S)

    peers = Peers(bus, trust, config.domain, message_key, local)
    interior, directory = Interior(bus), Directory(trust)
    challenges = ChallengeBook(config.domain)
    appraisals = Appraisals(trust, expectations, challenges, fetch)
    executions = Executions(config.domain, trust.charter.currency, log)
    own_profile = directory.profile(config.domain)

    def own_summary() -> CapabilitySummary | None:
        listing = directory.get(config.domain, datetime.now(UTC))
        return listing.summary if listing else None

    border = Border(
        peers,
        interior,
        appraisals,
        ProviderPolicy.of(trust.charter, own_profile, rules),
        PriceBook(own_summary),
        executions,
        metrics,
    )
    predictor = Predictor()
    witness = _open_witness(config, trust)
    service = Service(bus, peers, interior, directory, appraisals, border, executions, predictor, witness)
    shelf = Shelf(peers, log)
    placing = Placing(
        peers=peers,
        directory=directory,
        appraisals=appraisals,
        policy=ConsumerPolicy(config.domain, trust.charter, rules),
        placements=Placements(config.domain, trust, challenges, log),
        weights={name: _weights(settings) for name, settings in config.weights.items()},
        terms=Terms(config.negotiation.finalists, config.negotiation.hold_ms, config.limits.request_ms),
        predictor=predictor,
        metrics=metrics,
    )
    answering = Answering(peers, border, appraisals, shelf)

    def not_ready() -> str | None:
        if not bus.connected:
            return "the bus is out of reach"
        return None if service.advert else "our own agent has not advertised yet"

    dispatcher = Dispatcher(placing, answering, shelf, config.negotiation.continuations, not_ready)
    watched = circle(trust.manifest(config.domain).logs[0].origin, peers)
    return Parts(bus, log, service, border, executions, shelf, dispatcher, answering, watched)


def _bus_settings(config: BrokerConfig) -> BusSettings:
    settings = BusSettings(
        url=config.bus.url,
        nkey_seed_file=config.bus.seed,
        ca_file=None if config.bus.ca == ANY else Path(config.bus.ca),
        name=f"{config.domain}/broker",
        inbox_prefix="_INBOX.broker",
    )
    return overridden(settings, os.environ)


def _check_registered(trust: FederationTrust, domain: str, key: SigningKey) -> None:
    registered = {known.thumbprint for known in trust.keys(domain, "message", datetime.now(UTC))}
    if key.thumbprint not in registered:
        raise ConfigurationError("config.keys.message", f"{domain} has not registered this message key")


def _weights(settings: object) -> Weights:
    names = ("network", "queue", "execution", "state", "load", "policy", "money")
    return Weights(**{name: Decimal(str(getattr(settings, name))) for name in names})


def _files(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()]
