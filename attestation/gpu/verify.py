"""Is this genuine device evidence: form, challenge, chain, signature, firmware id (gpu.md 1, 3, 4).

No I/O, no clock. Every link is checked, whatever the others say, so that a wrong challenge never hides a
wrong signature. Manifests are gpu/rim, revocation gpu/revocation, a relying party's demands gpu/policy.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache, partial
from typing import Final

from attestation.gpu.pki.chain import CACHED_CHAINS, DeviceChain, Family, family_of, leaf_fwid, read_chain
from attestation.gpu.pki.constraints import hold_chain
from attestation.gpu.pki.roots import Roots
from attestation.gpu.pki.signature import verify_link, verify_report
from attestation.gpu.side import Start
from attestation.gpu.spdm.opaque import CHIP_INFO, DRIVER, FWID
from attestation.gpu.spdm.report import Report, read_report
from attestation.pki.pins import Pin
from attestation.result import Check, compared, failed, not_evaluated, passed, undecided
from schemas.errors import ComityError, Refused, Undecided

MAX_PADDING: Final = 16  # bytes of zero behind the signature that a policy may tolerate
FWID_SINCE: Final = (550,)  # driver branch from which every GPU states its firmware id

_SPDM: Final = "DMTF DSP0274 1.1"
_CHAIN: Final = "gpu.md 3; RFC 5280 6.1"


@dataclass(frozen=True, slots=True)
class Origin:
    """What was found about where a report comes from. A part that does not hold is None."""

    checks: Callable[[], list[Check]]
    """All of them, in the order of their reasons. Asks for the signatures, and waits for those under way."""
    report: Report | None
    chain: DeviceChain | None
    family: Family | None
    pin: Pin | None


def authenticate(
    data: bytes,
    certificates: Sequence[bytes] | None,
    roots: Roots,
    at: float,
    *,
    nonce: bytes | None,
    padding: str = "refuse",
    fwid: str = "from-550",
    start: Start = partial,
) -> Origin:
    """Every link from the root to the report. Raises `Unreadable` when the bytes are no report.

    certificates: the device's chain in DER, leaf first; None = none was offered. nonce: our challenge. start:
    how signature checks begin; none is made before its result is asked for, or until `start` says so.
    1. form; 2. challenge; 3. the chain, from the pinned root; 4. the firmware id; 5. all signatures.
    """
    report, form = _form(data, padding)
    challenge = check_nonce(report, nonce)
    chain, chained = _chain(certificates)
    root, constraints, validity = _root(chain, roots), _constraints(chain), _validity(chain, at)
    family, families = _family(chain, report)
    firmware, pdi = check_fwid(report, chain, family, fwid), _own_pdi(report, chain, family)
    links, signature = _links(chain, start), _signature(report, chain, start)

    def checks() -> list[Check]:
        return [
            form, challenge, chained, root, links(), constraints, validity, families, signature(), firmware,
            pdi,
        ]  # fmt: skip

    return Origin(checks, report, chain, family, _pin(chain, roots))


def read_ahead(certificates: tuple[bytes, ...]) -> DeviceChain:
    """A chain with all that is asked of it but signatures, for `authenticate` to know. Raises `Refused`.

    For who has several devices: chains that are read in a row find in the processor's caches what reads them.
    A board that was never seen takes 1 percent longer without (median of 16 series of paired rounds).
    """
    chain = _held(read_chain(certificates))
    family_of(chain)
    leaf_fwid(chain)
    return chain


def from_error(name: str, error: ComityError, wanted: str, clause: str) -> Check:
    """The check that an error makes: a gap for `Undecided`, a failure for anything else."""
    make: Callable[[str, str, str, str, str], Check] = undecided if isinstance(error, Undecided) else failed
    return make(name, error.code, error.text, wanted, clause)


def date(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC).isoformat()[:19]}Z"


def _form(data: bytes, padding: str) -> tuple[Report | None, Check]:
    name, wanted = "gpu.report.form", "one report and nothing else"
    try:
        report = read_report(data)
    except Refused as error:
        return None, from_error(name, error, wanted, _SPDM)
    tail = report.tail
    if not tail:
        return report, passed(name, f"{len(report.measurements)} blocks", wanted, _SPDM)
    if padding == "zero" and len(tail) <= MAX_PADDING and not any(tail):
        return report, passed(name, f"{len(tail)} bytes of zero padding, tolerated", wanted, _SPDM)
    return report, failed(
        name, "gpu.report_trailing_bytes", f"{len(tail)} bytes behind the signature", wanted, _SPDM
    )


def check_nonce(report: Report | None, nonce: bytes | None) -> Check:
    """The challenge stands in the request, which the device signs with its answer (DSP0274 10.11)."""
    name = "gpu.nonce"
    if report is None or nonce is None:
        why = "no report" if report is None else f"no challenge was given: {report.nonce.hex()}"
        return not_evaluated(name, why, _SPDM)
    holds = report.nonce == nonce
    return compared(name, "gpu.nonce_mismatch", holds, report.nonce.hex(), nonce.hex(), _SPDM)


def _chain(certificates: Sequence[bytes] | None) -> tuple[DeviceChain | None, Check]:
    name, wanted = "gpu.chain.form", "five certificates, leaf first"
    try:
        if certificates is None:
            raise Undecided("gpu.chain_unavailable", "no device chain was offered")
        chain = read_chain(tuple(certificates))
    except (Refused, Undecided) as error:
        return None, from_error(name, error, wanted, _CHAIN)
    return chain, passed(name, f"{chain.leaf.common_name}, {chain.ueid}", wanted, _CHAIN)


def _pin(chain: DeviceChain | None, roots: Roots) -> Pin | None:
    return None if chain is None else roots.device.get(chain.root.spki_fingerprint)


def _root(chain: DeviceChain | None, roots: Roots) -> Check:
    name, clause = "gpu.chain.root", "DESIGN 4: roots are pinned by digest"
    if chain is None:
        return not_evaluated(name, "no chain", _CHAIN)
    try:
        pin = roots.pin_of(chain.root, "device")
    except Refused as error:
        return failed(name, "gpu.chain_root_untrusted", error.text, "a pinned root", clause)
    seen = f"simulated root {pin.name}, listed explicitly" if pin.simulated else chain.root.common_name
    return passed(name, seen, "a pinned root", clause)


def _links(chain: DeviceChain | None, start: Start) -> Callable[[], Check]:
    """Each certificate is signed by the next, the root by itself (RFC 5280 6.1.3 a 1)."""
    name, wanted = "gpu.chain.signatures", "each signed by the next"
    if chain is None:
        return lambda: not_evaluated(name, "no chain", _CHAIN)
    listed = chain.certificates
    pairs = zip(listed, [*listed[1:], listed[-1]], strict=True)
    begun = [start(verify_link, child.der, parent.der) for child, parent in pairs]

    def check() -> Check:
        try:
            for verified in begun:
                verified()
        except Refused as error:
            return failed(name, "gpu.chain_signature_invalid", error.text, wanted, _CHAIN)
        return passed(name, f"{len(begun)} signatures", wanted, _CHAIN)

    return check


def _constraints(chain: DeviceChain | None) -> Check:
    name, wanted = "gpu.chain.constraints", "a chain of issuers"
    if chain is None:
        return not_evaluated(name, "no chain", _CHAIN)
    try:
        _held(chain)
    except Refused as error:
        return failed(name, "gpu.chain_constraint_violation", error.text, wanted, _CHAIN)
    return passed(name, "holds", wanted, _CHAIN)


@lru_cache(maxsize=CACHED_CHAINS)
def _held(chain: DeviceChain) -> DeviceChain:
    """Names, key ids, authority flags, path lengths, usages, critical extensions (RFC 5280 6.1.4)."""
    hold_chain(chain.certificates)
    return chain


def _validity(chain: DeviceChain | None, at: float) -> Check:
    """All at the stated time (RFC 5280 4.1.2.5)."""
    name = "gpu.chain.validity"
    if chain is None:
        return not_evaluated(name, "no chain", _CHAIN)
    for each in chain.certificates:
        if not each.not_before <= at <= each.not_after:
            seen = f"{each.common_name} from {date(each.not_before)} until {date(each.not_after)}"
            return failed(name, "gpu.chain_not_valid_at_time", seen, date(at), _CHAIN)
    return passed(name, "all valid", "valid at the stated time", _CHAIN)


def _family(chain: DeviceChain | None, report: Report | None) -> tuple[Family | None, Check]:
    """Leaf, boot ROM, provisioner, identity and the report itself speak of one chip (gpu.md 3)."""
    name, wanted = "gpu.chain.family", "one chip family throughout"
    if chain is None:
        return None, not_evaluated(name, "no chain", _CHAIN)
    try:
        family = family_of(chain)
        if report is not None:
            _hold_report(report, family)
    except Refused as error:
        code = "gpu.chain_family_mismatch" if error.code == "constraint" else error.code
        return None, failed(name, code, error.text, wanted, _CHAIN)
    return family, passed(name, f"{family.chip} ({family.architecture})", wanted, _CHAIN)


def _hold_report(report: Report, family: Family) -> Report:
    kind = "switch" if report.opaque.is_switch else "gpu"
    if kind != family.kind:
        raise Refused("gpu.chain_family_mismatch", f"report of a {kind} under the chain of a {family.kind}")
    chip = report.opaque.text(CHIP_INFO)
    if chip is not None and chip not in family.products:
        raise Refused("gpu.chain_family_mismatch", f"chip info {chip} under the chain of {family.chip}")
    return report


def check_signature(report: Report | None, chain: DeviceChain | None) -> Check:
    """Over the bytes as received, on every call: nothing about a report itself is remembered."""
    return _signature(report, chain, partial)()


def _signature(report: Report | None, chain: DeviceChain | None, start: Start) -> Callable[[], Check]:
    name, wanted = "gpu.report.signature", "signed by the leaf's key"
    if report is None or chain is None:
        missing = "no report" if report is None else "no chain"
        return lambda: not_evaluated(name, missing, _SPDM)
    verified = start(verify_report, chain.leaf.der, report.signature, report.signed)

    def check() -> Check:
        try:
            verified()
        except Refused as error:
            return failed(name, "gpu.report_signature_invalid", error.text, wanted, _SPDM)
        return passed(name, "verifies", wanted, _SPDM)

    return check


def check_fwid(report: Report | None, chain: DeviceChain | None, family: Family | None, rule: str) -> Check:
    """The firmware that reports is the firmware that the boot ROM certified: match, mismatch or absent.

    rule: `required`, `if-present`, or `from-550` = required for GPUs whose driver is that new. Absence is
    never taken for a match; a switch whose firmware states none is not held to it (gpu.md 4).
    """
    name, clause = "gpu.fwid", "gpu.md 4; DICE Attestation Architecture 6.1.1"
    if report is None or chain is None:
        return not_evaluated(name, "no report" if report is None else "no chain", clause)
    try:
        certified = leaf_fwid(chain)
    except Refused as error:
        code = "gpu.chain_constraint_violation" if error.code == "constraint" else error.code
        return failed(name, code, error.text, "a firmware id", clause)
    stated = report.opaque.fields.get(FWID)
    if stated is not None and certified is not None:
        return compared(
            name, "gpu.fwid_mismatch", stated == certified, f"{_match(stated == certified)}: {stated.hex()}",
            certified.hex(), clause,
        )  # fmt: skip
    seen = f"absent from the {'report' if stated is None else 'leaf'}"
    if _fwid_demanded(report, family, rule):
        return failed(name, "gpu.fwid_absent", seen, "stated by both", clause)
    return not_evaluated(name, seen, clause)


def _match(holds: bool) -> str:
    return "match" if holds else "mismatch"


def _fwid_demanded(report: Report, family: Family | None, rule: str) -> bool:
    if rule == "if-present" or (family is not None and family.kind == "switch"):
        return False
    return rule == "required" or version_of(report.opaque.text(DRIVER)) >= FWID_SINCE


def version_of(text: str | None) -> tuple[int, ...]:
    """A dotted decimal version as numbers; what is no number counts as nothing."""
    return tuple(int(part) if part.isdecimal() else -1 for part in (text or "").split("."))


def _own_pdi(report: Report | None, chain: DeviceChain | None, family: Family | None) -> Check:
    """A switch names itself by the id in its boot ROM's certificate (gpu.md 11, rule 1)."""
    name, clause = "gpu.switch.pdi", "gpu.md 11"
    if report is None or chain is None or family is None or family.kind != "switch":
        return not_evaluated(name, "not a switch", clause)
    own, certified = report.opaque.own_pdi, chain.pdi
    if own is None or certified is None:
        return not_evaluated(name, "no id is stated", clause)
    return compared(
        name, "gpu.topology_pdi_cert_mismatch", own == certified, own.hex(), certified.hex(), clause
    )
