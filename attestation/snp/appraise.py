"""One SEV-SNP report, from bytes to verdict: unwrap, format, origin, demands, deny-lists."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from attestation.endorsements import NOTHING, Endorsements, gather, memorable
from attestation.expected import Expectations
from attestation.result import AttestationResult, Check, decide, failed, not_evaluated, passed
from attestation.snp.appraisal import SnpAppraisal, bounds, next_report, room_of_guest, room_of_report
from attestation.snp.azure import check_azure, check_no_vtpm
from attestation.snp.deny import check_denials
from attestation.snp.expected import SnpPolicy
from attestation.snp.format import check_encoding, check_layout
from attestation.snp.forms import Evidence, unwrap
from attestation.snp.origin.chain import AMD_ROOTS
from attestation.snp.origin.verify import Authentication, authenticate, unreached
from attestation.snp.policy import (
    advisories,
    check_debug,
    check_demands,
    check_nonce,
    check_report_data,
)
from attestation.snp.products import PRODUCTS, Product, product_of_cpuid
from attestation.snp.report import Report, read_report, standing_of
from attestation.snp.show import state
from schemas.errors import Unreadable

_ALL_PRODUCTS: Final = frozenset(PRODUCTS)
_NONE: Final[frozenset[str]] = frozenset()


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
    documents = (*form.endorsements, *endorsements)
    if form.azure is not None or not memorable(documents):
        return _appraise(form, documents, expectations, nonce, waive_revocation, at)
    moment = at.timestamp()
    same = room_of_report(form.report, documents, expectations, nonce, waive_revocation)
    if (kept := same.at(moment)) is not None:
        return kept.judged_at(at)
    standing = standing_of(form.report)
    guest = room_of_guest(standing, documents, expectations, nonce is not None, waive_revocation)
    if (kept := guest.at(moment)) is not None and (found := next_report(kept, form.report, nonce, at)):
        same.keep(found, guest.since, guest.until)
        return found
    found = _appraise(form, documents, expectations, nonce, waive_revocation, at)
    for room in (same, guest):
        room.keep(found, *bounds(found, expectations))
    return found


def _appraise(
    form: Evidence,
    documents: tuple[bytes, ...],
    expectations: Expectations | None,
    nonce: bytes | None,
    waive_revocation: bool,
    at: datetime,
) -> SnpAppraisal:
    """1. format; 2. what was offered; 3. origin; 4. freshness; 5. demands; 6. conclusion."""
    report = read_report(form.report)
    checks = [*check_layout(report), check_encoding(report)]
    offered = _gather(documents, checks)
    waived = _ALL_PRODUCTS if waive_revocation else expectations.revocation_waived if expectations else _NONE
    if any(check.status == "fail" for check in checks):
        found = unreached()
    else:
        roots = expectations.roots if expectations else AMD_ROOTS
        found = authenticate(report, offered, roots, at.timestamp(), revocation_waived=waived)
    checks += found.checks
    policy = _policy(report, found, expectations)
    pcrs = policy.pcrs if policy else {}
    if form.azure is not None:
        checks += check_azure(form.azure, report.report_data, nonce=nonce, wanted=pcrs)
    else:
        checks += [check_nonce(report, nonce)] if nonce is not None else []
        checks += [check_no_vtpm(pcrs)] if pcrs else []
    checks += _demands(report, found, expectations, policy, at.timestamp())
    named = ("revocation",) if waive_revocation else ()
    return _concluded(report, found, checks, expectations, policy, named, at)


def _gather(documents: tuple[bytes, ...], checks: list[Check]) -> Endorsements:
    try:
        return gather(documents)
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
        checks += check_demands(report, policy, found.chain, csp)
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
    policy: SnpPolicy | None,
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
    return SnpAppraisal(result, report, report.chip_id if found.chip_proven else None, chain, policy)
