"""What `comity agent run --config F` reads (`examples/agent.toml` documents every key)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from attestation.expected import Expectations
from attestation.narrow import check_roots
from domain_agent.admit.admission import EPOCH_S
from domain_agent.admit.results import ROLE, ResultIssuer
from domain_agent.membership import Membership, read_membership
from domain_agent.observe import Observe, read_observe
from domain_agent.offer.catalogue import Catalogue
from domain_agent.toml_file import DIGEST, LABEL, Section, open_toml
from receipts.makers.choice import judge
from schemas.descriptors.capability import MAX_RATE, CapabilityDescriptor, CapabilityQuality, Rates
from schemas.errors import ComityError, ConfigurationError, Unreadable
from schemas.keys import SigningKey
from schemas.papers.manifest import Role
from schemas.policy.jurisdictions import check_place

CLASS: Final = r"[a-z0-9][a-z0-9._-]{0,63}"
VARIANT: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
QUOTE_S: Final = 5  # a CPU's firmware takes milliseconds, a GPU's may take a second
MAX_QUOTE_S: Final = 60  # as long as a node waits for its devices
DEFAULT_K_MIN: Final = 5  # session.md 10
DEFAULT_TTL_S: Final = 30  # policy-and-negotiation B2


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """The whole file."""

    file: Path
    membership: Membership
    expectations: Expectations
    advert_key: SigningKey = field(repr=False)
    results: ResultIssuer | None
    """Signs attestation results; None: none are issued."""
    state: Path
    epoch_s: int
    accept: Literal["affirming", "warning"]
    queue_per_slot: int
    k_min: int
    ttl_s: int
    jurisdiction: str
    catalogue: Catalogue
    observe: Observe
    collateral: Path | None = None
    """Folder of the domain's bundle (`comity attest fetch --bundle`)."""
    quote_s: int = QUOTE_S
    """Seconds for a node to answer a challenge."""


def load(path: Path) -> AgentConfig:
    """Read the file. Raises `ConfigurationError`, naming file, key and what to write."""
    top = open_toml(path)
    federation = top.child("federation")
    membership = read_membership(top, federation, "agent")
    expectations = federation.path("expectations", write='expectations = "expectations.toml"')
    federation.finish()
    keys, admission = top.child("keys"), top.child("admission")
    summary, capacity = top.child("summary"), top.child("capacity")
    collateral = top.child("collateral")
    accept = admission.choice("accept", ("affirming", "warning"), default="affirming")
    config = AgentConfig(
        file=path,
        membership=membership,
        expectations=Expectations.load(expectations),
        advert_key=SigningKey.load(keys.secret("advert", write='advert = "keys/advert.pem"')),
        results=_issuer(keys, membership.domain),
        state=top.path("state", write='state = "<folder for the agent\'s few durable facts>"'),
        epoch_s=admission.integer("epoch_s", 2, 3600, unit="seconds", default=EPOCH_S),
        quote_s=admission.integer("quote_s", 1, MAX_QUOTE_S, unit="seconds", default=QUOTE_S),
        accept="warning" if accept == "warning" else "affirming",
        queue_per_slot=capacity.integer("queue_per_slot", 0, 1024, unit="waiting requests", default=4),
        k_min=summary.integer("k_min", 1, 1000, unit="nodes", default=DEFAULT_K_MIN),
        ttl_s=summary.integer("ttl_s", 20, 3600, unit="seconds", default=DEFAULT_TTL_S),
        jurisdiction=_jurisdiction(summary, membership),
        catalogue=Catalogue.of(_entry(section) for section in top.children("capabilities", least=1)),
        observe=read_observe(top.child("observe")),
        collateral=collateral.path("bundle", write='bundle = "<folder>"')
        if collateral.has("bundle")
        else None,
    )
    for section in (keys, admission, summary, capacity, collateral, top):
        section.finish()
    return _checked(config)


def _issuer(keys: Section, domain: str) -> ResultIssuer | None:
    if not keys.has("attestation_verifier"):
        return None
    write = 'attestation_verifier = "keys/attestation-verifier.pem"'
    return ResultIssuer(domain, SigningKey.load(keys.secret("attestation_verifier", write=write)))


def _checked(config: AgentConfig) -> AgentConfig:
    labels = [entry.label for entry in config.catalogue.entries]
    if len(set(labels)) != len(labels):
        raise ConfigurationError(
            "config.value", f"{config.file}: [[capabilities]] names a class and variant twice"
        )
    _check_role(config, "advert", "advert", config.advert_key)
    if config.results is not None:
        _check_role(config, "attestation_verifier", ROLE, config.results.key)
    check_roots(config.expectations, config.membership.trust)
    if config.expectations.node is None:
        raise ConfigurationError(
            "config.expectations", f"{config.expectations.source}: a [node] table is required; write one"
        )
    return config


def _check_role(config: AgentConfig, name: str, role: Role, key: SigningKey) -> None:
    """Raises `ConfigurationError` for a key that our manifest does not register for what it is to sign."""
    manifest = config.membership.trust.manifest(config.membership.domain)
    if (key.thumbprint, role) not in {(each.thumbprint, each.role) for each in manifest.keys}:
        raise ConfigurationError(
            "config.key",
            f"{config.file}: [keys] {name} is not registered as {role} in the manifest of "
            f"{config.membership.domain}; write the key of that role",
        )


def _jurisdiction(section: Section, membership: Membership) -> str:
    """Where the machines stand: one of the places that the charter endorses, or inside one."""
    write = f'jurisdiction = "{_endorsed(membership)[0]}"'
    place = section.text("jurisdiction", r"[A-Z0-9-]{2,10}", write=write, default=_endorsed(membership)[0])
    try:
        return check_place(place)
    except Unreadable as error:
        raise section.error("jurisdiction", error.text, write) from None


def _endorsed(membership: Membership) -> list[str]:
    for member in membership.trust.charter.members:
        if member.domain == membership.domain:
            return list(member.endorsed.profile.jurisdictions)
    raise ConfigurationError("config.trust", f"{membership.domain} is no member")


def _entry(section: Section) -> CapabilityDescriptor:
    rates = section.child("rates")
    digest = section.text("digest", DIGEST, write='digest = "<SHA-256 of the model file>"')
    entry = CapabilityDescriptor(
        name=section.text("class", CLASS, write='class = "chat.small"'),
        variant=section.text("variant", VARIANT, write='variant = "smollm2-135m-q4_1"'),
        version=section.text("version", LABEL, write='version = "1"'),
        digest=digest,
        model_signing=_model_signing(section, digest),
        task="chat",
        quality=CapabilityQuality(
            tier=section.integer("tier", 0, 10, unit="quality inside the class", default=0),
            context_limit=section.integer("context", 1, 16_777_216, unit="tokens"),
            params_m=section.integer("params_m", 0, 10**9, unit="millions of parameters", default=0),
        ),
        rates=Rates(
            input=_micro(rates, "input"), output=_micro(rates, "output"), cached=_micro(rates, "cached")
        ),
    )
    for each in (rates, section):
        each.finish()
    return entry


def _model_signing(section: Section, digest: str) -> str | None:
    """SHA-256 of the model's signature, by whom it must be; None where none is configured.

    A signature that does not hold for this very model stops us: nothing is advertised on it.
    """
    if not section.has("model_signature") and not section.has("model_signer"):
        return None
    write = 'model_signature = "<file that model-signing wrote>"'
    signature = section.path("model_signature", write=write)
    try:
        signed = judge(
            section, "model_signer", lambda name: (Path(section.source).parent / name).read_bytes()
        )
        return signed(signature.read_bytes()).holds(digest).digest
    except ConfigurationError:
        raise
    except OSError as error:
        raise section.error("model_signature", f"cannot be read: {error.strerror}", write) from None
    except ComityError as error:
        raise section.error("model_signature", f"does not hold: {error.text}", write) from None


def _micro(section: Section, key: str) -> int:
    return section.integer(key, 0, MAX_RATE, unit="micro-units of the charter's currency per 1,000 tokens")
