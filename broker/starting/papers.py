"""What a broker's trust begins with: the federation's signed documents, the policies, our expectations."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from attestation.expected import Expectations
from attestation.narrow import check_roots
from broker.placing.decide import Rulebook
from broker.starting.config import ANY, BrokerConfig
from receipts.log import Documents
from schemas import envelope
from schemas.errors import ConfigurationError, Refused, Unreadable
from schemas.papers.trust import FederationTrust
from schemas.policy.packs import load_file, load_pack
from schemas.policy.policy_set import PolicySet

DEFAULT_TENANT_RULES: Final = "default"


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
        where = f"[federation] charter {files.charter} and what stands beside it"
        raise ConfigurationError("config.trust", f"{where}: does not hold: {error}") from None
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


def _files(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()]
