"""What an appraisal of a report found, and how long it serves for the same guest's next report.

Under one set of inputs, everything but four checks is the same for every report of one guest, until
a certificate or CRL ends or a denial begins. So an appraisal that holds is kept for that long, and a
next report costs one signature. Nothing is kept that a moment outside those bounds could use.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache, partial
from typing import Final

from attestation.expected import Expectations
from attestation.result import AttestationResult, Check, decide
from attestation.snp.expected import SnpPolicy
from attestation.snp.format import check_encoding
from attestation.snp.origin.chain import Chain
from attestation.snp.origin.verify import check_signature
from attestation.snp.policy import check_nonce, check_report_data
from attestation.snp.report import Report, read_next
from attestation.snp.show import state

KEPT_RESULTS: Final = 512  # about 4 KiB each with the evidence
KEPT_GUESTS: Final = 1024  # about 16 KiB each


@dataclass(frozen=True, slots=True)
class SnpAppraisal:
    """A result with the parsed report, for callers that bind more to it (appraise.py)."""

    result: AttestationResult
    report: Report
    chip_id: bytes | None
    """Proven by a VCEK; None under a VLEK, or when chain, chip check or signature fails."""
    chain: Chain | None
    """None when it does not hold."""
    policy: SnpPolicy | None
    """What was demanded of this product line; None when nothing was."""

    def judged_at(self, at: datetime) -> SnpAppraisal:
        """The same finding at another moment within its bounds."""
        return replace(self, result=self.result._replace(at=at))


@dataclass(slots=True)
class Kept:
    """Room for one appraisal that holds, good for exactly one set of inputs and until something ends."""

    appraisal: SnpAppraisal | None = None
    since: float = 0.0
    until: float = 0.0
    """POSIX seconds."""

    def at(self, moment: float) -> SnpAppraisal | None:
        """What is kept, if it holds at this moment."""
        return self.appraisal if self.since <= moment < self.until else None

    def keep(self, appraisal: SnpAppraisal, since: float, until: float) -> None:
        """Keep it if it holds; what does not hold is found anew each time."""
        if appraisal.result.verdict in ("affirming", "warning"):
            self.appraisal, self.since, self.until = appraisal, since, until


def bounds(appraisal: SnpAppraisal, expectations: Expectations | None) -> tuple[float, float]:
    """From when until when this finding cannot change: nothing has ended, no further denial has begun."""
    since = appraisal.result.at.timestamp()
    denials = expectations.denials if expectations else ()
    begin = [denial.effective_from for denial in denials if denial.effective_from > since]
    return since, min([appraisal.result.valid_until or since, *begin])


@lru_cache(maxsize=KEPT_RESULTS)
def room_of_report(
    report: bytes,
    documents: tuple[bytes, ...],
    expectations: Expectations | None,
    nonce: bytes | None,
    waived: bool,
) -> Kept:
    """The room for these inputs: all bytes count, so nothing that could change an answer is left out."""
    del report, documents, expectations, nonce, waived
    return Kept()


@lru_cache(maxsize=KEPT_GUESTS)
def room_of_guest(
    standing: bytes,
    documents: tuple[bytes, ...],
    expectations: Expectations | None,
    asked: bool,
    waived: bool,
) -> Kept:
    """The room for a guest, of whom only report data and signature may differ. `asked`: with a nonce."""
    del standing, documents, expectations, asked, waived
    return Kept()


def next_report(known: SnpAppraisal, data: bytes, nonce: bytes | None, at: datetime) -> SnpAppraisal | None:
    """A report with the standing of `known`, judged by what it may differ in.

    None when its signature is not even well formed: then origin is not looked at, so all must be listed
    anew. That costs no public-key operation.
    """
    report = read_next(known.report, data)
    if known.chain is None or check_encoding(report).status != "pass":
        return None
    chain, policy, result = known.chain, known.policy, known.result
    signature = check_signature(report, chain)
    differing = [] if signature.status == "pass" else [signature]
    if policy is not None and policy.report_data is not None:
        differing.append(check_report_data(report, policy))
    if nonce is not None:
        differing.append(check_nonce(report, nonce))
    identity, stated = report.identity, partial(state, report, chain)
    if differing:
        checks = _replaced(result.checks, differing)
        verdict, reason = decide(checks)
        result = result._replace(verdict=verdict, reason=reason, checks=checks)
    changed = result._replace(at=at, identity=identity, stated=stated)
    chip_id = known.chip_id if signature.status == "pass" else None
    return SnpAppraisal(changed, report, chip_id, chain, policy)


def _replaced(checks: tuple[Check, ...], differing: list[Check]) -> tuple[Check, ...]:
    """The same list of checks, with those of the same names in place of the old ones."""
    new = {check.name: check for check in differing}
    return tuple([new.get(check.name, check) for check in checks])
