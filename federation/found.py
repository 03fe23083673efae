"""Founding a federation: keys, charter, bus and settings for every domain, in one folder each.

    <folder>/bus/                 the embedded server's files (its operator's)
    <folder>/publisher/           the image publisher's key
    <folder>/<domain>/keys/       secrets of this domain alone, mode 0600
    <folder>/<domain>/shared/     what every member holds: charter, manifests, reference values, policies
    <folder>/<domain>/*.toml      settings of broker, agent and nodes, and of an auditor

Each domain's folder is whole: it can be carried to the domain's own machine. A crash while founding
leaves a folder that a second founding refuses: remove it and found again.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from random import SystemRandom
from typing import Final

from federation.embedded.folder import BusFolder, found_bus
from federation.founding import settings
from federation.founding.keys import DomainKeys
from federation.founding.papers import Papers, draw_up
from federation.founding.plan import ANY, DomainPlan, Plan
from schemas.errors import ConfigurationError
from schemas.keys import SigningKey
from schemas.policy.packs import load_file, load_pack, pack_names
from schemas.policy.policy_set import PolicySet

PORTS: Final = range(20_000, 32_768)
"""Where a free port is looked for: below those that systems give to outgoing connections (Linux: 32768 on).
One of those could be taken before the bus starts, and whenever it starts again."""
PORT_TRIES: Final = 64  # ports tried before we say that none is free


@dataclass(frozen=True, slots=True)
class Founded:
    """What founding made, as one who starts the programs needs it."""

    folder: Path
    plan: Plan
    pin: bytes
    """The charter's digest, to be compared out of band."""
    bus: BusFolder
    bus_port: int
    api_keys: Mapping[tuple[str, str], str]
    """(domain, tenant) → API key."""

    def domain(self, name: str) -> Path:
        return self.folder / name


def found(plan: Plan, folder: Path, now: datetime) -> Founded:
    """Make everything anew in `folder`, which must not exist. Raises `ConfigurationError` or `Refused`."""
    # 1. Nothing is overwritten: a founding makes identities, and those must not change under a member.
    if folder.exists():
        raise ConfigurationError("found.folder", f"{folder} exists; choose another or remove it")

    # 2. The rules that the charter will name, through their gate before anybody signs.
    charter_rules = rules(plan.policy)
    for domain in plan.domains:
        for each in (domain.national, domain.provider, *(tenant.policy for tenant in domain.tenants)):
            if each != ANY:
                rules(each)

    # 3. Each domain's keys, and the publisher's.
    keys = {
        domain.name: DomainKeys.generate([tenant.name for tenant in domain.tenants], ml_dsa=domain.ml_dsa)
        for domain in plan.domains
    }
    publisher = SigningKey.generate()

    # 4. Manifests, charter and reference values, signed.
    papers = draw_up(plan, keys, publisher, charter_rules.digest, now)

    # 5. The bus: an account per domain, a login per program.
    port = plan.bus_port or free_port()
    folder.mkdir(parents=True, mode=0o700)
    nodes = {domain.name: [node.id for node in domain.nodes] for domain in plan.domains}
    bus, _ = found_bus(folder / "bus", nodes, now, port=port, valid_days=plan.valid_days)

    # 6. Each domain's own folder: secrets of its own, and the same public papers for all.
    signers = {name: held.roles["attestation-verifier"].public for name, held in keys.items()}
    expected = settings.expectations(plan, signers)
    for domain in plan.domains:
        own = folder / domain.name
        _write_domain(own, plan, domain, keys[domain.name], papers, bus, port)
        (own / "expectations.toml").write_text(expected, "utf-8")
    (folder / "publisher").mkdir(mode=0o700)
    publisher.save(folder / "publisher" / f"{plan.publisher}.pem")

    api = {(name, tenant): text for name, held in keys.items() for tenant, text in held.api.items()}
    return Founded(folder, plan, papers.pin, bus, port, api)


def rules(name: str) -> PolicySet:
    """A pack by name, or a Cedar file by path; either has passed its gate. Raises `ConfigurationError`."""
    return load_pack(name) if name in pack_names() else load_file(Path(name))


def rules_text(name: str) -> str:
    """The Cedar text behind `rules`."""
    if name in pack_names():
        from importlib import resources

        return (resources.files("schemas.policy") / "packs" / f"{name}.cedar").read_text("utf-8")
    return Path(name).read_text("utf-8")


def free_port() -> int:
    """A loopback port that is free now, and that no outgoing connection is given before the bus has it.

    Raises `ConfigurationError` (`bus.no_port`) when none of those tried is free.
    """
    for port in SystemRandom().sample(PORTS, min(PORT_TRIES, len(PORTS))):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise ConfigurationError("bus.no_port", f"no free port in {PORTS.start}-{PORTS.stop - 1}: set bus_port")


def _write_domain(
    folder: Path, plan: Plan, domain: DomainPlan, keys: DomainKeys, papers: Papers, bus: BusFolder, port: int
) -> None:
    pin, url = papers.pin.hex(), f"tls://127.0.0.1:{port}"
    folder.mkdir(mode=0o700)
    keys.save(folder / "keys")
    for user in ("broker", "agent", *(f"node.{node.id}" for node in domain.nodes)):
        bus.seed_file(domain.name, user).rename(folder / "keys" / f"{user}.nk")
    _write_shared(folder / "shared", plan, papers, bus)
    _write_policies(folder / "policies", domain)
    (folder / "state").mkdir()
    files = {
        "broker.toml": settings.broker(domain, keys, pin=pin, bus_url=url),
        "agent.toml": settings.agent(domain, pin=pin, bus_url=url),
        "trust.toml": settings.trust(plan, pin),
    }
    for node in domain.nodes:
        files[f"node-{node.id}.toml"] = settings.node(domain, node, pin=pin, bus_url=url)
    for name, text in files.items():
        (folder / name).write_text(text, "utf-8")


def _write_shared(folder: Path, plan: Plan, papers: Papers, bus: BusFolder) -> None:
    for part in ("manifests", "reference-values", "policies"):
        (folder / part).mkdir(parents=True)
    (folder / "charter.json").write_bytes(papers.charter)
    (folder / "pin").write_text(papers.pin.hex() + "\n", "ascii")
    for name, data in papers.manifests.items():
        (folder / "manifests" / f"{name}.json").write_bytes(data)
    (folder / "reference-values" / f"{plan.publisher}-1.json").write_bytes(papers.reference_values)
    (folder / "policies" / "charter.cedar").write_text(rules_text(plan.policy), "utf-8")
    (folder / "bus-ca.pem").write_bytes(bus.ca_file.read_bytes())


def _write_policies(folder: Path, domain: DomainPlan) -> None:
    folder.mkdir()
    named = {"national": domain.national, "provider": domain.provider}
    named |= {f"tenant-{tenant.name}": tenant.policy for tenant in domain.tenants}
    for name, source in named.items():
        if source != ANY:
            (folder / f"{name}.cedar").write_text(rules_text(source), "utf-8")
