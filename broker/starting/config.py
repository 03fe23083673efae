"""What `comity broker serve --config F` reads: one TOML file, all of it checked before anything starts.

`examples/broker.toml` shows every key with unit and default. A key without a default must be
written; where it guards something, writing `"any"` waives it, and nothing else does. The docstring
under a field is also what an error tells the operator.
"""

from __future__ import annotations

import ipaddress
from dataclasses import field
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic.dataclasses import dataclass

from broker.starting.toml import SETTINGS, AnyPath, ExistingFile, ExistingFolder, SecretFile, read_settings
from receipts.retention import check_known
from schemas.descriptors.request import TagFloor
from schemas.errors import Refused
from schemas.primitives import Digest, DomainName, Label

ANY: Final = "any"
MAX_TENANTS: Final = 10_000  # tenants in one file
MAX_KEYS_PER_TENANT: Final = 16  # one in use, one to come, and some for separate applications

Waived = Literal["any"]
Factor = Annotated[float, Field(ge=0, le=1e9)]
Milliseconds = Annotated[int, Field(ge=1, le=3_600_000)]


@dataclass(frozen=True, slots=True, config=SETTINGS)
class Federation:
    """[federation]: whom we believe, and about what."""

    charter: ExistingFile
    """The signed charter, a file."""
    pin: Digest
    """The charter's digest, 64 hex digits, as agreed out of band."""
    manifests: ExistingFolder
    """Folder with each member's signed manifest."""
    reference_values: ExistingFolder
    """Folder with the image publishers' signed lists."""
    expectations: ExistingFile
    """What a node must prove before anything is sent to it, a file; docs/attestation-*.md show its tables."""


@dataclass(frozen=True, slots=True, config=SETTINGS)
class Keys:
    """[keys]: private keys of this domain's broker, one per role; PKCS#8 PEM, mode 0600."""

    message: SecretFile
    """P-256 key that signs calls, offers and Execute headers; a file."""
    receipt: SecretFile
    """P-256 key that signs Placement and Execution receipts; a file."""
    promise: SecretFile
    """P-256 key that signs the log's inclusion promises; a file."""
    attestation_verifier: SecretFile
    """P-256 key that signs attestation results; a file."""
    log: SecretFile
    """Ed25519 key that signs the log's checkpoints; a file."""
    log_beside: SecretFile | None = None
    """ML-DSA-44 key that signs them as well, where the manifest registers one; a file."""
    witness: SecretFile | None = None
    """Ed25519 key that cosigns other members' checkpoints; without it this domain runs no witness."""


@dataclass(frozen=True, slots=True, config=SETTINGS)
class BusLogin:
    """[bus]: our login at the domain's NATS server."""

    url: Annotated[str, Field(pattern=r"^(nats|tls)://[^\s]+$", max_length=2048)]
    """Where the server is: `tls://host:port`, or several separated by commas."""
    seed: SecretFile
    """The broker user's nkey seed, a file with mode 0600."""
    ca: ExistingFile | Waived
    """The only authority trusted for the server's certificate, a PEM file; "any": no TLS, loopback only."""

    @model_validator(mode="after")
    def _plain_stays_on_loopback(self) -> Self:
        hosts = [address.partition("://")[2].rpartition(":")[0] for address in self.url.split(",")]
        if self.ca == ANY and not all(map(is_loopback, hosts)):
            raise ValueError('url leaves this machine: ca must be a file, not "any"')
        return self


@dataclass(frozen=True, slots=True, config=SETTINGS)
class ServerCertificate:
    """[listen] tls = { certificate, key }"""

    certificate: ExistingFile
    """Certificate chain, a PEM file."""
    key: SecretFile
    """Its private key, a PEM file with mode 0600."""


@dataclass(frozen=True, slots=True, config=SETTINGS)
class Listen:
    """[listen]: where applications reach this broker."""

    tls: ServerCertificate | Waived
    """Write { certificate = "…", key = "…" }; or "any" for plain HTTP, for loopback or behind a proxy."""
    host: Annotated[str, Field(min_length=1, max_length=253)] = "127.0.0.1"
    """Address to listen on."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    """TCP port; 0 takes a free one."""
    port_file: AnyPath | None = None
    """File that the port is written to once the broker listens; none by default."""


@dataclass(frozen=True, slots=True, config=SETTINGS)
class Policies:
    """[policies]: the layers that must all allow (every layer only ever forbids)."""

    charter: ExistingFile
    """Cedar policies that the members agreed on; their digest stands in the charter."""
    national: ExistingFile | Waived
    """Cedar policies of this domain's country, a file; "any" for none."""
    provider: ExistingFile | Waived
    """Cedar policies for what this domain accepts to run, for itself and for peers; "any" for none."""
    tenant: dict[Label, ExistingFile] = field(default_factory=dict)
    """Cedar policies of tenants, by the name that a tenant's `policy` gives; none by default."""


@dataclass(frozen=True, slots=True, config=SETTINGS)
class Weights:
    """[weights.NAME]: how ranking weighs milliseconds of each kind (routing.md 3). Hard policy has none."""

    network: Factor = 1.0
    """α, per ms of network time."""
    queue: Factor = 1.0
    """β, per ms of waiting."""
    execution: Factor = 1.0
    """γ, per ms of cold compute."""
    state: Factor = 1.0
    """δ, per ms of moving or loading state."""
    load: Factor = 1.0
    """ε, per ms-equivalent of utilisation."""
    policy: Factor = 1.0
    """ζ, per ms-equivalent of preference among allowed plans."""
    money: Factor = 1.0
    """κ, ms-equivalent per micro-unit of price."""


def _known_classes(names: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return check_known(names)
    except Refused as error:
        raise ValueError(error.text) from None


RetentionNames = Annotated[tuple[Label, ...], Field(max_length=16), AfterValidator(_known_classes)]
"""Retention classes by name (receipts/retention.toml)."""


@dataclass(frozen=True, slots=True, config=SETTINGS)
class TenantSettings:
    """[[tenants]]: one party that may send requests."""

    name: Label
    """How receipts, logs and JWTs call it."""
    floor: TagFloor | Waived
    """Tags that each of its requests carries, as { data_class = "personal", … }; "any" for none."""
    policy: Label | Waived
    """Name of one of [policies.tenant]; "any" for none."""
    keys: Annotated[tuple[Digest, ...], Field(max_length=MAX_KEYS_PER_TENANT)] = ()
    """SHA-256 of its API keys, 64 hex digits each; `comity broker key` makes a key and prints both."""
    weights: Label = "default"
    """Name of one of [weights]."""
    retention: RetentionNames = ()
    """Retention classes that its receipts fall under (receipts/retention.toml); the longest counts."""


@dataclass(frozen=True, slots=True, config=SETTINGS)
class Issuer:
    """[[issuers]]: who may say in a JWT which tenant is calling."""

    iss: Annotated[str, Field(min_length=1, max_length=1024)]
    """The token's `iss`, exactly."""
    aud: Annotated[str, Field(min_length=1, max_length=1024)]
    """The token's `aud`: this broker's name at the issuer."""
    jwks: ExistingFile
    """The issuer's public keys as a JSON Web Key Set, a file; each key names its `alg` and `kid`."""
    tenants: Annotated[tuple[Label, ...], Field(min_length=1, max_length=MAX_TENANTS)]
    """Names of the tenants that this issuer may speak for."""
    claim: Label = "tenant"
    """The claim that names the tenant."""


@dataclass(frozen=True, slots=True, config=SETTINGS)
class Limits:
    """[limits]: how much at once, and for how long."""

    running: Annotated[int, Field(ge=1, le=100_000)] = 256
    """Requests that run at once."""
    queued: Annotated[int, Field(ge=0, le=100_000)] = 256
    """Requests that may wait for one of those places; more are answered with 429."""
    queue_ms: Milliseconds = 5_000
    """How long a request may wait for a place, milliseconds."""
    request_ms: Milliseconds = 600_000
    """How long a request may take in all, and the run of a peer here, milliseconds."""
    drain_ms: Milliseconds = 30_000
    """How long running requests may go on after SIGTERM, milliseconds."""


@dataclass(frozen=True, slots=True, config=SETTINGS)
class Negotiation:
    """[negotiation]: asking other domains."""

    finalists: Annotated[int, Field(ge=1, le=3)] = 3
    """Domains asked at once, 1 to 3; more strands capacity."""
    hold_ms: Annotated[int, Field(ge=500, le=10_000)] = 3_000
    """How long an offer should be held for us, milliseconds; several round trips."""
    call_ms: Milliseconds = 2_000
    """How long to wait for an offer, milliseconds."""
    continuations: Annotated[int, Field(ge=0, le=8)] = 2
    """How often a broken answer may be continued elsewhere."""


@dataclass(frozen=True, slots=True, config=SETTINGS)
class Observe:
    """[observe]: traces and logs. Neither ever holds a prompt, an answer or a key."""

    spans: AnyPath | None = None
    """File that finished spans are appended to, one JSON object a line; none by default."""
    otlp: Annotated[str, Field(pattern=r"^https?://[^\s]+$", max_length=2048)] | None = None
    """OTLP/HTTP collector; needs the package opentelemetry-exporter-otlp-proto-http. None by default."""
    traces_kept: Annotated[int, Field(ge=0, le=100_000)] = 2_000
    """Traces kept in memory for GET /v1/traces/{id}."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe log lines that are written to stderr."""


@dataclass(frozen=True, slots=True, config=SETTINGS)
class BrokerConfig:
    """One broker's configuration. Every path is absolute."""

    domain: DomainName
    """This domain's name, as the charter lists it."""
    database: AnyPath
    """SQLite file for receipts, log and negotiations; made at the first start."""
    federation: Federation
    keys: Keys
    bus: BusLogin
    listen: Listen
    policies: Policies
    tenants: Annotated[tuple[TenantSettings, ...], Field(max_length=MAX_TENANTS)]
    """Who may send requests; at least `tenants = []`."""
    issuers: Annotated[tuple[Issuer, ...], Field(max_length=64)] = ()
    """Who may vouch for tenants with JWTs; none by default."""
    weights: dict[Label, Weights] = field(default_factory=lambda: {"default": Weights()})
    """Named weights for ranking."""
    limits: Limits = Limits()
    negotiation: Negotiation = Negotiation()
    observe: Observe = Observe()
    execution_retention: RetentionNames = ()
    """Retention classes of the receipts that we sign as provider; none by default."""

    @model_validator(mode="after")
    def _names_lead_somewhere(self) -> Self:
        names = [tenant.name for tenant in self.tenants]
        digests = [digest for tenant in self.tenants for digest in tenant.keys]
        if len(set(names)) != len(names) or len(set(digests)) != len(digests):
            raise ValueError("tenants: a name or a key stands there twice")
        for tenant in self.tenants:
            if tenant.policy != ANY and tenant.policy not in self.policies.tenant:
                raise ValueError(
                    f"tenants: {tenant.name}: policy {tenant.policy!r} is not in [policies.tenant]"
                )
            if tenant.weights not in self.weights:
                raise ValueError(f"tenants: {tenant.name}: no {tenant.weights!r} in [weights]")
        for issuer in self.issuers:
            if unknown := sorted(set(issuer.tenants) - set(names)):
                raise ValueError(f"issuers: {issuer.iss}: no tenant is called {unknown[0]!r}")
        if len({issuer.iss for issuer in self.issuers}) != len(self.issuers):
            raise ValueError("issuers: an issuer stands there twice")
        return self

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read and check the file. Raises `ConfigurationError` that names file, key and what to write."""
        return read_settings(path, cls)


def is_loopback(host: str) -> bool:
    """Whether an address, as written in a URL or a setting, stays on this machine."""
    bare = host.rpartition("@")[2].strip("[]")
    try:
        return ipaddress.ip_address(bare).is_loopback
    except ValueError:
        return bare == "localhost"
