"""One NVIDIA device, from bytes to verdict (DESIGN 7; gpu.md 14).

Bytes and a time go in, a result comes out; no I/O, no clock, nothing kept between devices but positive
cryptographic facts. All checks run that can, in the order in which their reasons rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from attestation.gpu.documents import Offered, gather
from attestation.gpu.expected import DEFAULT, GpuPolicy
from attestation.gpu.pki.chain import DeviceChain, Family
from attestation.gpu.pki.signature import p384_of, verify_raw
from attestation.gpu.policy import check_demands
from attestation.gpu.revocation.check import Held, Subject, check_revocation, read_offered
from attestation.gpu.rim.check import check_manifests
from attestation.gpu.rim.issues import Chosen
from attestation.gpu.show import state_device
from attestation.gpu.spdm.report import Report, is_report, read_report
from attestation.gpu.verify import Origin, authenticate
from attestation.result import AttestationResult, Check, decide, failed
from attestation.x509 import read_certificate
from schemas.canonical import sha256
from schemas.errors import ComityError, Refused
from schemas.evidence import DeviceState

MAX_TRIED_CHAINS: Final = 16  # chains tried where several devices' lie in one folder


@dataclass(frozen=True, slots=True)
class DeviceAppraisal:
    """A result with what was read, for callers that bind devices together."""

    result: AttestationResult
    report: Report | None
    chain: DeviceChain | None
    family: Family | None


def appraise_device(
    evidence: bytes,
    *,
    endorsements: Sequence[bytes],
    policy: GpuPolicy | None,
    expectations_digest: bytes | None,
    waived: Sequence[str],
    nonce: bytes | None,
    waive_revocation: bool,
    at: datetime,
    state: DeviceState | None = None,
) -> DeviceAppraisal:
    """Appraise a report at the time `at`. Raises `Unreadable` when the bytes are no report.

    policy: None = no reference values are demanded. nonce: our challenge (32 bytes). state: what the attested
    guest says of its GPU; only a caller that has verified the guest may pass it.

    1. sort what was offered; 2. origin; 3. manifests and measurements; 4. revocation; 5. demands.
    """
    rules, moment = policy or DEFAULT, at.timestamp()
    offered = gather(tuple(endorsements))
    origin = authenticate(
        evidence, _chain_for(evidence, offered), rules.roots, moment,
        nonce=nonce, padding=rules.padding, fwid=rules.fwid,
    )  # fmt: skip
    manifests, chosen = check_manifests(
        origin.report, origin.family, offered.manifests, rules.manifests, moment
    )
    revocation, ends = check_revocation(
        _held(offered), _subjects(origin, chosen, rules), moment,
        waived=waive_revocation or rules.revocation == "any",
    )  # fmt: skip
    *early, pdi = origin.checks
    checks = [*_documents(offered), *early, *revocation, *manifests, pdi]
    if policy is not None:
        checks += check_demands(origin.report, origin.family, state, policy)
    named = ("revocation",) if waive_revocation else ()
    result = _concluded(evidence, origin, chosen, ends, checks, expectations_digest, (*named, *waived), at)
    return DeviceAppraisal(result, origin.report, origin.chain, origin.family)


def _documents(offered: Offered) -> list[Check]:
    """What cannot be read as collateral refuses; it is never passed over."""
    if offered.problem is None:
        return []
    error = offered.problem
    wanted = "a chain, manifests, OCSP, CRLs, key sets, tokens"
    return [failed("gpu.documents", error.code, error.text, wanted, "gpu.md 3, 6, 8, 9")]


def _chain_for(evidence: bytes, offered: Offered) -> tuple[bytes, ...] | None:
    """The device's own chain: among several, the one whose leaf signed this report; else the first."""
    if len(offered.chains) < 2:
        return offered.chains[0] if offered.chains else None
    if not is_report(evidence):
        return offered.chains[0]
    try:
        report = read_report(evidence)
    except Refused:
        return offered.chains[0]
    for chain in offered.chains[:MAX_TRIED_CHAINS]:
        try:
            verify_raw(p384_of(read_certificate(chain[0])), report.signature, report.signed)
        except ComityError:
            continue
        return chain
    return offered.chains[0]


def _held(offered: Offered) -> Held:
    return read_offered(offered.responses, offered.crls)


def _subjects(origin: Origin, chosen: Sequence[Chosen], rules: GpuPolicy) -> list[Subject]:
    """Which certificates one asks about: not the leaf, which no responder knows, nor the roots (gpu.md 8)."""
    found: list[Subject] = []
    if origin.chain is not None:
        _, brom, provisioner, identity, root = origin.chain.certificates
        found += [
            Subject("device", brom, provisioner, may_hold=rules.hold == "accept-device"),
            Subject("provisioner", provisioner, identity),
            Subject("identity", identity, root),
        ]
    for each in chosen:
        if each.manifest is not None:
            signer, authority, chip, root = each.manifest.chain
            name = each.slot.name
            found += [
                Subject(f"{name}.signer", signer, authority),
                Subject(f"{name}.authority", authority, chip),
                Subject(f"{name}.chip", chip, root),
            ]
    return found


def _concluded(
    evidence: bytes,
    origin: Origin,
    chosen: Sequence[Chosen],
    ends: dict[str, float],
    checks: list[Check],
    expectations_digest: bytes | None,
    waived: tuple[str, ...],
    at: datetime,
) -> AttestationResult:
    verdict, reason = decide(checks)
    report, chain, family = origin.report, origin.chain, origin.family
    if chain is not None:
        ends = {**ends, "chain": min(each.not_after for each in chain.certificates)}
    for each in chosen:
        if each.manifest is not None and not each.expired:
            ends[f"{each.slot.name} manifest"] = min(c.not_after for c in each.manifest.chain)
    pins = [origin.pin, *(each.pin for each in chosen)]
    simulated = any(pin is not None and pin.simulated for pin in pins)
    platform = f"nvidia-{family.chip.lower()}" if family is not None and origin.pin else "nvidia-unknown"
    return AttestationResult(
        tee="nvidia",
        verdict=verdict,
        reason=reason,
        checks=tuple(checks),
        at=at,
        identity=report.identity if report is not None else sha256(evidence),
        platform=f"simulated-{platform}" if simulated else platform,
        simulated=simulated,
        expectations_digest=expectations_digest,
        valid_until=min(ends.values()) if ends else None,
        waived=waived,
        stated=lambda: state_device(report, chain, family, chosen),
    )
