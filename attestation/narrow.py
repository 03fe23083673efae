"""What a domain expects, cut down to what its charter allows (session.md 3, DESIGN 17).

A domain may narrow the charter, never widen it: a simulated root that the charter does not list is
a configuration error; a vendor's own root counts only where the charter accepts that vendor; and a
measurement, engine or model only while a publisher that the charter names stands behind it.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from typing import Final

from attestation.expected import Expectations, NodeExpectations
from attestation.gpu.expected import GpuPolicy
from attestation.gpu.pki.roots import Roots as NvidiaRoots
from attestation.snp.expected import SnpPolicy
from attestation.snp.origin.chain import Roots as AmdRoots
from attestation.tdx.expected import QuotePolicy
from attestation.tdx.origin.chain import Roots as IntelRoots
from schemas.errors import ConfigurationError
from schemas.papers.charter import Vendor
from schemas.papers.trust import FederationTrust

CACHED_NARROWED: Final = 16  # one per file of expectations and state of what is published


def narrow(expectations: Expectations, trust: FederationTrust, at: datetime) -> Expectations:
    """The expectations that hold in this federation at this time. Raises `ConfigurationError`.

    "any" becomes "anything that is published": the charter's publishers are the outer bound.
    """
    check_roots(expectations, trust)
    published = trust.reference_values_at(at)
    return _narrowed(
        expectations,
        frozenset(trust.charter.vendor_roots),
        frozenset(bytes.fromhex(value.measurement) for value in published),
        frozenset(digest for value in published for digest in value.engine_digests),
        frozenset(digest for value in published for digest in value.model_digests),
    )


@lru_cache(maxsize=CACHED_NARROWED)
def _narrowed(
    expectations: Expectations,
    vendors: frozenset[Vendor],
    measurements: frozenset[bytes],
    engines: frozenset[str],
    models: frozenset[str],
) -> Expectations:
    """One object as long as the same is published: appraisals are remembered by their expectations."""
    snp = {name: _snp(policy, measurements) for name, policy in (expectations.snp or {}).items()}
    node = None if expectations.node is None else _node(expectations.node, engines, models)
    tdx = None if expectations.tdx is None else _tdx(expectations.tdx, measurements)
    bounded = replace(expectations, snp=snp if expectations.snp is not None else None, tdx=tdx, node=node)
    return _without_strangers(bounded, vendors)


def _without_strangers(found: Expectations, vendors: frozenset[Vendor]) -> Expectations:
    """Without the roots of vendors that the charter does not accept; simulated ones are listed by name."""
    if "amd-sev-snp" not in vendors:
        made_up = {digest: pin for digest, pin in found.roots.pins.items() if pin[1].simulated}
        found = replace(found, roots=AmdRoots(made_up))
    if "intel-tdx" not in vendors:
        found = replace(found, tdx=_without_intel(found.tdx), sgx=_without_intel(found.sgx))
    if "nvidia" not in vendors:
        found = replace(found, nvidia=_without_nvidia(found.nvidia))
    return found


def _without_intel(policy: QuotePolicy | None) -> QuotePolicy | None:
    if policy is None:
        return None
    made_up = {digest: pin for digest, pin in policy.roots.pins.items() if pin.simulated}
    return replace(policy, roots=IntelRoots(made_up))


def _without_nvidia(policy: GpuPolicy | None) -> GpuPolicy | None:
    if policy is None:
        return None
    device, manifest, service = (
        {digest: pin for digest, pin in pins.items() if pin.simulated}
        for pins in (policy.roots.device, policy.roots.manifest, policy.roots.service)
    )
    return replace(policy, roots=NvidiaRoots(device, manifest, service))


def check_roots(expectations: Expectations, trust: FederationTrust) -> None:
    """Every simulated root that a domain accepts must stand in the charter, by digest (DESIGN 15)."""
    listed = {root.sha256 for root in trust.charter.simulated_roots}
    accepted = {digest: pin.name for digest, (_, pin) in expectations.roots.pins.items() if pin.simulated}
    for policy in (expectations.tdx, expectations.sgx):
        pins = policy.roots.pins if policy is not None else {}
        accepted.update({digest: pin.name for digest, pin in pins.items() if pin.simulated})
    if expectations.nvidia is not None:
        accepted.update(expectations.nvidia.roots.simulated)
    for digest, name in accepted.items():
        if digest not in listed:
            raise ConfigurationError(
                "expected.simulated_root",
                f"{expectations.source}: simulated root {name!r} is not listed in the charter",
            )


def _snp(policy: SnpPolicy, measurements: frozenset[bytes]) -> SnpPolicy:
    own = policy.measurement
    return replace(policy, measurement=measurements if own is None else own & measurements)


def _tdx(policy: QuotePolicy, measurements: frozenset[bytes]) -> QuotePolicy:
    """A publisher's measurement of a trust domain is its MRTD."""
    own = policy.identities["mrtd"]
    bounded = measurements if own is None else own & measurements
    return replace(policy, identities={**policy.identities, "mrtd": bounded})


def _node(node: NodeExpectations, engines: frozenset[str], models: frozenset[str]) -> NodeExpectations:
    return replace(
        node,
        engine_digests=engines if node.engine_digests is None else node.engine_digests & engines,
        published_models=models,
    )
