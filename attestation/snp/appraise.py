"""One SEV-SNP report, from bytes to verdict: unwrap, format, origin, demands, deny-lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from typing import Final

from attestation.endorsements import NOTHING, Endorsements, gather, memorable
from attestation.expected import Expectations
from attestation.result import AttestationResult, Check, decide, failed, not_evaluated, passed
from attestation.snp.azure import check_azure
from attestation.snp.chain import AMD_ROOTS
from attestation.snp.deny import check_denials
from attestation.snp.expected import SnpPolicy
from attestation.snp.format import check_encoding, check_layout
from attestation.snp.forms import Evidence, unwrap
from attestation.snp.policy import (
    advisories,
    check_debug,
    check_nonce,
    check_report_data,
    check_standing,
)
from attestation.snp.products import PRODUCTS, Product, product_of_cpuid
from attestation.snp.report import CACHED_STANDINGS, Report, read_report, read_standing
from attestation.snp.show import state
from attestation.snp.verify import Authentication, authenticate, unreached
from schemas.errors import Unreadable

KEPT_RESULTS: Final = 512  # about 16 KiB each with the evidence
_ALL_PRODUCTS: Final = frozenset(PRODUCTS)
_NONE: Final[frozenset[str]] = frozenset()


@dataclass(frozen=True, slots=True)
class SnpAppraisal:
    """A result with the parsed report, for callers that bind more to it (appraise.py)."""

    result: AttestationResult
    report: Report
    chip_id: bytes | None
    """Proven by a VCEK; None under a VLEK, or when the chain or the chip check fails."""


def appraise_report(
    evidence: bytes | Evidence,
    *,
    endorsements: Sequence[bytes],
    expectations: Expectations | None,
    nonce: bytes | None,
    waive_revocation: bool,
    at: datetime,
) -> SnpAppraisal:
    """Appraise a report in any supported form at the time `at`.

    nonce: the whole report data that the caller demands (64 bytes), or the nonce of a vTPM quote.
    Raises `Unreadable` when the bytes are no report; everything else is in the result.
    """
    form = evidence if isinstance(evidence, Evidence) else unwrap(evidence)
    kept = None
    documents = (*form.endorsements, *endorsements)
    if form.azure is None and memorable(documents):
        kept = _kept(form.report, documents, expectations, nonce, waive_revocation)
        if kept.appraisal is not None and kept.since <= at.timestamp() < kept.until:
            return replace(kept.appraisal, result=replace(kept.appraisal.result, at=at))
    appraisal = _appraise(form, endorsements, expectations, nonce, waive_revocation, at)
    if kept is not None and appraisal.result.verdict == "affirming":
        kept.keep(appraisal, expectations)
    return appraisal


@dataclass(slots=True)
class _Kept:
    """Room for one affirming result, good for exactly these inputs and until something ends."""

    appraisal: SnpAppraisal | None = None
    since: float = 0.0
    until: float = 0.0

    def keep(self, appraisal: SnpAppraisal, expectations: Expectations | None) -> None:
        since = appraisal.result.at.timestamp()
        ends = [appraisal.result.valid_until or since]
        ends += [
            denial.effective_from
            for denial in (expectations.denials if expectations else ())
            if denial.effective_from > since
        ]
        self.appraisal, self.since, self.until = appraisal, since, min(ends)


@lru_cache(maxsize=KEPT_RESULTS)
def _kept(
    report: bytes,
    documents: tuple[bytes, ...],
    expectations: Expectations | None,
    nonce: bytes | None,
    waived: bool,
) -> _Kept:
    """The room for these inputs: all bytes count, so nothing that could change an answer is left out."""
    del report, documents, expectations, nonce, waived
    return _Kept()


def _appraise(
    form: Evidence,
    endorsements: Sequence[bytes],
    expectations: Expectations | None,
    nonce: bytes | None,
    waive_revocation: bool,
    at: datetime,
) -> SnpAppraisal:
    """1. format; 2. what was offered; 3. origin; 4. freshness; 5. demands; 6. conclusion."""
    report = read_report(form.report)
    checks = [*_layout(report.standing), check_encoding(report)]
    offered = _gather(form, endorsements, checks)
    waived = _ALL_PRODUCTS if waive_revocation else expectations.revocation_waived if expectations else _NONE
    if any(check.status == "fail" for check in checks):
        found = unreached()
    else:
        roots = expectations.roots if expectations else AMD_ROOTS
        found = authenticate(report, offered, roots, at.timestamp(), revocation_waived=waived)
    checks += found.checks
    policy = _policy(report, found, expectations)
    if form.azure is not None:
        pcrs = policy.pcrs if policy else {}
        checks += check_azure(form.azure, report.report_data, nonce=nonce, wanted=pcrs)
    elif nonce is not None:
        checks.append(check_nonce(report, nonce))
    checks += _demands(report, found, expectations, policy, at.timestamp())
    named = ("revocation",) if waive_revocation else ()
    return _concluded(report, found, checks, expectations, named, at)


@lru_cache(maxsize=CACHED_STANDINGS)
def _layout(standing: bytes) -> tuple[Check, ...]:
    """What is always the same in a guest's reports is held to the format once."""
    return tuple(check_layout(read_standing(standing)))


def _gather(form: Evidence, endorsements: Sequence[bytes], checks: list[Check]) -> Endorsements:
    try:
        return gather((*form.endorsements, *endorsements))
    except Unreadable as error:
        code = error.code if error.code.startswith("snp.") else "snp.cert.malformed"
        checks.append(
            failed("snp.endorsements", code, error.text, "certificates, CRLs, tables", "GHCB 4.1.8.1")
        )
        return NOTHING


def _product(report: Report, found: Authentication) -> Product | None:
    """As the verified chain says; before that, as the CPUID says."""
    return found.chain.product if found.chain else product_of_cpuid(*report.cpuid[:2])


def _policy(report: Report, found: Authentication, expectations: Expectations | None) -> SnpPolicy | None:
    product = _product(report, found)
    if expectations is None or expectations.snp is None or product is None:
        return None
    return expectations.snp.get(product.name)


def _demands(
    report: Report,
    found: Authentication,
    expectations: Expectations | None,
    policy: SnpPolicy | None,
    at: float,
) -> list[Check]:
    debug = check_debug(report, allowed=policy is not None and policy.debug == "any")
    if expectations is None:
        return [debug]
    checks = [debug, _product_allowed(_product(report, found), expectations)]
    if policy is not None:
        csp = found.claims.csp_id if found.claims else None
        checks.append(check_report_data(report, policy))
        checks += check_standing(report.standing, policy, found.chain, csp)
    return [*checks, *check_denials(report, found.chain, found.claims, expectations.denials, at)]


def _product_allowed(product: Product | None, expectations: Expectations) -> Check:
    name, clause, accepted = "snp.product_allowed", "[snp] products", expectations.snp or {}
    if product is not None and product.name in accepted:
        return passed(name, product.name, "an accepted line", clause)
    if product is None and accepted:
        return not_evaluated(name, "the product is not known", clause)
    wanted = ", ".join(accepted) or "no [snp] is expected"
    return failed(name, "snp.deny.product", product.name if product else "unknown", wanted, clause)


def _concluded(
    report: Report,
    found: Authentication,
    checks: list[Check],
    expectations: Expectations | None,
    waived: tuple[str, ...],
    at: datetime,
) -> SnpAppraisal:
    verdict, reason = decide(checks)
    chain, simulated = found.chain, bool(found.pin and found.pin.simulated)
    platform = f"snp-{chain.product.name.lower()}" if chain and found.pin else "snp-unknown"
    result = AttestationResult(
        tee="snp",
        verdict=verdict,
        reason=reason,
        checks=tuple(checks),
        at=at,
        identity=report.identity,
        platform=f"simulated-{platform}" if simulated else platform,
        simulated=simulated,
        debug=report.debug,
        expectations_digest=expectations.digest if expectations else None,
        valid_until=found.valid_until,
        waived=(*waived, *(expectations.waived if expectations else ())),
        advisories=advisories(report.standing),
        stated=lambda: state(report, chain),
    )
    return SnpAppraisal(result, report, report.chip_id if found.chip_proven else None)
