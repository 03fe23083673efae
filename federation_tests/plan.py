"""The federation that most tests live in: `examples/plan.toml`, with scripted engines in the nodes.

Three domains, made-up chips under one made-up vendor root (listed by name in the charter), and two
small files that stand for an engine's binary and a model: the node hashes them as it would real ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Final

from attestation.testing.accelerator import SimulatedAccelerators
from attestation.testing.chip import SimulatedVendor
from attestation.testing.forge import GPU_MEASUREMENT, MEASUREMENT
from examples.simulated import PLAN, Makers, simulated_image
from federation.found import Founded, found
from federation.founding.plan import DomainPlan, NodePlan, Plan, read_plan
from schemas.canonical import sha256

CLINIC: Final = "clinic.de"
CLOUD: Final = "cloud.fr"
HYPER: Final = "hyper.us"
MODEL: Final = b"the weights of a scripted model"
ENGINE: Final = b"the binary of a scripted engine"
CONTEXT: Final = 4_000_000  # tokens that a scripted engine reads: the longest body fits
CHAT: Final = "chat.small"
CODE: Final = "code.small"


@dataclass(frozen=True, slots=True)
class Changes:
    """What a test's federation has otherwise than the usual one."""

    domains: tuple[str, ...] = (CLINIC, CLOUD, HYPER)
    nodes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Domain → ids of the planned nodes that it has; all of them where it is not named."""
    slots: int = 4
    k_min: int = 1
    """Nodes that a domain's adverts describe at least; below them they show class and place only."""
    enrolled_twice: Mapping[str, str] = field(default_factory=dict)
    """Domain → another domain, all of whose machines it enrols as well."""


@cache
def vendor() -> SimulatedVendor:
    """One made-up vendor for the whole run: two RSA-4096 keys take a second or two."""
    return SimulatedVendor.create("Milan", name="demo")


@cache
def makers() -> Makers:
    """The same with a maker of GPUs."""
    return Makers(vendor(), SimulatedAccelerators.create())


def found_scripted(folder: Path, now: datetime, changes: Changes) -> Founded:
    """Found the federation in `folder`; nodes still have to be told where their engines are."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.bin").write_bytes(MODEL)
    (folder / "engine.bin").write_bytes(ENGINE)
    plan = read_plan(PLAN)
    domains = [_domain(each, folder, changes) for each in plan.domains if each.name in changes.domains]
    return found(_complete(plan, _enrolled_twice(domains, changes)), folder / "federation", now)


def _complete(plan: Plan, domains: list[DomainPlan]) -> Plan:
    engines, provenance = [sha256(ENGINE).hex()], "made up for a test"
    images = [simulated_image(each, engines, provenance) for each in (MEASUREMENT, GPU_MEASUREMENT)]
    changed = {
        "simulated_roots": makers().roots,
        "images": images,
        "domains": domains,
        "threshold": min(2, len(domains)),
    }
    return plan.model_copy(update=changed)


def _domain(domain: DomainPlan, folder: Path, changes: Changes) -> DomainPlan:
    wanted = changes.nodes.get(domain.name, tuple(node.id for node in domain.nodes))
    nodes = [_node(node, folder, domain.name, changes) for node in domain.nodes if node.id in wanted]
    capabilities = [
        entry.model_copy(
            update={
                "digest": sha256(MODEL).hex(),
                "quality": entry.quality.model_copy(update={"context_limit": CONTEXT}),
            }
        )
        for entry in domain.capabilities
    ]
    return domain.model_copy(update={"nodes": nodes, "capabilities": capabilities, "k_min": changes.k_min})


def _node(node: NodePlan, folder: Path, domain: str, changes: Changes) -> NodePlan:
    equipped = makers().equip(node, folder / "machines" / domain / node.id)
    return equipped.model_copy(update={"model": str(folder / "model.bin"), "slots": changes.slots})


def _enrolled_twice(domains: list[DomainPlan], changes: Changes) -> list[DomainPlan]:
    """Let a domain's first node bring the platforms of another domain into its manifest too."""
    platforms = {each.name: [digest for node in each.nodes for digest in node.platforms] for each in domains}
    return [
        domain
        if domain.name not in changes.enrolled_twice
        else domain.model_copy(
            update={
                "nodes": [
                    domain.nodes[0].model_copy(
                        update={
                            "platforms": [
                                *domain.nodes[0].platforms,
                                *platforms[changes.enrolled_twice[domain.name]],
                            ]
                        }
                    ),
                    *domain.nodes[1:],
                ]
            }
        )
        for domain in domains
    ]
