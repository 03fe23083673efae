"""From a configuration to the parts of a broker, each made once and handed to whoever needs it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from attestation.expected import Expectations
from broker.answering import Answering
from broker.directory import Directory
from broker.dispatch import Dispatcher
from broker.observe.metrics import Metrics
from broker.peers import Peers, new_negotiation
from broker.placing.agreement import Placing, Terms
from broker.placing.appraisals import Appraisals, ChallengeBook
from broker.placing.collateral import PeerCollateral
from broker.placing.decide import ConsumerPolicy, ProviderPolicy, Rulebook
from broker.placing.placements import Placements
from broker.providing.acknowledgements import Acknowledgements
from broker.providing.border import Border
from broker.providing.executions import Executions
from broker.providing.interior import Interior
from broker.select.cost import Weights
from broker.select.predict import Predictor
from broker.service import Service
from broker.shelf import Shelf
from broker.starting.config import ANY, BrokerConfig
from broker.starting.ledger import open_log, own_witness
from broker.starting.papers import read_expectations, read_rules, read_trust
from broker.witnesses import circle
from federation.client.login import overridden
from federation.connection import Bus, BusSettings
from receipts.log import TransparencyLog
from receipts.witnessing.asking import Circle
from schemas.errors import ConfigurationError, Refused
from schemas.keys import SigningKey
from schemas.messages.negotiation import FetchEvidence
from schemas.papers.trust import FederationTrust

EVIDENCE_S = 5.0  # seconds for a peer to send an evidence document


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
class Made:
    """What the parts are joined from: read, checked and open."""

    config: BrokerConfig
    trust: FederationTrust
    rules: Rulebook
    expectations: Expectations
    message_key: SigningKey
    bus: Bus
    log: TransparencyLog
    metrics: Metrics


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
    return _join(Made(config, trust, rules, expectations, message_key, bus, log, metrics))


@asynccontextmanager
async def own_log(settings: Path) -> AsyncIterator[TransparencyLog]:
    """The log of a broker that does not run, for a command that writes to it.

    As at a start, the witnesses are asked first: a log that was set back must not sign again. Raises as
    `assemble` and `Circle.check_not_behind`.
    """
    parts = await assemble(BrokerConfig.load(settings), Metrics())
    try:
        await parts.circle.check_not_behind(parts.log)
        await parts.log.tell_of_erasures()
        yield parts.log
    finally:
        await parts.log.close()
        await parts.bus.close()


def _join(made: Made) -> Parts:
    """Both sides over one bus, one directory and one log; the service hears what comes in for either."""
    config, trust, bus = made.config, made.trust, made.bus

    async def local(sender: str, op: str, payload: bytes) -> bytes:
        return await service.handle(sender, op, payload)

    async def fetch(domain: str, digest: str) -> bytes:
        if domain == config.domain:
            return await interior.evidence(digest)
        asked = peers.compose(FetchEvidence, domain, nid=new_negotiation(), evidence=digest)
        return await peers.ask(domain, "evidence", peers.sign(asked), within=EVIDENCE_S)

    def not_ready() -> str | None:
        if not bus.connected:
            return "the bus is out of reach"
        return None if service.advert else "our own agent has not advertised yet"

    peers = Peers(bus, trust, config.domain, made.message_key, local)
    interior, directory, predictor = Interior(bus), Directory(trust), Predictor()
    made.metrics.publish_errors(predictor.errors)
    collateral = PeerCollateral(trust, fetch, directory.collateral)
    appraisals = Appraisals(trust, made.expectations, ChallengeBook(config.domain), fetch, collateral)
    executions = Executions(config.domain, trust.charter.currency, made.log, config.execution_retention)
    policy = ProviderPolicy.of(trust.charter, directory.profile(config.domain), made.rules)
    border = Border(peers, interior, appraisals, policy, executions, made.metrics)
    witness = own_witness(config, trust)
    run_s = config.limits.request_ms / 1000
    service = Service(
        bus,
        peers,
        interior,
        directory,
        appraisals,
        border,
        executions,
        Acknowledgements(peers, made.log, made.metrics),
        predictor,
        run_s,
        witness,
    )
    shelf = Shelf(peers, made.log, witness)
    placing = _placing(made, peers, directory, appraisals, predictor)
    answering = Answering(peers, border, appraisals, shelf, predictor)
    dispatcher = Dispatcher(placing, answering, shelf, config.negotiation.continuations, not_ready)
    watched = circle(trust.manifest(config.domain).logs[0].origin, peers)
    return Parts(bus, made.log, service, border, executions, shelf, dispatcher, answering, watched)


def _placing(
    made: Made, peers: Peers, directory: Directory, appraisals: Appraisals, predictor: Predictor
) -> Placing:
    """The consumer's side."""
    config, charter = made.config, made.trust.charter
    return Placing(
        peers=peers,
        directory=directory,
        appraisals=appraisals,
        policy=ConsumerPolicy(config.domain, charter, made.rules),
        placements=Placements(config.domain, made.trust, appraisals.challenges, made.log),
        weights={name: _weights(settings) for name, settings in config.weights.items()},
        terms=Terms(
            finalists=config.negotiation.finalists,
            hold_ms=config.negotiation.hold_ms,
            call_ms=config.negotiation.call_ms,
            run_ms=config.limits.request_ms,
        ),
        predictor=predictor,
        metrics=made.metrics,
    )


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
    try:
        registered = {known.thumbprint for known in trust.keys(domain, "message", datetime.now(UTC))}
    except Refused as error:  # a clock that is wrong, as often as papers that are old
        raise ConfigurationError("config.trust", f"[federation] does not hold now: {error.text}") from None
    if key.thumbprint not in registered:
        raise ConfigurationError("config.keys.message", f"{domain} has not registered this message key")


def _weights(settings: object) -> Weights:
    names = ("network", "queue", "execution", "state", "load", "policy", "money")
    return Weights(**{name: Decimal(str(getattr(settings, name))) for name in names})
