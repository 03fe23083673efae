"""A node's CPU, whichever TEE it has: its report appraised, and what the node's other checks rest on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from attestation.expected import Expectations
from attestation.gpu.node.devices import DevicesAppraisal
from attestation.result import AttestationResult, Check, decide, undecided
from attestation.snp.appraise import appraise_report
from attestation.tdx.appraise import appraise_quote
from attestation.tdx.body import SgxReport
from schemas.proof.evidence import NodeEvidence


@dataclass(frozen=True, slots=True)
class CpuAppraisal:
    """What a CPU's report contributes."""

    result: AttestationResult
    report_data: bytes | None
    """64 bytes; None where no report could be read."""
    chip_id: bytes | None
    """CHIP_ID of an SNP chip, or the PPID of a TDX platform; None where none is proven."""
    image: bytes | None
    """What the guest was measured as: an SNP guest's measurement, a trust domain's MRTD."""


def appraise_cpu(
    stated: NodeEvidence,
    expectations: Expectations | None,
    extra: Sequence[bytes],
    *,
    waive_revocation: bool,
    at: datetime,
) -> CpuAppraisal:
    """This node's CPU report by itself; what it binds is the caller's to check. Raises `Unreadable`."""
    if stated.cpu.tee == "tdx":
        return _appraise_tdx(stated, expectations, extra, waive_revocation=waive_revocation, at=at)
    appraisal = appraise_report(
        stated.cpu.report,
        endorsements=(*stated.cpu.endorsements, *extra),
        expectations=expectations,
        nonce=None,
        waive_revocation=waive_revocation,
        at=at,
    )
    report = appraisal.report
    return CpuAppraisal(appraisal.result, report.report_data, appraisal.chip_id, report.measurement)


def _appraise_tdx(
    stated: NodeEvidence,
    expectations: Expectations | None,
    extra: Sequence[bytes],
    *,
    waive_revocation: bool,
    at: datetime,
) -> CpuAppraisal:
    """A trust domain's quote. Its platform is named by the PPID of the PCK certificate."""
    if expectations is not None and expectations.tdx is None:
        check = undecided("node.tee", "node.tee_unset", "tdx", "a [tdx] table", "DESIGN 14")
        return CpuAppraisal(AttestationResult("tdx", "none", check.code, (check,), at, b""), None, None, None)
    appraisal = appraise_quote(
        stated.cpu.report,
        tee="tdx",
        endorsements=(*stated.cpu.endorsements, *extra),
        policy=expectations.tdx if expectations else None,
        expectations_digest=expectations.digest if expectations else None,
        waived=expectations.waived if expectations else (),
        nonce=None,
        waive_revocation=waive_revocation,
        at=at,
        event_logs=() if stated.event_log is None else (stated.event_log,),
    )
    ppid, body = appraisal.ppid, appraisal.quote.body
    image = None if isinstance(body, SgxReport) else body.mrtd
    return CpuAppraisal(appraisal.result, body.report_data, ppid if ppid and any(ppid) else None, image)


def joined(
    cpu: AttestationResult, devices: DevicesAppraisal | None, checks: Sequence[Check], identity: bytes
) -> AttestationResult:
    """A node's result: the CPU's, with all checks, and the devices' end and simulation taken in."""
    verdict, reason = decide(checks)
    ends = [cpu.valid_until, *([devices.valid_until] if devices is not None else [])]
    known = [end for end in ends if end is not None]
    simulated = cpu.simulated or (devices is not None and devices.simulated)
    plain = cpu.platform.removeprefix("simulated-")
    return cpu._replace(
        tee="node",
        verdict=verdict,
        reason=reason,
        checks=tuple(checks),
        identity=identity,
        platform=f"simulated-{plain}" if simulated else plain,
        simulated=simulated,
        valid_until=min(known) if len(known) == len(ends) else None,
    )
