"""The policy packs that come with Comity, and how sets are read from files.

A pack is a `.cedar` file; a file of the same name ending in `.canaries.json` holds its known
outcomes. `charter` is the rulebook, `national-*` are countries' rules, the rest are defaults and examples.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field

from schemas.canonical import Wire
from schemas.descriptors.profile import CertificationScheme, Place, Regime, TransferBasisType
from schemas.descriptors.tags import Home, PolicyTags, complete
from schemas.errors import ConfigurationError, Unreadable
from schemas.files import read_up_to
from schemas.policy.facts import AttestedFacts, DomainFacts, RequestContext, Subject, enclosing
from schemas.policy.jurisdictions import premises_of
from schemas.policy.layers import Layers, LayerSets
from schemas.policy.policy_set import MAX_POLICY_BYTES, Canary, PolicySet
from schemas.primitives import Count, DomainName, Label

NATIONAL: Final = ("national-de", "national-fr", "national-us")
MAX_CANARIES: Final = 1024
MAX_CANARY_BYTES: Final = 1024 * 1024  # a thousand cases in which everything is stated
_NAME: Final = re.compile(r"[\x21-\x7e]{1,128}")

Level = Annotated[int, Field(ge=0, le=4)]


class CanaryRequest(Wire):
    """The asking side of a canary; tags that are left out take their most restrictive value."""

    tags: PolicyTags = PolicyTags(data_class="public")
    consumer: DomainName = "clinic.de"
    jurisdiction: Place = "DE"
    tenant: Label = "tenant"
    max_price: Count | None = None
    allow_debug: bool = False
    simulated_allowed: bool = False

    def context(self) -> RequestContext:
        return RequestContext.of(
            complete(self.tags, Home(self.consumer, (self.jurisdiction,))),
            consumer=self.consumer,
            tenant=self.tenant,
            application="canary",
            max_price=self.max_price,
            allow_debug=self.allow_debug,
            simulated_allowed=self.simulated_allowed,
        )


class CanaryDomain(Wire):
    """The serving side: by default a well-evidenced German domain on affirmed hardware."""

    domain: DomainName = "provider.example"
    jurisdictions: Annotated[list[Place], Field(min_length=1)] = ["DE"]  # noqa: RUF012
    status: Literal["active", "suspended"] = "active"
    exposed_to: list[Regime] = Field(default_factory=list)
    certs: list[CertificationScheme] = Field(default_factory=list)
    transfer_basis: list[TransferBasisType] = Field(default_factory=list)
    retention_s: Count = 0
    carbon: Count = 0
    price: Count = 0
    jurisdiction_evidence: Level = 2
    evidence: Level = 2
    key_control: Literal["customer", "domain", "third-party", "unknown"] = "domain"
    support_access: list[Place] = Field(default_factory=list)
    seal: Level = 0
    assurance: Level = 3
    simulated: bool = False
    debug_allowed: bool = False
    confidential_gpu: bool = False
    engine_in_tee: bool = True
    binding_mode: Label = "none"
    enrolled: bool = True
    attestation_age_s: Count = 0

    def subject(self) -> Subject:
        return Subject(
            DomainFacts(
                domain=self.domain,
                profile_digest="0" * 64,
                status=self.status,
                inside=enclosing(self.jurisdictions) | {premises_of(self.domain)},
                exposed_to=frozenset(self.exposed_to),
                certs=frozenset(self.certs),
                transfer_basis=frozenset(self.transfer_basis),
                retention_s=self.retention_s,
                carbon=self.carbon,
                jurisdiction_evidence=self.jurisdiction_evidence,
                evidence=self.evidence,
                key_control=self.key_control,
                support_access=frozenset(self.support_access),
                seal=self.seal,
            ),
            AttestedFacts(
                assurance=self.assurance,
                simulated=self.simulated,
                debug_allowed=self.debug_allowed,
                confidential_gpu=self.confidential_gpu,
                engine_in_tee=self.engine_in_tee,
                binding_mode=self.binding_mode,
                enrolled=self.enrolled,
                age_s=self.attestation_age_s,
            ),
            self.price,
        )


class CanaryCase(Wire):
    """One known outcome, in the words of the request tags."""

    name: Label
    expect: Literal["allow", "deny"]
    request: CanaryRequest = CanaryRequest()
    domain: CanaryDomain = CanaryDomain()


class CanaryFile(Wire):
    """What stands in `<set>.canaries.json`."""

    canaries: Annotated[list[CanaryCase], Field(max_length=MAX_CANARIES)]


def read_canaries(data: bytes) -> tuple[Canary, ...]:
    """The canaries of a file. Raises `Unreadable`."""
    return tuple(
        Canary(case.name, case.request.context(), case.domain.subject(), case.expect)
        for case in CanaryFile.read(data).canaries
    )


def pack_names() -> list[str]:
    """Names of the packs in this installation."""
    folder = resources.files("schemas.policy") / "packs"
    return sorted(
        entry.name.removesuffix(".cedar") for entry in folder.iterdir() if entry.name.endswith(".cedar")
    )


@cache
def load_pack(name: str) -> PolicySet:
    """A pack that came with Comity, through the gate. Raises `ConfigurationError` for an unknown name."""
    if name not in pack_names():
        raise ConfigurationError("policy.pack", f"no pack {name!r}; there are {', '.join(pack_names())}")
    folder = resources.files("schemas.policy") / "packs"
    text = (folder / f"{name}.cedar").read_text(encoding="utf-8")
    known = folder / f"{name}.canaries.json"
    canaries = read_canaries(known.read_bytes()) if known.is_file() else ()
    return PolicySet.load(text, name, canaries)


def load_file(path: Path, *, overrides: Iterable[str] = ()) -> PolicySet:
    """A set from a file, with the canaries beside it. Raises as `PolicySet.load`, or `ConfigurationError`.

    The set is called what the file is, in every record of a decision.
    """
    try:
        text = read_bounded(path, MAX_POLICY_BYTES).decode("utf-8")
    except UnicodeDecodeError:
        raise Unreadable("policy.syntax", f"{path}: not UTF-8 text") from None
    if not _NAME.fullmatch(path.stem):
        raise ConfigurationError("policy.file", f"{path}: name it in visible ASCII without blanks")
    return PolicySet.load(text, path.stem, canaries_beside(path), overrides=overrides)


def canaries_beside(path: Path) -> tuple[Canary, ...]:
    """The canaries of a set's file; none where it has none. Raises as `load_file`."""
    known = path.with_suffix(".canaries.json")
    # Where the longer name is more than a file system takes, there are none.
    return read_canaries(read_bounded(known, MAX_CANARY_BYTES)) if os.path.lexists(known) else ()


def read_bounded(path: Path, limit: int) -> bytes:
    """A whole file of whatever kind. Raises `ConfigurationError` or `Unreadable`. limit: bytes."""
    data = read_up_to(path, limit, "policy.file")
    if len(data) > limit:
        raise Unreadable("policy.too_long", f"{path}: at most {limit} bytes")
    return data


def default_layers(
    *,
    national: Iterable[str] = NATIONAL,
    tenant: LayerSets | None = None,
    provider: LayerSets | None = None,
) -> Layers:
    """The packs as they come; `tenant` and `provider` may be an own set or `"elsewhere"`."""
    return Layers.of(
        charter=load_pack("charter"),
        national=[load_pack(name) for name in national],
        tenant=load_pack("tenant-default") if tenant is None else tenant,
        provider=load_pack("provider-default") if provider is None else provider,
    )
