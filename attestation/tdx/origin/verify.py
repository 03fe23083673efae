"""Is this quote genuine: from the pinned root to the signature over header and body (DCAP quote formats).

No I/O, no clock. What a relying party wants is tdx/policy.py; whether the platform is up to date is
tdx/tcb. Every link is checked, whatever the others say, so that each failure has its own name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from time import gmtime, strftime
from typing import Final

from attestation.endorsements import recognise
from attestation.pki.pins import Pin
from attestation.pki.x509 import Certificate, read_certificate, read_certificates
from attestation.result import Check, failed, not_evaluated, passed, undecided
from attestation.tdx.origin.chain import PckChain, Roots, split_pem, verify_pck_chain
from attestation.tdx.origin.roles import PCK, PCK_CA, ROOT
from attestation.tdx.origin.signature import read_point, verify_raw
from attestation.tdx.quote import Quote
from schemas.canonical import sha256
from schemas.errors import ComityError, Refused, Undecided, Unreadable

CACHED_QE_REPORTS: Final = 4096
REMEMBERED_AUTH_BYTES: Final = 256  # 32 in the field, up to 65,535 allowed
PEM_CHAIN: Final = 5  # DCAP certification data types
PCK_LEAF: Final = 4
PLATFORM_DATA: Final = {1: 16, 2: 256, 3: 384}
"""Certification data types that state a platform without a chain → bytes of the PPID, plain or encrypted."""
MAX_OFFERED_LEAVES: Final = 64  # tried to find the one of the quote's platform: 0.2 ms each, once
MAX_NAMESAKES: Final = 4  # pairs of CA and root of the right names that are tried for one leaf

_CHAIN: Final = "tdx.authenticity.pck_chain"
_PROFILE: Final = "Intel PCK certificate profile"


@dataclass(frozen=True, slots=True)
class Origin:
    """What was found about where a quote comes from. `chain` is None when it does not hold."""

    checks: tuple[Check, ...]
    chain: PckChain | None
    pin: Pin | None


def authenticate(quote: Quote, offered: Sequence[bytes], roots: Roots, at: float) -> Origin:
    """Every link from the root to the quote's body.

    offered: certificates in DER, used only where the quote brings no chain of its own.
    1. the PCK chain; 2. it ends in a pinned root; 3. all three are valid at `at`;
    4. the PCK signed the QE's report; 5. that binds the attestation key; 6. which signed the quote.
    """
    chain, first = _chain(quote, offered, roots)
    pin, root = _pin(chain, roots)
    return Origin((first, root, _validity(chain, at), *check_signatures(quote, chain)), chain, pin)


def check_signatures(quote: Quote, chain: PckChain | None) -> tuple[Check, Check, Check]:
    """From the PCK to the quote's body: what every quote has of its own."""
    return _qe_signature(quote, chain), _qe_binding(quote), _quote_signature(quote)


def _chain(quote: Quote, offered: Sequence[bytes], roots: Roots) -> tuple[PckChain | None, Check]:
    wanted = "PCK, its CA and the root, linked and signed"
    try:
        if quote.certification_type == PEM_CHAIN:
            chain = verify_pck_chain(split_pem(quote.certification))
        else:
            chain = _offered_chain(quote, offered, roots)
    except (Refused, Undecided) as error:
        return None, from_error(_CHAIN, error, wanted, _PROFILE)
    seen = f"{chain.root.common_name} → {chain.issuer.common_name} → {chain.leaf.common_name}"
    return chain, passed(_CHAIN, seen, wanted, _PROFILE)


def from_error(name: str, error: ComityError, wanted: str, clause: str) -> Check:
    """The check that an error makes: a gap for `Undecided`, a failure for anything else."""
    make: Callable[[str, str, str, str, str], Check] = undecided if isinstance(error, Undecided) else failed
    return make(name, error.code, error.text, wanted, clause)


def _offered_chain(quote: Quote, offered: Sequence[bytes], roots: Roots) -> PckChain:
    """A chain that the caller supplies for a quote without one; it must be this platform's.

    A fleet's machines are alike: of those that fit, the one is meant whose key signed the QE's report.
    """
    kind = quote.certification_type
    if kind not in (*PLATFORM_DATA, PCK_LEAF):
        raise Undecided("tdx.cert_data_type_unsupported", f"certification data of type {kind}")
    certificates, unreadable = read_certificates(offered)
    try:
        own = recognise(quote.certification.rstrip(b"\0")).certificates if kind == PCK_LEAF else ()
        leaves = [read_certificate(each) for each in own]
    except Unreadable as error:
        raise Refused("tdx.pck_chain_malformed", error.text) from None
    if kind != PCK_LEAF:
        leaves = [each for each in certificates if each.common_name in PCK.subjects][:MAX_OFFERED_LEAVES]
    fitting: list[PckChain] = []
    problem: Refused | None = None
    for leaf in leaves:
        try:
            fitting += [
                chain
                for chain in _chains_of(leaf, certificates, roots)
                if kind == PCK_LEAF or _fits(chain, quote)
            ]
        except Refused as error:
            problem = problem or error
    if fitting:
        return next((each for each in fitting if _qe_signature(quote, each).status == "pass"), fitting[0])
    if problem is None and unreadable is not None:
        problem = Refused("tdx.pck_chain_malformed", unreadable.text)
    raise problem or Undecided("tdx.cert_data_type_unsupported", f"type {kind} brings no chain; none offered")


def _chains_of(leaf: Certificate, certificates: Sequence[Certificate], roots: Roots) -> list[PckChain]:
    """At most one chain: through a CA of the issuer's name to a root. Raises `Refused` where none holds.

    Certificates that only share a name are in circulation, so each is tried, pinned roots first.
    """
    issuers = [c for c in certificates if c.subject == leaf.issuer and c.common_name in PCK_CA.subjects]
    ends = [c for c in certificates if c.subject == c.issuer and c.common_name in ROOT.subjects]
    ends.sort(key=lambda each: each.fingerprint not in roots.pins)
    problem: Refused | None = None
    for issuer, end in list(product(issuers, ends))[:MAX_NAMESAKES]:
        try:
            return [verify_pck_chain((leaf.der, issuer.der, end.der))]
        except Refused as error:
            problem = problem or error
    if problem is not None:
        raise problem
    return []


def _fits(chain: PckChain, quote: Quote) -> bool:
    """CPUSVN, PCESVN and PCEID are those that the quote states (DCAP certification data 1 to 3).

    Some writers leave the PCEID out.
    """
    claims = chain.claims
    rest = quote.certification[PLATFORM_DATA[quote.certification_type] :]
    stated = claims.cpusvn + claims.pcesvn.to_bytes(2, "little")
    return rest in (stated, stated + claims.pceid)


def _pin(chain: PckChain | None, roots: Roots) -> tuple[Pin | None, Check]:
    name, clause = "tdx.authenticity.root", "DESIGN 4: roots are pinned by digest"
    if chain is None:
        return None, not_evaluated(name, "no chain", clause)
    try:
        pin = roots.pin_of(chain.root)
    except Refused as error:
        return None, from_error(name, error, "a pinned root", clause)
    seen = f"simulated root {pin.name}, listed explicitly" if pin.simulated else chain.root.common_name
    return pin, passed(name, seen, "a pinned root", clause)


def _validity(chain: PckChain | None, at: float) -> Check:
    """All three at the stated time (RFC 5280 4.1.2.5)."""
    name, clause = "tdx.authenticity.validity", "RFC 5280 4.1.2.5"
    if chain is None:
        return not_evaluated(name, "no chain", clause)
    for each in (chain.leaf, chain.issuer, chain.root):
        if at < each.not_before:
            seen = f"{each.common_name} from {date(each.not_before)}"
            return failed(name, "tdx.cert_not_yet_valid", seen, date(at), clause)
        if at > each.not_after:
            seen = f"{each.common_name} until {date(each.not_after)}"
            return failed(name, "tdx.cert_expired", seen, date(at), clause)
    return passed(name, "all three valid", "valid at the stated time", clause)


def date(seconds: float) -> str:
    return strftime("%Y-%m-%dT%H:%M:%SZ", gmtime(seconds))  # a third of what datetime's takes


def _qe_signature(quote: Quote, chain: PckChain | None) -> Check:
    name, clause = "tdx.authenticity.qe_report_signature", "DCAP quote format: QE Report Signature"
    if chain is None:
        return not_evaluated(name, "no chain", clause)
    try:
        _verify_qe(chain, quote.qe.raw, quote.qe_signature)
    except Refused as error:
        return failed(name, "tdx.qe_report_signature_invalid", error.text, "signed by the PCK", clause)
    return passed(name, "verifies", "signed by the PCK", clause)


@lru_cache(maxsize=CACHED_QE_REPORTS)
def _verify_qe(chain: PckChain, report: bytes, signature: bytes) -> bytes:
    return verify_raw(chain.key, signature, report)


def _qe_binding(quote: Quote) -> Check:
    """The QE vouches for this attestation key: SHA-256(key ‖ authentication data), then 32 zero bytes."""
    bind = _bound if len(quote.auth_data) <= REMEMBERED_AUTH_BYTES else _bound.__wrapped__
    wanted = bind(quote.attestation_key, quote.auth_data)
    name, clause = "tdx.authenticity.qe_report_binding", "DCAP quote format: QE Report, REPORTDATA"
    if quote.qe.report_data != wanted:
        seen = quote.qe.report_data.hex()
        return failed(name, "tdx.qe_report_binding_invalid", seen, wanted.hex(), clause)
    return passed(name, "binds the attestation key", "the hash of the key", clause)


@lru_cache(maxsize=CACHED_QE_REPORTS)
def _bound(key: bytes, auth_data: bytes) -> bytes:
    return sha256(key, auth_data) + bytes(32)


def _quote_signature(quote: Quote) -> Check:
    """Over the bytes as received, on every call: nothing about a quote itself is remembered."""
    name, clause = "tdx.authenticity.quote_signature", "DCAP quote format: ISV Enclave Report Signature"
    wanted = "signed by the attestation key"
    try:
        key = read_point(quote.attestation_key)
        verify_raw(key, quote.signature, quote.signed)
    except Refused as error:
        code = error.code if error.code.startswith("tdx.") else "tdx.quote_signature_invalid"
        return failed(name, code, error.text, wanted, clause)
    return passed(name, "verifies", wanted, clause)
