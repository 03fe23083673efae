"""One SEV-SNP report, from bytes to verdict: unwrap, format, origin, demands, deny-lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from attestation.endorsements import NOTHING, Endorsements, gather
from attestation.expected import Expectations
from attestation.result import AttestationResult, Check, compared, decide, failed, not_evaluated
from attestation.snp.azure import check_azure
from attestation.snp.chain import AMD_ROOTS
from attestation.snp.deny import check_denials
from attestation.snp.expected import SnpPolicy
from attestation.snp.format import check_format
from attestation.snp.forms import Evidence, unwrap
from attestation.snp.policy import advisories, check_debug, check_nonce, check_policy
from attestation.snp.products import PRODUCTS, Product, product_of_cpuid
from attestation.snp.report import Report, read_report
from attestation.snp.show import state
from attestation.snp.verify import Authentication, authenticate, unreached
from schemas.errors import Unreadable

_ALL_PRODUCTS: Final = frozenset(PRODUCTS)


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
    report = read_report(form.report)
    checks = check_format(report)
    offered = _gather(form, endorsements, checks)
    if any(check.status == "fail" for check in checks):
        authentication = unreached()
    else:
        authentication = authenticate(
            report, offered, expectations.roots if expectations else AMD_ROOTS, at.timestamp(),
            revocation_waived=_revocation_waived(expectations, waive_revocation),
        )  # fmt: skip
    checks += authentication.checks
    policy = _policy(report, authentication, expectations)
    if form.azure is not None:
        wanted = policy.pcrs if policy else {}
        checks += check_azure(form.azure, report.report_data, nonce=nonce, wanted=wanted)
    elif nonce is not None:
        checks.append(check_nonce(report, nonce))
    checks += _demands(report, authentication, expectations, policy, at.timestamp())
    waived = ("revocation",) if waive_revocation else ()
    return _concluded(report, authentication, checks, expectations, waived, at)


def _gather(form: Evidence, endorsements: Sequence[bytes], checks: list[Check]) -> Endorsements:
    try:
        return gather((*form.endorsements, *endorsements))
    except Unreadable as error:
        code = error.code if error.code.startswith("snp.") else "snp.cert.malformed"
        checks.append(
            failed("snp.endorsements", code, error.text, "certificates, CRLs, tables", "GHCB 4.1.8.1")
        )
        return NOTHING


def _revocation_waived(expectations: Expectations | None, waived: bool) -> frozenset[str]:
    """Product lines for which a missing CRL is forgiven."""
    if waived:
        return _ALL_PRODUCTS
    if expectations is None or expectations.snp is None:
        return frozenset()
    return frozenset(name for name, policy in expectations.snp.items() if policy.revocation == "any")


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
        checks += check_policy(report, policy, found.chain, found.claims)
    return [*checks, *check_denials(report, found.chain, found.claims, expectations.denials, at)]


def _product_allowed(product: Product | None, expectations: Expectations) -> Check:
    name, clause, accepted = "snp.product_allowed", "[snp] products", expectations.snp or {}
    wanted = ", ".join(accepted) or "no [snp] is expected"
    if product is None and accepted:
        return not_evaluated(name, "the product is not known", clause)
    seen = product.name if product else "unknown"
    return compared(name, "snp.deny.product", seen in accepted, seen, wanted, clause)


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
        advisories=advisories(report),
        stated=lambda: state(report, chain),
    )
    claims = found.claims
    bound = (
        claims is not None and claims.hwid is not None and result.check("snp.cert.chip_id").status == "pass"
    )
    return SnpAppraisal(result, report, report.chip_id if bound else None)
