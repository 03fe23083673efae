"""From the pinned Intel root to the key that signed a quoting enclave's report (PCK certificate profile).

Always three certificates: root, PCK Platform or Processor CA, PCK. No path building. Times and
revocation are looked at on every use, elsewhere, so a verified chain may be kept.
"""

from __future__ import annotations

from binascii import Error, a2b_base64, b2a_base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from attestation.pki.pins import Pin
from attestation.pki.x509 import Certificate, read_certificate
from attestation.tdx.origin.pck import SGX_EXTENSION, PckClaims, read_pck
from attestation.tdx.origin.roles import PCK, PCK_CA, ROOT, TCB_SIGNER, hold_role
from attestation.tdx.origin.signature import p256_of, verify_signed
from schemas.errors import Refused, Unreadable

CACHED_CHAINS: Final = 4096  # one per platform and TCB
CACHED_ROOTS: Final = 16  # Intel's, and namesakes
CHAIN_LENGTH: Final = 3
INTEL_ROOT: Final = "44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3"
"""SHA-256 of the DER of Intel's SGX root; other certificates of that name are in circulation."""

_BEGIN: Final = b"-----BEGIN CERTIFICATE-----"
_END: Final = b"-----END CERTIFICATE-----"


@dataclass(frozen=True, slots=True)
class Roots:
    """Accepted roots by the SHA-256 of their DER, in hex."""

    pins: Mapping[str, Pin]

    @staticmethod
    def intel(simulated: Iterable[tuple[str, str]] = ()) -> Roots:
        """Intel's root, and any (name, digest) that was listed explicitly."""
        listed = {digest: Pin(name, simulated=True) for name, digest in simulated}
        return Roots({**listed, INTEL_ROOT: Pin("Intel", simulated=False)})

    def pin_of(self, root: Certificate) -> Pin:
        """The pin of this very certificate. Raises `Refused`: a name proves nothing."""
        pin = self.pins.get(root.fingerprint)
        if pin is None:
            raise Refused("tdx.root_not_pinned", f"{root.common_name} {root.fingerprint}")
        return pin


INTEL_ROOTS: Final = Roots.intel()


@dataclass(frozen=True, slots=True, eq=False)
class PckChain:
    """Three certificates whose roles and signatures hold. The root is *not* pinned here."""

    leaf: Certificate
    issuer: Certificate
    root: Certificate
    claims: PckClaims
    key: ec.EllipticCurvePublicKey


def split_pem(data: bytes) -> tuple[bytes, ...]:
    """The certificates of a PEM chain in DER, which often ends in NUL. Raises `Refused`."""
    *blocks, rest = data.rstrip(b"\0").strip(b" \r\n").split(_END, CHAIN_LENGTH)
    if rest or not all(block.lstrip(b"\r\n").startswith(_BEGIN) for block in blocks):
        raise Refused("tdx.pck_chain_malformed", f"not {CHAIN_LENGTH} PEM certificates and nothing else")
    return tuple([_decode(block.lstrip(b"\r\n")[len(_BEGIN) :]) for block in blocks])


def _decode(body: bytes) -> bytes:
    """Base64 in its one spelling (RFC 7468 3)."""
    joined = body.translate(None, b"\r\n")
    try:
        decoded = a2b_base64(joined)
    except Error:
        decoded = b""
    if not decoded or b2a_base64(decoded, newline=False) != joined:
        raise Refused("tdx.pck_chain_malformed", "a PEM block that is not base64")
    return decoded


@lru_cache(maxsize=CACHED_CHAINS)
def verify_pck_chain(certificates: tuple[bytes, ...]) -> PckChain:
    """The chain of these three certificates, in any order. Raises `Refused`.

    1. each once, linked by name; 2. roles; 3. signatures; 4. the platform's extension.
    """
    leaf, issuer, root = _ordered(certificates)
    extensions = hold_role(leaf, PCK)
    hold_role(issuer, PCK_CA)
    verify_root(root)
    verify_link(issuer, root)
    verify_link(leaf, issuer)
    try:
        key = p256_of(leaf)
    except Refused as error:
        raise Refused("tdx.pck_chain_malformed", error.text) from None
    return PckChain(leaf, issuer, root, read_pck(extensions[SGX_EXTENSION]), key)


def _ordered(certificates: tuple[bytes, ...]) -> tuple[Certificate, Certificate, Certificate]:
    """Leaf, issuer and root, told apart by whose issuer is whose subject, byte for byte (RFC 5280 6.1)."""
    try:
        read = [read_certificate(each) for each in certificates]
    except Unreadable as error:
        raise Refused("tdx.pck_chain_malformed", error.text) from None
    roots = [each for each in read if each.subject == each.issuer]
    if len(read) == CHAIN_LENGTH and len(roots) == 1:
        others = [each for each in read if each is not roots[0]]
        for leaf, issuer in (others, others[::-1]):
            if leaf.issuer == issuer.subject and issuer.issuer == roots[0].subject:
                return leaf, issuer, roots[0]
    raise Refused("tdx.pck_chain_malformed", "not a root, its CA and that CA's certificate, each once")


@lru_cache(maxsize=CACHED_ROOTS)
def verify_root(root: Certificate) -> Certificate:
    """The root, in its role, which signed itself. Raises `Refused`; it is *not* pinned here.

    That Intel's did is a fact about bytes that are pinned, and held by a test: it is not found out anew.
    """
    hold_role(root, ROOT)
    return root if root.fingerprint == INTEL_ROOT else verify_link(root, root)


def verify_link(child: Certificate, parent: Certificate) -> Certificate:
    """The child, which this parent signed. Raises `Refused` (`tdx.cert_signature_invalid`)."""
    try:
        verify_signed(child, parent)
    except Refused as error:
        text = f"{child.common_name} by {parent.common_name}: {error.text}"
        raise Refused("tdx.cert_signature_invalid", text) from None
    return child


@lru_cache(maxsize=CACHED_CHAINS)
def verify_signer(signer_der: bytes, root_der: bytes) -> Certificate:
    """The TCB signer that this root issued. Raises `Refused`; the root is *not* pinned here."""
    signer, root = read_certificate(signer_der), read_certificate(root_der)
    hold_role(signer, TCB_SIGNER)
    if signer.issuer != root.subject:
        raise Refused("tdx.cert_role_invalid", f"{signer.common_name} was not issued by the root")
    verify_root(root)
    return verify_link(signer, root)
