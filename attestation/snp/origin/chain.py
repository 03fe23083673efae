"""From a pinned root to the key that signed a report: exactly three certificates (AMD 57230).

ARK → ASK → VCEK, or ARK → ASVK → VLEK. Choosing among what was offered is a matter of names and
believes nothing; `verify_chain` then holds every name, algorithm and signature. Times are checked
by the caller on every use (snp/verify.py), so a verified chain may be kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from attestation.endorsements import Endorsements
from attestation.pki.x509 import Certificate, check_pss, read_certificate, read_certificates, verify_pss
from attestation.snp.origin.leaf import LeafClaims, read_leaf
from attestation.snp.products import PRODUCTS, Pin, Product, product_of_intermediate
from attestation.snp.report import SIGNING_KEYS, Report
from schemas.errors import Refused, Undecided

LEAF_KINDS: Final = {"SEV-VCEK": "VCEK", "SEV-VLEK": "VLEK"}
RSA_BITS: Final = 4096
MAX_ISSUERS_TRIED: Final = 4  # re-issued intermediates of one name; each costs one RSA operation
CACHED_CHAINS: Final = 4096  # one per chip and TCB


@dataclass(frozen=True, slots=True)
class Roots:
    """The roots that a relying party accepts: AMD's, and simulated ones that it lists by name."""

    pins: Mapping[str, tuple[str, Pin]]
    """SHA-256 of a root certificate in hex → (product, pin)."""

    @staticmethod
    def amd(simulated: Iterable[tuple[str, Pin]] = ()) -> Roots:
        """AMD's three roots, and any (product, pin) that was listed explicitly."""
        pins = {p.pin.der: (p.name, p.pin) for p in PRODUCTS.values() if p.pin is not None}
        return Roots({**{pin.der: (product, pin) for product, pin in simulated}, **pins})


AMD_ROOTS: Final = Roots.amd()


@dataclass(frozen=True, slots=True)
class Offer:
    """The three certificates chosen from what was offered, by name. Nothing in it is verified."""

    leaf: Certificate
    intermediate: Certificate
    ark: Certificate


@dataclass(frozen=True, slots=True, eq=False)
class Chain:
    """Three certificates whose names, algorithms and signatures hold. One object per chain in memory."""

    leaf: Certificate
    intermediate: Certificate
    ark: Certificate
    product: Product
    kind: str
    """VCEK or VLEK, as leaf and intermediate agree."""
    leaf_key: ec.EllipticCurvePublicKey
    not_after: float
    """The earliest end of the three."""


def choose(report: Report, offered: Endorsements, roots: Roots, at: float) -> Offer:
    """The chain to verify. Raises `Undecided` when a part is missing, `Refused` when nothing fits.

    What cannot be read is passed over, like everything that is not needed; it is named where a part is
    missing, for it may be that part.
    """
    certificates, unreadable = read_certificates(offered.certificates)
    try:
        return _choose(report, certificates, roots, at)
    except Undecided:
        if unreadable is None:
            raise
        raise Refused("snp.cert.malformed", unreadable.text) from None


def _choose(report: Report, certificates: Sequence[Certificate], roots: Roots, at: float) -> Offer:
    leaf = _choose_leaf(report, certificates, at)
    intermediate = _issuer_of(leaf, certificates, "snp.chain.intermediate_missing")
    arks = [each for each in certificates if each.subject == intermediate.issuer]
    pinned = [each for each in arks if each.fingerprint in roots.pins]
    if arks and not pinned:
        raise Refused("snp.chain.root_unpinned", f"{arks[0].common_name} {arks[0].fingerprint}")
    return Offer(leaf, intermediate, _issuer_of(intermediate, pinned, "snp.endorsement.missing"))


def _choose_leaf(report: Report, certificates: Sequence[Certificate], at: float) -> Certificate:
    """The leaf of the kind that SIGNING_KEY names; among several, the one that fits this report."""
    wanted = SIGNING_KEYS[report.signing_key]
    leaves = [each for each in certificates if each.common_name in LEAF_KINDS]
    kind = [each for each in leaves if LEAF_KINDS[each.common_name] == wanted]
    if not kind:
        if leaves:
            raise Refused(
                "snp.cert.signer_mismatch", f"a {wanted} is needed, {leaves[0].common_name} offered"
            )
        raise Undecided("snp.endorsement.missing", f"no {wanted} was offered")
    if len(kind) == 1:
        return kind[0]
    fitting = [each for each in kind if _fits(each, report, wanted)] or kind[:1]
    if len({each.spki_fingerprint for each in fitting}) > 1:
        raise Refused("snp.endorsement.ambiguous", "two different keys claim this chip and TCB")
    # Re-issued for the same key: prefer one that is valid now, then the one that ends last.
    return max(fitting, key=lambda each: (each.not_before <= at <= each.not_after, each.not_after))


def _fits(leaf: Certificate, report: Report, kind: str) -> bool:
    """Whether an unverified leaf's extensions name this report's chip and TCB: a hint, no more."""
    issuer = product_of_intermediate(leaf.issuer_common_name)
    if issuer is None:
        return False
    try:
        claims = read_leaf(leaf, issuer[0], kind)
    except Refused:
        return False
    same_chip = claims.hwid is None or report.chip_id.startswith(claims.hwid)
    return same_chip and claims.raw_tcb == report.reported_tcb


def _issuer_of(child: Certificate, certificates: Sequence[Certificate], code: str) -> Certificate:
    """The certificate of the issuer's name; among re-issued ones, the one whose key signed the child."""
    candidates = [each for each in certificates if each.subject == child.issuer]
    if not candidates:
        raise Undecided(code, f"no certificate of {child.issuer_common_name} was offered")
    if len(candidates) == 1:
        return candidates[0]
    for candidate in candidates[:MAX_ISSUERS_TRIED]:
        try:
            verify_pss(candidate.public_key, child.signed)
        except Refused:
            continue
        return candidate
    raise Refused("snp.chain.signature_invalid", f"no {child.issuer_common_name} signed {child.common_name}")


def verify_chain(offer: Offer) -> Chain:
    """Hold names, algorithms and signatures of all three. Raises `Refused`. The root is *not* pinned here."""
    return _verify_chain(offer.leaf.der, offer.intermediate.der, offer.ark.der)


@lru_cache(maxsize=CACHED_CHAINS)
def _verify_chain(leaf_der: bytes, intermediate_der: bytes, ark_der: bytes) -> Chain:
    leaf, intermediate, ark = map(read_certificate, (leaf_der, intermediate_der, ark_der))
    product, kind = _check_names(leaf, intermediate, ark)
    leaf_key = _check_algorithms(leaf, intermediate, ark)
    for child, issuer in ((ark, ark), (intermediate, ark), (leaf, intermediate)):
        _check_signature(child, issuer)
    ends = min(each.not_after for each in (leaf, intermediate, ark))
    return Chain(leaf, intermediate, ark, product, kind, leaf_key, ends)


def _check_names(leaf: Certificate, intermediate: Certificate, ark: Certificate) -> tuple[Product, str]:
    """Issuer and subject links, and the exact common names of AMD 57230 table 8."""
    named = product_of_intermediate(intermediate.common_name)
    if named is None:
        raise Refused("snp.chain.name_mismatch", f"{intermediate.common_name} is no intermediate of AMD's")
    product, kind = named
    linked = leaf.issuer == intermediate.subject and intermediate.issuer == ark.subject == ark.issuer
    if not linked or ark.common_name != product.ark:
        raise Refused("snp.chain.name_mismatch", f"{ark.common_name} → {intermediate.common_name}")
    if LEAF_KINDS.get(leaf.common_name) != kind:
        raise Refused("snp.cert.signer_mismatch", f"{leaf.common_name} under {intermediate.common_name}")
    return product, kind


def _check_algorithms(
    leaf: Certificate, intermediate: Certificate, ark: Certificate
) -> ec.EllipticCurvePublicKey:
    """RSA-4096 above a P-384 leaf, RSASSA-PSS with SHA-384 throughout; nothing else is tried."""
    for issuer in (intermediate, ark):
        if not isinstance(issuer.public_key, rsa.RSAPublicKey) or issuer.public_key.key_size != RSA_BITS:
            raise Refused("snp.chain.algorithm", f"{issuer.common_name} has no RSA-{RSA_BITS} key")
    for each in (ark, intermediate, leaf):
        try:
            check_pss(each)
        except Refused as error:
            raise Refused("snp.chain.algorithm", f"{each.common_name}: {error.text}") from None
    key = leaf.public_key
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise Refused("snp.chain.algorithm", f"{leaf.common_name} has no P-384 key")
    return key


def verify_issuers(
    certificates: Sequence[Certificate], product: Product, kind: str, roots: Roots
) -> Certificate:
    """The pinned root of a chain without its leaf, as a service hands it out. Raises `Refused`."""
    named = {each.common_name: each for each in certificates}
    ark = named.get(product.ark)
    intermediate = named.get(product.ask if kind == "VCEK" else product.asvk)
    if ark is None or intermediate is None or len(certificates) != 2 or intermediate.issuer != ark.subject:
        raise Refused("snp.chain.name_mismatch", f"not the issuers of a {kind} on {product.name}")
    if roots.pins.get(ark.fingerprint, ("", None))[0] != product.name:
        raise Refused("snp.chain.root_unpinned", f"{ark.common_name} {ark.fingerprint}")
    _check_signature(ark, ark)
    _check_signature(intermediate, ark)
    return ark


def _check_signature(child: Certificate, issuer: Certificate) -> Certificate:
    try:
        verify_pss(issuer.public_key, child.signed)
    except Refused:
        raise Refused(
            "snp.chain.signature_invalid", f"{issuer.common_name} did not sign {child.common_name}"
        ) from None
    return child


def check_root(chain: Chain, roots: Roots) -> Pin:
    """The pin that this chain ends in. Raises `Refused`; being self-signed proves nothing."""
    product, pin = roots.pins.get(chain.ark.fingerprint, ("", None))
    if pin is None or product != chain.product.name:
        raise Refused("snp.chain.root_unpinned", f"{chain.ark.common_name} {chain.ark.fingerprint}")
    if pin.spki is not None and pin.spki != chain.ark.spki_fingerprint:
        raise Refused("snp.chain.root_unpinned", f"{chain.ark.common_name}: its key is not the pinned one")
    return pin


@lru_cache(maxsize=CACHED_CHAINS)
def _leaf_claims(leaf_der: bytes, product: str, kind: str) -> LeafClaims:
    return read_leaf(read_certificate(leaf_der), PRODUCTS[product], kind)


def leaf_claims(chain: Chain) -> LeafClaims:
    """The verified leaf's extensions. Raises `Refused`, `snp.cert.*`."""
    return _leaf_claims(chain.leaf.der, chain.product.name, chain.kind)
