"""What NVIDIA's certificates say about their use, and whether a chain keeps to it (RFC 5280 6.1.4).

Real chains have neither path lengths nor basicConstraints in the leaf; what is absent is not demanded,
what is there is obeyed. A chain is always leaf first, each certificate issued by the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from attestation.pki import der
from attestation.pki.der import encode_oid
from attestation.pki.x509 import CACHED_CERTIFICATES, Certificate, extensions_of, read_certificate
from schemas.errors import Refused, Unreadable

_BASIC, _USAGE, _SKI, _AKI = (encode_oid(f"2.5.29.{n}") for n in (19, 15, 14, 35))
FWID_HOPPER: Final = encode_oid("2.23.133.5.4.1")  # tcg-dice-Ueid's arc; DICE Attestation Architecture 6.1
TCB_INFO: Final = encode_oid("2.23.133.5.4.1.1")  # tcg-dice-TcbInfo
_KNOWN: Final = frozenset(
    (_BASIC, _USAGE, _SKI, _AKI, FWID_HOPPER, TCB_INFO, encode_oid("1.3.6.1.5.5.7.1.1"),
     *(encode_oid(f"2.5.29.{n}") for n in (17, 31, 37)))
)  # fmt: skip
"""Extensions that may be critical: those above, authority access, alternative name, CRL points, usage."""
_DIGITAL_SIGNATURE: Final = 0x80  # first octet of KeyUsage, RFC 5280 4.2.1.3
_CERT_SIGN: Final = 0x04
_TRUE: Final = b"\x01\x01\xff"


class Stated(NamedTuple):
    """The extensions of one certificate that matter for a chain. A tuple: two are made for every device."""

    authority: bool
    path_length: int | None
    usage: int
    """First octet of the key usage; 0 where there is none."""
    key_id: bytes | None
    issuer_key_id: bytes | None
    values: dict[bytes, bytes]
    """Encoded OID → value of every extension."""


@lru_cache(maxsize=CACHED_CERTIFICATES)
def stated(certificate_der: bytes) -> Stated:
    """Read them. Raises `Refused` (`constraint`) for an unknown critical one or one that cannot be read."""
    certificate = read_certificate(certificate_der)
    try:
        found: dict[bytes, bytes] = {}
        for oid, (critical, value) in extensions_of(certificate).items():
            if critical and oid not in _KNOWN:  # RFC 5280 4.2
                raise _violated(certificate, "an unknown critical extension")
            found[oid] = value
        authority, length = _basic(found)
        return Stated(authority, length, _usage(found), _key_id(found), _issuer_key_id(found), found)
    except Unreadable as error:
        raise _violated(certificate, error.text) from None


def _basic(found: dict[bytes, bytes]) -> tuple[bool, int | None]:
    """cA and pathLenConstraint; absent means false and none (RFC 5280 4.2.1.9)."""
    members = der.children(found[_BASIC]) if _BASIC in found else []
    if members[:1] != [_TRUE]:
        return False, None
    return True, int.from_bytes(der.split(members[1])[1]) if len(members) > 1 else None


def _usage(found: dict[bytes, bytes]) -> int:
    if _USAGE not in found:
        return 0
    tag, bits = der.split(found[_USAGE])
    return bits[1] if tag == 0x03 and len(bits) >= 2 else 0


def _key_id(found: dict[bytes, bytes]) -> bytes | None:
    return der.split(found[_SKI])[1] if _SKI in found else None


def _issuer_key_id(found: dict[bytes, bytes]) -> bytes | None:
    """keyIdentifier [0] of the authority key identifier (RFC 5280 4.2.1.1)."""
    for member in der.children(found[_AKI]) if _AKI in found else []:
        tag, content = der.split(member)
        if tag == 0x80:
            return content
    return None


def hold_chain(chain: Sequence[Certificate]) -> Sequence[Certificate]:
    """The chain whose links and uses fit. Raises `Refused` (`constraint`); signatures are not looked at.

    1. names and key ids chain; 2. every issuer is an authority, within path lengths; 3. the leaf signs data.
    """
    for depth, certificate in enumerate(chain):
        _hold_link(certificate.der, chain[min(depth + 1, len(chain) - 1)].der, depth)
    return chain


@lru_cache(maxsize=CACHED_CERTIFICATES)
def _hold_link(certificate_der: bytes, issuer_der: bytes, depth: int) -> bytes:
    """One certificate below its issuer, at that distance from the leaf. Raises `Refused` (`constraint`)."""
    certificate, issuer = read_certificate(certificate_der), read_certificate(issuer_der)
    says = stated(certificate_der)
    if certificate.issuer != issuer.subject:
        raise _violated(certificate, f"not issued by {issuer.common_name}")
    if says.issuer_key_id is not None and says.issuer_key_id != stated(issuer_der).key_id:
        raise _violated(certificate, f"names another key than that of {issuer.common_name}")
    if depth == 0:
        _hold_leaf(certificate, says)
    else:
        _hold_authority(certificate, says, below=depth - 1)
    return certificate_der


def _hold_leaf(certificate: Certificate, says: Stated) -> None:
    if says.authority or says.usage & _CERT_SIGN or not says.usage & _DIGITAL_SIGNATURE:
        raise _violated(certificate, "a leaf that may issue, or may not sign")


def _hold_authority(certificate: Certificate, says: Stated, *, below: int) -> None:
    """`below`: how many authorities stand between this one and the leaf."""
    if not says.authority or not says.usage & _CERT_SIGN:
        raise _violated(certificate, "an issuer that may not issue")
    if says.path_length is not None and below > says.path_length:
        raise _violated(certificate, f"path length {says.path_length} with {below} authorities below")


def _violated(certificate: Certificate, why: str) -> Refused:
    return Refused("constraint", f"{certificate.common_name}: {why}")
