"""Is this report genuine: from the certificates that were offered to the signature over its bytes.

No I/O, no clock: the time is an argument. Nothing here asks what the relying party wants; that is
snp/policy.py. TCB and chip are compared here, where nobody can forget it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from attestation.endorsements import Endorsements
from attestation.result import Check, compared, failed, not_evaluated, passed, undecided
from attestation.snp.origin.chain import Chain, Roots, check_root, choose, leaf_claims, verify_chain
from attestation.snp.origin.leaf import LeafClaims, tcb_text
from attestation.snp.origin.revocation import check_revocation
from attestation.snp.products import Pin, product_of_cpuid
from attestation.snp.report import SIGNING_KEYS, Report
from schemas.errors import ComityError, Refused, Undecided

NAMES: Final = (
    "snp.chain",
    "snp.root",
    "snp.cert.validity",
    "snp.crl",
    "snp.cert.extensions",
    "snp.cert.signer",
    "snp.cert.product",
    "snp.cert.tcb",
    "snp.cert.chip_id",
    "snp.signature",
)
"""Names of the checks, in the order in which they are made."""

_ECDSA: Final = ec.ECDSA(hashes.SHA384())


@dataclass(frozen=True, slots=True)
class Binding:
    """How a leaf and a report fit together."""

    checks: tuple[Check, ...]
    claims: LeafClaims | None
    chip_holds: bool


@dataclass(frozen=True, slots=True)
class Authentication:
    """What was found about a report's origin. `chain` is None when it does not hold."""

    checks: list[Check]
    chain: Chain | None = None
    claims: LeafClaims | None = None
    pin: Pin | None = None
    valid_until: float | None = None
    chip_proven: bool = False


def authenticate(
    report: Report, offered: Endorsements, roots: Roots, at: float, *, revocation_waived: frozenset[str]
) -> Authentication:
    """Every check of a well-formed report's origin, in order; what cannot be reached is listed as such.

    1. choose leaf, intermediate and root from what was offered, and verify the chain;
    2. the root is pinned; 3. all three are valid at `at`; 4. none is revoked;
    5. the leaf's extensions agree with the report; 6. the report's signature.
    """
    try:
        chain = verify_chain(choose(report, offered, roots, at))
    except (Refused, Undecided) as error:
        first = _from_error("snp.chain", error, "ARK, ASK or ASVK, and leaf", "AMD 57230 certificate chain")
        return Authentication([first, *_unreached(NAMES[1:])])
    root, pin = _root(chain, roots)
    waived = chain.product.name in revocation_waived
    crl, next_update = check_revocation(offered.crls, chain, at, waived=waived)
    binding, signature = _binding(report, chain), check_signature(report, chain)
    checks = [_linked(chain), root, _validity(chain, at), crl, *binding.checks, signature]
    valid_until = chain.not_after if next_update is None else min(chain.not_after, next_update)
    chip_proven = binding.chip_holds and pin is not None and signature.status == "pass"
    return Authentication(checks, chain, binding.claims, pin, valid_until, chip_proven)


def _binding(report: Report, chain: Chain) -> Binding:
    """The leaf's extensions against what the report states."""
    clause, wanted = "AMD 57230 VCEK and VLEK extensions", "the extension set of its kind"
    try:
        claims = leaf_claims(chain)
    except Refused as error:
        first = _from_error("snp.cert.extensions", error, wanted, clause)
        return Binding((first, *_unreached(NAMES[5:9])), None, False)
    chip = _chip(report, claims)
    checks = (
        passed("snp.cert.extensions", _described(chain, claims), wanted, clause),
        _signer(report, chain),
        _product(report, chain, claims),
        _tcb(report, chain, claims),
        chip,
    )
    return Binding(checks, claims, chip.status == "pass")


def _described(chain: Chain, claims: LeafClaims) -> str:
    text = f"{chain.kind} for {claims.product_name}"
    return text if claims.csp_id is None else f"{text}, provider {claims.csp_id}"


def _from_error(name: str, error: ComityError, wanted: str, clause: str) -> Check:
    make: Callable[[str, str, str, str, str], Check] = undecided if isinstance(error, Undecided) else failed
    return make(name, error.code, error.text, wanted, clause)


def _unreached(names: tuple[str, ...]) -> list[Check]:
    return [not_evaluated(name, "not reached") for name in names]


def unreached() -> Authentication:
    """For a report that is not even well formed."""
    return Authentication(_unreached(NAMES))


def _linked(chain: Chain) -> Check:
    seen = f"{chain.ark.common_name} → {chain.intermediate.common_name} → {chain.leaf.common_name}"
    wanted = "three linked certificates, RSASSA-PSS SHA-384"
    return passed("snp.chain", seen, wanted, "AMD 57230 certificate chain")


def _root(chain: Chain, roots: Roots) -> tuple[Check, Pin | None]:
    clause = "DESIGN 4: roots are pinned by digest"
    try:
        pin = check_root(chain, roots)
    except Refused as error:
        return _from_error("snp.root", error, "a pinned root", clause), None
    seen = f"simulated root {pin.name}, listed explicitly" if pin.simulated else chain.ark.common_name
    return passed("snp.root", seen, "a pinned root", clause), pin


def _validity(chain: Chain, at: float) -> Check:
    """All three at the stated time (RFC 5280 4.1.2.5), the leaf first."""
    name, clause = "snp.cert.validity", "RFC 5280 4.1.2.5"
    for each in (chain.leaf, chain.intermediate, chain.ark):
        if at < each.not_before:
            seen = f"{each.common_name} from {_date(each.not_before)}"
            return failed(name, "snp.cert.not_yet_valid", seen, _date(at), clause)
        if at > each.not_after:
            seen = f"{each.common_name} until {_date(each.not_after)}"
            return failed(name, "snp.cert.expired", seen, _date(at), clause)
    return _ALL_VALID


_ALL_VALID: Final = passed(
    "snp.cert.validity", "all three valid", "valid at the stated time", "RFC 5280 4.1.2.5"
)


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _signer(report: Report, chain: Chain) -> Check:
    """SIGNING_KEY, common name, intermediate and extension set all name the same kind of key."""
    stated = SIGNING_KEYS[report.signing_key]
    return compared(
        "snp.cert.signer", "snp.cert.signer_mismatch", stated == chain.kind, chain.kind, stated,
        "AMD 56860 KEY_INFO.SIGNING_KEY",
    )  # fmt: skip


def _product(report: Report, chain: Chain, claims: LeafClaims) -> Check:
    """Certificate, intermediate and CPUID agree, and the report's TCBs have that product's layout."""
    name, clause = "snp.cert.product", "AMD 57230 productName; AMD 56860 TCB_VERSION"
    product = chain.product
    if claims.product_name.partition("-")[0] != product.name:
        return failed(name, "snp.cert.product_mismatch", claims.product_name, product.name, clause)
    cpu = product_of_cpuid(*report.cpuid[:2]) if report.version >= 3 else product
    if cpu is not product:
        seen = cpu.name if cpu else "unknown CPUID"
        return failed(name, "snp.cert.product_mismatch", seen, product.name, clause)
    if any(product.layout.has_reserved(tcb) for tcb in set(report.tcbs().values())):
        return failed(name, "snp.report.reserved_nonzero", "a reserved part of a TCB", "zero", clause)
    return passed(name, claims.product_name, product.name, clause)


def _tcb(report: Report, chain: Chain, claims: LeafClaims) -> Check:
    """REPORTED selects the key (not CURRENT), so its every part stands in the certificate."""
    name, clause = "snp.cert.tcb", "AMD 57230 SPL extensions; AMD 56860 REPORTED_TCB"
    if report.reported_tcb == claims.raw_tcb:
        return passed(name, claims.tcb_text, claims.tcb_text, clause)
    reported = tcb_text(chain.product.layout.read(report.reported_tcb))
    return failed(name, "snp.cert.tcb_mismatch", claims.tcb_text, reported, clause)


def _chip(report: Report, claims: LeafClaims) -> Check:
    """A VCEK belongs to one chip. A masked, all-zero CHIP_ID never turns the check off."""
    name, clause = "snp.cert.chip_id", "AMD 57230 hwID; AMD 56860 CHIP_ID"
    if claims.hwid is None:
        return not_evaluated(name, "a VLEK is bound to no chip", clause)
    expected = claims.hwid.ljust(len(report.chip_id), b"\0")
    holds = report.chip_id == expected and any(report.chip_id)
    return compared(name, "snp.cert.chip_id_mismatch", holds, report.chip_id.hex(), claims.hwid.hex(), clause)


def check_signature(report: Report, chain: Chain) -> Check:
    """ECDSA P-384 with SHA-384 over 0x000..0x29F (AMD 56860 SIGNATURE), over the bytes as received."""
    name, clause = "snp.signature", "AMD 56860 SIGNATURE; FIPS 186-5 6.4.2"
    wanted = f"ECDSA P-384 by this {chain.kind}"
    try:
        chain.leaf_key.verify(encode_dss_signature(report.r, report.s), report.signed, _ECDSA)
    except InvalidSignature:
        return failed(name, "snp.signature.invalid", "does not verify", wanted, clause)
    return passed(name, "verifies", wanted, clause)
