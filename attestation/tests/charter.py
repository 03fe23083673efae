"""A charter as far as it bounds what a domain may expect, and what is published under it."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import cast

from attestation.expected import Expectations
from attestation.narrow import narrow
from attestation.node.tests.test_appraise_node import ENGINE, MODEL, NOW, vendor
from attestation.testing.forge import MEASUREMENT
from schemas.papers.trust import FederationTrust


@dataclass
class Charter:
    """What `narrow` reads of a federation's trust."""

    measurements: tuple[bytes, ...] = (MEASUREMENT,)
    """Each is published together with all engines and models."""
    engines: list[str] = field(default_factory=lambda: [ENGINE])
    models: list[str] = field(default_factory=lambda: [MODEL])
    roots: list[str] = field(default_factory=lambda: [vendor().root_digest])
    vendors: list[str] = field(default_factory=list)

    def bound(self, own: Expectations) -> Expectations:
        """What is left of a domain's own expectations."""
        values = [
            SimpleNamespace(measurement=each.hex(), engine_digests=self.engines, model_digests=self.models)
            for each in self.measurements
        ]
        trust = SimpleNamespace(
            charter=SimpleNamespace(
                simulated_roots=[SimpleNamespace(sha256=root) for root in self.roots],
                vendor_roots=self.vendors,
            ),
            reference_values_at=lambda at: values,
        )
        return narrow(own, cast(FederationTrust, trust), NOW)
