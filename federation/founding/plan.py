"""The plan of a federation: one small TOML file from which everything else is made.

`examples/plan.toml` shows every key. Paths are relative to the file. Nothing secret stands in it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from schemas.canonical import Wire, write_json
from schemas.descriptors.capability import CapabilityDescriptor
from schemas.descriptors.profile import CertificationScheme, EvidenceClass, Place, Regime
from schemas.descriptors.tags import TagFloor
from schemas.envelope import MAX_SIGNATURES
from schemas.errors import ConfigurationError, Unreadable
from schemas.papers.charter import SimulatedRoot, Vendor
from schemas.primitives import Count, Digest, DomainName, Label, Token
from schemas.toml import load_toml

MAX_PLAN_BYTES: Final = 1024 * 1024
MAX_DOMAINS: Final = 200  # what one embedded bus serves (federation/accounts.py)
ANY: Final = "any"
NVML: Final = "nvml"
NVIDIA: Final = "nvidia-"
"""How the product of a simulated root begins that is a maker of GPUs: `nvidia-device`, `nvidia-manifest`."""
CARRIED: Final = frozenset({"v", "name", "variant", "version", "digest", "task", "quality", "rates"})
"""What agents read of a capability and hold to. A limit that nobody would keep is refused."""

Text = Annotated[str, Field(min_length=1, max_length=256)]
PathText = Annotated[str, Field(min_length=1, max_length=4096)]
Measurement = Annotated[str, Field(pattern=r"^[0-9a-f]{96}$")]


class NodePlan(Wire):
    """One machine that serves one capability with a llama.cpp engine of its own."""

    id: Token
    capability: Label
    """`class/variant`, one of the domain's capabilities."""
    model: PathText
    """The model file."""
    platforms: Annotated[list[Digest], Field(max_length=64)] = Field(default_factory=list)
    """Digests of the machine's CHIP_ID and other platform identities, to be enrolled."""
    chip: PathText | None = None
    """Folder of a simulated chip; without it, evidence comes from the machine's own TEE."""
    gpus: PathText | None = None
    """Folder of simulated GPUs, or "nvml" for those of the machine; without it, the node has none."""
    slots: Annotated[int, Field(ge=1, le=1024)] = 2
    context: Annotated[int, Field(ge=256, le=2**24)] = 4096
    """Tokens, all slots together."""


class TenantPlan(Wire):
    """One party that may send requests. Its API key is made at founding."""

    name: Label
    floor: TagFloor | Literal["any"]
    policy: PathText
    """A policy pack's name, a Cedar file, or "any" for none."""


class DomainPlan(Wire):
    """One member: what the charter will endorse about it, and what it brings."""

    name: DomainName
    operator: Text
    jurisdictions: Annotated[list[Place], Field(min_length=1, max_length=64)]
    exposed_to: Annotated[list[Regime], Field(max_length=64)]
    evidence: EvidenceClass
    """How well jurisdictions, exposure and ownership are evidenced: 0 self-declared … 3 measured."""
    credential: Text
    """Where that evidence is: a register entry, a contract, a certificate's number."""
    certifications: Annotated[list[CertificationScheme], Field(max_length=64)] = Field(default_factory=list)
    key_control: Literal["customer", "domain", "third-party", "unknown"] = "domain"
    retention_s: Count
    """Seconds that request data may be kept."""
    carbon_g_kwh: Annotated[int, Field(ge=0, le=5000)] | None = None
    national: PathText
    """A policy pack's name, a Cedar file, or "any"."""
    provider: PathText
    """As `national`: what this domain accepts to run."""
    k_min: Annotated[int, Field(ge=1, le=1000)] = 5
    """Smallest group of nodes that a summary describes."""
    queue_per_slot: Annotated[int, Field(ge=0, le=1024)] = 4
    """Requests that may wait for each slot of a node."""
    money_weight: Annotated[int, Field(ge=0, le=1_000_000)] = 1
    """How much ranking weighs price: thousandths of a millisecond for each micro-unit."""
    capabilities: Annotated[list[CapabilityDescriptor], Field(max_length=64)]
    nodes: Annotated[list[NodePlan], Field(max_length=1000)]
    tenants: Annotated[list[TenantPlan], Field(max_length=1000)] = Field(default_factory=list)
    ml_dsa: bool = False
    """Whether its log's checkpoints are signed with ML-DSA-44 as well."""

    @model_validator(mode="after")
    def _all_that_is_stated_is_kept(self) -> Self:
        for capability in self.capabilities:
            if surplus := ", ".join(sorted(capability.model_fields_set - CARRIED)):
                raise ValueError(f"{capability.label}: nothing keeps {surplus} yet; leave it out")
            if capability.task != "chat" or capability.quality.evals:
                raise ValueError(f"{capability.label}: agents serve chat alone, and tell no evals")
        return self

    @model_validator(mode="after")
    def _nodes_serve_what_is_listed(self) -> Self:
        known = {capability.label for capability in self.capabilities}
        for node in self.nodes:
            if node.capability not in known:
                raise ValueError(f"node {node.id} serves {node.capability}, which is no capability here")
        if len({node.id for node in self.nodes}) != len(self.nodes):
            raise ValueError("two nodes have the same id")
        return self


class ImagePlan(Wire):
    """One image that the federation's publisher stands behind."""

    measurement: Measurement
    image_digest: Digest
    engine_digests: Annotated[list[Digest], Field(min_length=1, max_length=64)]
    provenance: Text
    gpus: Annotated[int, Field(ge=0, le=64)] = 0
    """How many GPUs a node that runs this image must prove."""


class Plan(Wire):
    """The whole file."""

    federation: Label
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
    threshold: Annotated[int, Field(ge=1, le=MAX_SIGNATURES)]
    """How many members must sign the charter."""
    valid_days: Annotated[int, Field(ge=1, le=3650)]
    policy: PathText
    """The charter's policy pack or Cedar file."""
    publisher: Label
    """Who publishes the images below; its key is made at founding."""
    bus_port: Annotated[int, Field(ge=0, le=65535)] = 0
    """Loopback port of the embedded bus; 0 takes one that is free now."""
    vendor_roots: Annotated[list[Vendor], Field(max_length=8)]
    simulated_roots: Annotated[list[SimulatedRoot], Field(max_length=8)] = Field(default_factory=list)
    images: Annotated[list[ImagePlan], Field(min_length=1, max_length=64)]
    domains: Annotated[list[DomainPlan], Field(min_length=1, max_length=MAX_DOMAINS)]

    @model_validator(mode="after")
    def _members_agree(self) -> Self:
        if len({domain.name for domain in self.domains}) != len(self.domains):
            raise ValueError("a domain is planned twice")
        if self.threshold > len(self.domains):
            raise ValueError("threshold exceeds the number of domains")
        return self

    @model_validator(mode="after")
    def _genuine_gpus_can_be_proved(self) -> Self:
        genuine = any(node.gpus == NVML for domain in self.domains for node in domain.nodes)
        if genuine and "nvidia" not in self.vendor_roots:
            raise ValueError(
                'a node has GPUs of its machine ("nvml"), and vendor_roots does not name "nvidia"'
            )
        return self

    @property
    def model_digests(self) -> dict[str, list[str]]:
        """Capability → digests of the models that realise it, over all domains."""
        found: dict[str, set[str]] = {}
        for domain in self.domains:
            for capability in domain.capabilities:
                found.setdefault(capability.label, set()).add(capability.digest)
        return {label: sorted(digests) for label, digests in sorted(found.items())}


def read_plan(path: Path) -> Plan:
    """The plan in this file, its paths made absolute. Raises `ConfigurationError`, naming file and key."""
    value = load_toml(path, limit=MAX_PLAN_BYTES, area="plan")
    try:
        return absolute(Plan.read(write_json(value), limit=2 * MAX_PLAN_BYTES), path.resolve().parent)
    except Unreadable as error:
        raise ConfigurationError("plan.key", f"{path}: {error.text}") from None
    except (ValueError, TypeError, RecursionError) as error:
        raise ConfigurationError("plan.key", f"{path}: {error}") from None


def absolute(plan: Plan, folder: Path) -> Plan:
    """The same plan with model files, chips and simulated GPUs as absolute paths."""

    def node(each: NodePlan) -> NodePlan:
        chip = None if each.chip is None else str(folder / each.chip)
        gpus = each.gpus if each.gpus in (None, NVML) else str(folder / each.gpus)
        return each.model_copy(update={"model": str(folder / each.model), "chip": chip, "gpus": gpus})

    domains = [
        domain.model_copy(update={"nodes": [node(each) for each in domain.nodes]}) for domain in plan.domains
    ]
    return plan.model_copy(update={"domains": domains})
