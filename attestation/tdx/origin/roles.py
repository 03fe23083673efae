"""Which of Intel's certificates may do what: a role is held at the place of use (PCK certificate profile).

A certificate that is good for one role is refused in another, though it chains to the same root.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from attestation.pki import der
from attestation.pki.der import encode_oid
from attestation.pki.x509 import Certificate, extensions_of
from attestation.tdx.origin.pck import SGX_EXTENSION
from schemas.errors import Refused, Unreadable

_BASIC_CONSTRAINTS: Final = encode_oid("2.5.29.19")
_KEY_USAGE: Final = encode_oid("2.5.29.15")
_KNOWN: Final = frozenset(
    (_BASIC_CONSTRAINTS, _KEY_USAGE, SGX_EXTENSION, *map(encode_oid, ("2.5.29.14", "2.5.29.31", "2.5.29.35")))
)
_DIGITAL_SIGNATURE: Final = 0x80  # first octet of KeyUsage, RFC 5280 4.2.1.3
_CERT_AND_CRL_SIGN: Final = 0x06


@dataclass(frozen=True, slots=True)
class Role:
    """What a certificate must say about itself to be used in one place."""

    name: str
    subjects: frozenset[str]
    authority: bool
    platform: bool
    """Whether it carries the extension of a platform."""


ROOT: Final = Role("root", frozenset({"Intel SGX Root CA"}), authority=True, platform=False)
PCK_CA: Final = Role(
    "PCK CA",
    frozenset({"Intel SGX PCK Platform CA", "Intel SGX PCK Processor CA"}),
    authority=True,
    platform=False,
)
PCK: Final = Role("PCK", frozenset({"Intel SGX PCK Certificate"}), authority=False, platform=True)
TCB_SIGNER: Final = Role("TCB signer", frozenset({"Intel SGX TCB Signing"}), authority=False, platform=False)


def hold_role(certificate: Certificate, role: Role) -> dict[bytes, bytes]:
    """The extensions, by OID, of a certificate that fits. Raises `Refused` (`tdx.cert_role_invalid`)."""
    try:
        extensions = extensions_of(certificate)
        found = {oid: value for oid, (_, value) in extensions.items()}
        authority, usage = _is_authority(found), _usage(found)
    except Unreadable as error:
        raise _not(certificate, role, error.text) from None
    if certificate.common_name not in role.subjects:
        raise _not(certificate, role, "another subject")
    if any(extensions[oid][0] for oid in extensions.keys() - _KNOWN):  # critical, RFC 5280 4.2
        raise _not(certificate, role, "an unknown critical extension")
    if authority != role.authority:
        raise _not(certificate, role, "basicConstraints say otherwise")
    needed = _CERT_AND_CRL_SIGN if role.authority else _DIGITAL_SIGNATURE
    if usage & needed != needed or (not role.authority and usage & _CERT_AND_CRL_SIGN):
        raise _not(certificate, role, "keyUsage says otherwise")
    if (SGX_EXTENSION in found) != role.platform:
        raise _not(certificate, role, "a platform's extension where none belongs, or none where one does")
    return found


def _is_authority(found: dict[bytes, bytes]) -> bool:
    """cA of basicConstraints; absent means false (RFC 5280 4.2.1.9)."""
    if _BASIC_CONSTRAINTS not in found:
        return False
    return der.children(found[_BASIC_CONSTRAINTS])[:1] == [b"\x01\x01\xff"]


def _usage(found: dict[bytes, bytes]) -> int:
    if _KEY_USAGE not in found:
        return 0
    tag, bits = der.split(found[_KEY_USAGE])
    return bits[1] if tag == 0x03 and len(bits) >= 2 else 0


def _not(certificate: Certificate, role: Role, why: str) -> Refused:
    return Refused("tdx.cert_role_invalid", f"{certificate.common_name} as {role.name}: {why}")
