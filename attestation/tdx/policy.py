"""Is this genuine quote what the relying party asked for (`QuotePolicy`), check by check.

Debug and the TCB status are judged always; everything else only where expectations state it. Every
mismatch is listed, not only the first, and none is skipped because a field is absent.
"""

from __future__ import annotations

import hmac
from typing import Final

from attestation.result import Check, compared, failed, not_evaluated, passed
from attestation.tdx.body import TD_ATTRIBUTES, SgxReport, TdReport
from attestation.tdx.expected import Mask, QuotePolicy
from attestation.tdx.quote import Quote

_TD: Final = "Intel TDX module: TDREPORT"
_SGX: Final = "Intel SDM vol. 3D: REPORT"


def check_debug(quote: Quote, policy: QuotePolicy) -> Check:
    """Debug lets the host read the guest's memory: refused unless waived, expectations or not."""
    name, clause = "tdx.policy.debug", "Intel TDX module: TDATTRIBUTES.TUD; SDM: ATTRIBUTES.DEBUG"
    body = quote.body
    seen = (body.td_attributes if isinstance(body, TdReport) else body.attributes).hex()
    if body.debug and policy.debug == "any":
        return not_evaluated(name, f"waived; debug is on: {seen}", clause)
    return compared(name, "tdx.debug_enabled", not body.debug, seen, "debug off", clause)


def check_nonce(quote: Quote, nonce: bytes) -> Check:
    """The caller's challenge is the whole report data, compared in constant time."""
    seen = quote.body.report_data
    return compared(
        "tdx.policy.nonce", "tdx.report_data_mismatch", hmac.compare_digest(seen, nonce),
        seen.hex(), nonce.hex(), "DCAP quote format: REPORTDATA",
    )  # fmt: skip


def check_report_data(quote: Quote, policy: QuotePolicy) -> Check:
    """The one reference value that every quote of a guest may meet or miss anew."""
    return _identity("report_data", quote.body.report_data, policy, _TD if quote.tee == "tdx" else _SGX)


def check_demands(quote: Quote, policy: QuotePolicy) -> list[Check]:
    """Every reference value of the policy. Their number does not depend on what the report says."""
    body = quote.body
    clause = _TD if quote.tee == "tdx" else _SGX
    checks = [_identity(name, getattr(body, name), policy, clause) for name in policy.identities]
    codes = {"xfam": "tdx.xfam_not_allowed"}
    checks += [
        _mask(name, codes.get(name, "tdx.td_attributes_not_allowed"), getattr(body, name), mask, clause)
        for name, mask in policy.masks.items()
    ]
    if isinstance(body, SgxReport):
        return [*checks, *_enclave(body, policy)]
    return [*checks, _profile(body, policy), _service_td(body, policy)]


def _identity(name: str, seen: bytes, policy: QuotePolicy, clause: str) -> Check:
    wanted, title = policy.identities[name], f"tdx.policy.{name}"
    if wanted is None:
        return not_evaluated(title, f"waived: {seen.hex()}", clause)
    code = "tdx.report_data_mismatch" if name == "report_data" else "tdx.measurement_mismatch"
    return compared(title, code, seen in wanted, seen.hex(), _listed(wanted), clause)


def _listed(wanted: frozenset[bytes]) -> str:
    return next(iter(wanted)).hex() if len(wanted) == 1 else f"one of {len(wanted)} listed"


def _mask(name: str, code: str, seen: bytes, mask: Mask | None, clause: str) -> Check:
    title = f"tdx.policy.{name}"
    if mask is None:
        return not_evaluated(title, f"waived: {seen.hex()}", clause)
    lacking = bytes(r & ~v & 0xFF for r, v in zip(mask.required, seen, strict=True))
    present = bytes(f & v for f, v in zip(mask.forbidden, seen, strict=True))
    wanted = f"with {mask.required.hex()}, without {mask.forbidden.hex()}"
    if any(lacking) or any(present):
        found = f"{seen.hex()}: lacks {lacking.hex()}, has {present.hex()} too much"
        return failed(title, code, found, wanted, clause)
    return passed(title, seen.hex(), wanted, clause)


def _profile(body: TdReport, policy: QuotePolicy) -> Check:
    """SEPT_VE_DISABLE keeps the host from raising #VE in the guest at will (Intel TDX module: ATTRIBUTES).

    A paravisor handles them itself; only the profile of that name forgoes the bit.
    """
    name, clause = "tdx.policy.profile", "[tdx] profile; Intel TDX module: TDATTRIBUTES, VMID"
    asking = body.history.vmid if body.history else 0
    disabled = bool(int.from_bytes(body.td_attributes, "little") >> TD_ATTRIBUTES["sept_ve_disable"] & 1)
    seen = f"SEPT_VE_DISABLE {'set' if disabled else 'clear'}"
    if policy.profile == "azure-paravisor":
        return passed(name, f"{seen}; MRTD is a paravisor's, its guest is not measured here", "any", clause)
    if asking:  # MRTD and RTMRs are not those of whoever put the report data there
        return failed(name, "tdx.vm_not_allowed", f"asked for by VM {asking}", "by the trust domain", clause)
    return compared(name, "tdx.td_attributes_not_allowed", disabled, seen, "SEPT_VE_DISABLE set", clause)


def _service_td(body: TdReport, policy: QuotePolicy) -> Check:
    """A service TD (migration) can act on the guest. Before TD 1.5 there is none.

    An extended report also says which was bound at first and which is now: none of them may be unknown.
    """
    name, seen = "tdx.policy.mrservicetd", body.mrservicetd or bytes(48)
    if policy.mrservicetd is None:
        return not_evaluated(name, f"waived: {seen.hex()}", _TD)
    stated = (body.history.init_servicetd, body.history.current_servicetd) if body.history else ()
    bound = [each for each in (seen, *filter(any, stated)) if each not in policy.mrservicetd]
    return compared(
        name, "tdx.service_td_not_allowed", not bound, (bound or [seen])[0].hex(),
        _listed(policy.mrservicetd), _TD,
    )  # fmt: skip


def _enclave(body: SgxReport, policy: QuotePolicy) -> list[Check]:
    product, svn = "tdx.policy.isvprodid", "tdx.policy.isvsvn"
    code = "tdx.measurement_mismatch"
    return [
        not_evaluated(product, f"waived: {body.isvprodid}", _SGX)
        if policy.isvprodid is None
        else compared(product, code, body.isvprodid in policy.isvprodid, str(body.isvprodid),
                      str(sorted(policy.isvprodid)), _SGX),
        not_evaluated(svn, f"waived: {body.isvsvn}", _SGX)
        if policy.isvsvn_min is None
        else compared(svn, code, body.isvsvn >= policy.isvsvn_min, str(body.isvsvn),
                      f"at least {policy.isvsvn_min}", _SGX),
    ]  # fmt: skip
