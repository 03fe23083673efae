"""Whether AMD has withdrawn an intermediate: CRLs by the ARK (RFC 5280 5; AMD 57230).

Chip certificates have serial 0 and cannot be revoked one by one. A CRL from either of AMD's two
paths is signed by the same ARK and counts for ASK and ASVK alike.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from attestation.pki.x509 import Crl, check_pss, read_certificate, read_crl, verify_pss
from attestation.result import Check, failed, not_evaluated, passed, undecided
from attestation.snp.origin.chain import Chain
from attestation.snp.products import PRODUCTS
from schemas.errors import Refused, Unreadable

NAME: Final = "snp.crl"
_CLAUSE: Final = "RFC 5280 6.3.3; AMD 57230 CRL"
_WANTED: Final = "a current CRL by the root, without this chain's serials"
_ARKS: Final = frozenset(product.ark for product in PRODUCTS.values())
CACHED_VERIFIED_CRLS: Final = 64


def check_revocation(
    crls: tuple[bytes, ...], chain: Chain, at: float, *, waived: bool
) -> tuple[Check, float | None]:
    """The check, and the nextUpdate that a pass rests on (POSIX seconds).

    A waiver forgives a missing or stale CRL, never one that is supplied and bad, or that revokes.
    """
    try:
        ours = _of_this_root(crls, chain)
        verified = [verify_crl(crl.der, chain.ark.der) for crl in ours]
        _check_serials(verified, chain)
    except Refused as error:
        return failed(NAME, error.code, error.text, _WANTED, _CLAUSE), None
    fresh = [crl.next_update for crl in verified if crl.next_update and is_fresh(crl, at)]
    if fresh:
        return passed(NAME, f"not revoked, next update {_date(max(fresh))}", _WANTED, _CLAUSE), max(fresh)
    code = "snp.crl.stale" if verified else "snp.crl.missing"
    seen = ", ".join(_window(crl) for crl in verified) or "none offered"
    if waived:
        return not_evaluated(NAME, f"waived; {code}: {seen}", _CLAUSE), None
    return undecided(NAME, code, seen, _WANTED, _CLAUSE), None


def is_fresh(crl: Crl, at: float) -> bool:
    """thisUpdate ≤ t < nextUpdate; a CRL without an end is never fresh (RFC 5280 5.1.2.5)."""
    return crl.next_update is not None and crl.this_update <= at < crl.next_update


def _of_this_root(crls: tuple[bytes, ...], chain: Chain) -> list[Crl]:
    """Ours, by exact name. AMD's CRLs for other products are passed over, an unknown name is not."""
    ours: list[Crl] = []
    for der in crls:
        crl = _read(der)
        if crl.issuer == chain.ark.subject:
            ours.append(crl)
        elif crl.issuer_common_name not in _ARKS - {chain.ark.common_name} and _signed_as_amd_does(crl):
            raise Refused("snp.crl.issuer_mismatch", f"issued by {crl.issuer_common_name}")
    return ours


def _read(der: bytes) -> Crl:
    try:
        return read_crl(der)
    except Unreadable as error:
        raise Refused("snp.crl.malformed", error.text) from None


def _signed_as_amd_does(crl: Crl) -> bool:
    """False for another vendor's CRL, which is not our business."""
    try:
        check_pss(crl)
    except Refused:
        return False
    return True


@lru_cache(maxsize=CACHED_VERIFIED_CRLS)
def verify_crl(crl_der: bytes, ark_der: bytes) -> Crl:
    """The CRL that this root signed, freshness not looked at. Raises `Refused` or `Unreadable`."""
    crl, ark = read_crl(crl_der), read_certificate(ark_der)
    if crl.issuer != ark.subject:
        raise Refused("snp.crl.issuer_mismatch", f"issued by {crl.issuer_common_name}")
    try:
        check_pss(crl)
        verify_pss(ark.public_key, crl.signed)
    except Refused as error:
        raise Refused("snp.crl.signature_invalid", error.text) from None
    return crl


def _check_serials(crls: list[Crl], chain: Chain) -> Chain:
    """Revocation outlives freshness: a stale CRL that names a serial still revokes it."""
    for crl in crls:
        for each in (chain.intermediate, chain.ark):
            if each.serial in crl.revoked:
                raise Refused("snp.crl.revoked", f"{each.common_name}, serial {each.serial}")
    return chain


def _window(crl: Crl) -> str:
    return f"{_date(crl.this_update)} to {_date(crl.next_update) if crl.next_update else 'no end'}"


@lru_cache(maxsize=CACHED_VERIFIED_CRLS)
def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()
