"""Composite evidence of another maker's form, judged beside ours (gpu.md 10).

It says nothing about a node's keys, domain or configuration, so it never admits a node: it is for a person
or an auditor who looks.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from attestation.expected import Expectations
from attestation.gpu.appraise import Asked
from attestation.gpu.node.devices import appraise_devices
from attestation.gpu.node.tinfoil import MODE, check_tinfoil, read_tinfoil
from attestation.node.cpu import joined
from attestation.result import AttestationResult
from attestation.tdx.appraise import appraise_quote
from schemas.canonical import sha256
from schemas.errors import ConfigurationError


def appraise_tinfoil(
    evidence: bytes,
    *,
    endorsements: Sequence[bytes],
    expectations: Expectations | None,
    nonce: bytes | None,
    waive_revocation: bool,
    at: datetime,
) -> AttestationResult:
    """A TDX guest with GPUs. nonce: the client's, 32 bytes. Raises `Unreadable`, `ConfigurationError`.

    1. the CPU's quote; 2. the devices, for the nonce that report data names; 3. what ties them together.
    """
    if expectations is not None and (expectations.tdx is None or expectations.nvidia is None):
        raise ConfigurationError(
            "expected.unset", f"{expectations.source}: [tdx] or [nvidia] is not set; write both tables"
        )
    stated = read_tinfoil(evidence)
    digest = expectations.digest if expectations else None
    waived = expectations.waived if expectations else ()
    policy = expectations.nvidia if expectations else None
    cpu = appraise_quote(
        stated.quote, tee="tdx", endorsements=endorsements,
        policy=expectations.tdx if expectations else None,
        expectations_digest=digest, waived=waived, nonce=None, waive_revocation=waive_revocation, at=at,
    )  # fmt: skip
    asked = Asked(policy, digest, waived, stated.inputs["nonce"], waive_revocation, at)
    devices = appraise_devices(stated.devices, common=endorsements, asked=asked)
    bindings = None if policy is None else policy.bindings
    ties = check_tinfoil(stated, cpu.quote.body.report_data, nonce, bindings)
    checks = (*cpu.result.checks, *devices.checks, *ties)
    return joined(cpu.result, devices, checks, sha256(evidence))._replace(
        stated=lambda: {**cpu.result.stated(), "binding_mode": MODE, "devices": devices.stated()}
    )
