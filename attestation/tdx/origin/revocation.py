"""Whether Intel has withdrawn a certificate: the root's CRL and the PCK CA's (RFC 5280 6.3.3).

The root's CRL covers the PCK CA and the TCB signers, the CA's covers the PCK. A waiver forgives a
missing or stale CRL, never one that is offered and bad, or that revokes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from attestation.pki.x509 import Certificate, Crl, read_certificate, read_crl
from attestation.result import Check, failed, not_evaluated, passed, undecided
from attestation.tdx.origin.chain import PckChain
from attestation.tdx.origin.roles import PCK_CA, ROOT
from attestation.tdx.origin.signature import verify_signed
from attestation.tdx.origin.verify import date
from schemas.errors import Refused, Unreadable

CACHED_VERIFIED_CRLS: Final = 64
_CLAUSE: Final = "RFC 5280 6.3.3; PCS API v4: CRLs"
_WANTED: Final = "a current CRL of the issuer without this serial"
_INTEL: Final = PCK_CA.subjects | ROOT.subjects


def check_revocation(
    crls: Sequence[bytes], chain: PckChain | None, signers: Sequence[Certificate], at: float, *, waived: bool
) -> tuple[list[Check], dict[str, Crl]]:
    """The two checks, and by `root_crl` and `pck_crl` the lists that they rest on."""
    names = ("tdx.collateral.root_crl", "tdx.collateral.pck_crl")
    if chain is None:
        return [not_evaluated(name, "no chain", _CLAUSE) for name in names], {}
    used: dict[str, Crl] = {}
    checks = [
        _check(names[0], crls, chain.root, (chain.issuer, *signers), at, used, waived=waived),
        _check(names[1], crls, chain.issuer, (chain.leaf,), at, used, waived=waived),
    ]
    return checks, used


def _check(
    name: str,
    crls: Sequence[bytes],
    issuer: Certificate,
    subjects: Sequence[Certificate],
    at: float,
    used: dict[str, Crl],
    *,
    waived: bool,
) -> Check:
    try:
        verified = _verified(_of(crls, issuer), issuer)
        _hold_serials(verified, subjects)
    except Refused as error:
        return failed(name, error.code, error.text, _WANTED, _CLAUSE)
    fresh = [crl for crl in verified if crl.this_update <= at <= (crl.next_update or 0)]
    if fresh:
        best = used[name.rpartition(".")[2]] = max(fresh, key=lambda crl: crl.next_update or 0)
        return passed(name, f"not revoked, next update {date(best.next_update or 0)}", _WANTED, _CLAUSE)
    code, seen = _gap(verified, at)
    if waived:
        return not_evaluated(name, f"waived; {code}: {seen}", _CLAUSE)
    return undecided(name, code, seen, _WANTED, _CLAUSE)


def _verified(crls: Sequence[Crl], issuer: Certificate) -> list[Crl]:
    """Those that this issuer signed. Raises the first problem where none is.

    A namesake's beside them says nothing: its names are ours, its key is not.
    """
    found: list[Crl] = []
    problem: Refused | None = None
    for each in crls:
        try:
            found.append(verify_crl(each.der, issuer.der))
        except Refused as error:
            problem = problem or error
    if problem is not None and not found:
        raise problem
    return found


def _gap(verified: Sequence[Crl], at: float) -> tuple[str, str]:
    if not verified:
        return "tdx.crl_missing", "none offered"
    if all(at < each.this_update for each in verified):
        return "tdx.crl_not_yet_valid", f"from {date(min(each.this_update for each in verified))}"
    return "tdx.crl_expired", f"until {date(max(each.next_update or 0 for each in verified))}"


def _of(crls: Sequence[bytes], issuer: Certificate) -> list[Crl]:
    """This issuer's, by exact name. Another PCK CA's CRL in the place of ours is refused, not passed over."""
    read = [_read(der) for der in crls]
    ours = [each for each in read if each.issuer == issuer.subject]
    others = [e for e in read if e.issuer != issuer.subject and e.issuer_common_name in PCK_CA.subjects]
    if not ours and others and issuer.common_name in PCK_CA.subjects:
        raise Refused("tdx.crl_issuer_mismatch", f"issued by {others[0].issuer_common_name}")
    named = [each for each in read if each.issuer_common_name == issuer.common_name]
    if not ours and named:
        raise Refused("tdx.crl_issuer_mismatch", f"{named[0].issuer_common_name}, but spelt otherwise")
    return ours


def _read(der: bytes) -> Crl:
    try:
        return read_crl(der)
    except Unreadable as error:
        raise Refused("tdx.collateral_malformed", error.text) from None


@lru_cache(maxsize=CACHED_VERIFIED_CRLS)
def verify_crl(crl_der: bytes, issuer_der: bytes) -> Crl:
    """The CRL that this issuer signed, freshness not looked at. Raises `Refused`."""
    crl, issuer = _read(crl_der), read_certificate(issuer_der)
    if crl.issuer != issuer.subject or issuer.common_name not in _INTEL:
        raise Refused("tdx.crl_issuer_mismatch", f"issued by {crl.issuer_common_name}")
    try:
        verify_signed(crl, issuer)
    except Refused as error:
        raise Refused("tdx.crl_signature_invalid", error.text) from None
    return crl


def _hold_serials(crls: Sequence[Crl], subjects: Sequence[Certificate]) -> Sequence[Certificate]:
    """Revocation outlives freshness: a stale CRL that names a serial still revokes it."""
    for crl in crls:
        for each in subjects:
            if each.serial in crl.revoked and each.issuer == crl.issuer:
                raise Refused("tdx.cert_revoked", f"{each.common_name}, serial {each.serial:x}")
    return subjects


def begins(crls: Sequence[bytes], at: float) -> list[float]:
    """When CRLs that are not current yet will be (POSIX seconds); unreadable ones have refused already."""
    return [crl.this_update for crl in map(_read, crls) if crl.this_update > at]
