"""Model signatures by certificate (`model_signing sign certificate`), under roots that the reader pins.

The signature file brings the chain, the signing certificate first and the others in any order, as the
library writes it. None of it is believed: the path must end in a pinned certificate (RFC 5280 6.1, by the
library `cryptography`), at a time that the reader states. The file's own time proves nothing: model-signing
judges at the start of the signing certificate's validity, which whoever holds the key could choose.
Not checked: revocation, for which such a chain names no source that is at hand offline.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID

from attestation.pki.x509 import read_certificate
from receipts.model_signature import SignedModel, material, read_signed, signed_model
from schemas import envelope
from schemas.canonical import Json, sha256
from schemas.errors import Refused, Unreadable
from schemas.primitives import decode_base64

MAX_CHAIN: Final = 8  # certificates in one signature file, the signing one included
MAX_PINNED: Final = 16  # certificates in one file of roots, which people write
_HASHES: Final[dict[str, hashes.HashAlgorithm]] = {
    "secp256r1": hashes.SHA256(),
    "secp384r1": hashes.SHA384(),
    "secp521r1": hashes.SHA512(),
}
"""The key's curve fixes the hash, as model-signing has it; the file names no algorithm."""
_CODE: Final = {ExtendedKeyUsageOID.CODE_SIGNING, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}
_STRANGE: Final = (
    ValueError, UnsupportedAlgorithm, x509.DuplicateExtension, x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)  # fmt: skip

E = TypeVar("E", bound=x509.ExtensionType)


@dataclass(frozen=True, slots=True)
class Certified:
    """What a reader demands of the certificate behind a signature."""

    at: datetime
    """The moment at which the whole path must be valid."""
    name: str | None
    """Who must have signed: an alternative name of the signing certificate, or its whole subject in the
    spelling of RFC 4514. None: whoever the roots vouch for."""
    roots: tuple[x509.Certificate, ...] = ()
    digests: frozenset[bytes] = frozenset()
    """SHA-256 of roots that the signature file may bring itself."""


def read_roots(pem: bytes) -> list[x509.Certificate]:
    """The CA certificates in a PEM file. Raises `Unreadable`, or `Refused` (`model.root_ca`)."""
    try:
        listed = x509.load_pem_x509_certificates(pem)
    except _STRANGE:
        raise Unreadable("model.roots", "no certificates in PEM") from None
    if len(listed) > MAX_PINNED:
        raise Unreadable("model.roots", f"{len(listed)} certificates, at most {MAX_PINNED}")
    found = [_read(each.public_bytes(Encoding.DER)) for each in listed]
    if not all(map(_is_ca, found)):
        raise Refused("model.root_ca", "a pinned certificate is no CA: pin the signer's key instead")
    return found


def verify_certified(data: bytes, demanded: Certified) -> SignedModel:
    """The model that a holder of a demanded certificate signed.

    Raises `Unreadable`, or `Refused` with `model.chain`, `model.usage`, `model.maker`, `model.key`,
    `envelope.*` or what `signed_model` raises.
    """
    brought, inner = material(data, "x509CertificateChain")
    signer, *others = _chain(brought)
    path = _path(signer, others, demanded)
    _may_sign(signer, path[1:])
    _named(signer, demanded.name)
    signed = read_signed(inner)
    payload = _verified(signer, signed.signatures[0][1], signed.payload)
    subject, root = signer.subject.rfc4514_string(), sha256(path[-1].public_bytes(Encoding.DER))
    return signed_model(data, payload, f"certificate {subject:.200} under root {root.hex()}")


def _chain(brought: Json) -> list[x509.Certificate]:
    match brought:
        case {"certificates": list(listed), **more} if not more and 1 <= len(listed) <= MAX_CHAIN:
            return [_entry(each) for each in listed]
    raise Unreadable("model.chain", f"1 to {MAX_CHAIN} certificates expected")


def _entry(value: Json) -> x509.Certificate:
    match value:
        case {"rawBytes": str(text), **more} if not more:
            return _read(decode_base64(text))
    raise Unreadable("model.chain", "not a certificate")


def _read(der: bytes) -> x509.Certificate:
    """A certificate in the one spelling that DER allows. Raises `Unreadable`."""
    if read_certificate(der).serial <= 0:  # RFC 5280 4.1.2.2: positive
        raise Unreadable("model.chain", "a certificate without a positive serial")
    try:
        found = x509.load_der_x509_certificate(der)
        _ = found.extensions  # read late by the library, and refused late
    except _STRANGE:
        raise Unreadable("model.chain", "a certificate that cannot be read") from None
    return found


def _path(
    signer: x509.Certificate, others: Sequence[x509.Certificate], demanded: Certified
) -> list[x509.Certificate]:
    """The path from the signer to a pinned root, valid at the demanded moment (RFC 5280 6.1).

    For every certificate above the signer the library demands basic constraints, key usage `keyCertSign`,
    path length, names and validity; it knows no weak hash or key and no critical extension that it does not
    understand. Raises `Refused` (`model.chain`).
    """
    brought = [each for each in others if sha256(each.public_bytes(Encoding.DER)) in demanded.digests]
    roots = [*demanded.roots, *brought]
    if not roots:
        raise Refused("model.chain", "the file brings none of the roots that are pinned by digest")
    try:
        return (
            verification.PolicyBuilder()
            .store(verification.Store(roots))
            .time(demanded.at)
            .max_chain_depth(MAX_CHAIN)
            .extension_policies(
                # The library's own rules for extended uses are those of servers and clients: see `_may_sign`.
                ca_policy=verification.ExtensionPolicy.webpki_defaults_ca().may_be_present(
                    x509.ExtendedKeyUsage, verification.Criticality.AGNOSTIC, None
                ),
                ee_policy=verification.ExtensionPolicy.permit_all(),
            )
            .build_client_verifier()
            .verify(signer, list(others))
            .chain
        )
    except (verification.VerificationError, *_STRANGE) as error:
        raise Refused("model.chain", f"no path to a pinned root: {error!s:.200}") from None


def _may_sign(signer: x509.Certificate, above: Sequence[x509.Certificate]) -> x509.Certificate:
    """Return the signer if it may sign code, and everyone above it may let it (RFC 5280 4.2.1.3, 4.2.1.12).

    model-signing is content with `digitalSignature` or `codeSigning`; here each must hold where it is
    stated, and one of them must be. Raises `Refused` (`model.usage`).
    """
    if _is_ca(signer):
        raise Refused("model.usage", "a CA's certificate signs certificates, not models")
    usage = _extension(signer, x509.KeyUsage)
    if usage is not None and not usage.digital_signature:
        raise Refused("model.usage", "the signing certificate is not for signatures")
    extended = _extension(signer, x509.ExtendedKeyUsage)
    if extended is not None and ExtendedKeyUsageOID.CODE_SIGNING not in extended:
        raise Refused("model.usage", "the signing certificate is for other uses than signing code")
    for each in above:
        allowed = _extension(each, x509.ExtendedKeyUsage)
        if allowed is not None and not _CODE & set(allowed):
            raise Refused("model.usage", "an issuer of the path is for other uses than signing code")
    if usage is None and extended is None:
        raise Refused("model.usage", "the signing certificate does not say that it may sign")
    return signer


def _named(signer: x509.Certificate, wanted: str | None) -> x509.Certificate:
    """Return the signer if it is the one that must have signed. Raises `Refused` (`model.maker`)."""
    stated = [signer.subject.rfc4514_string()]
    alternative = _extension(signer, x509.SubjectAlternativeName)
    for kind in (x509.RFC822Name, x509.UniformResourceIdentifier, x509.DNSName):
        stated += alternative.get_values_for_type(kind) if alternative is not None else []
    if wanted is not None and wanted not in stated:
        raise Refused("model.maker", f"signed by {', '.join(stated):.300}")
    return signer


def _verified(signer: x509.Certificate, signature: bytes, payload: bytes) -> bytes:
    """The payload, if the certificate's key signed it (DSSE). Raises `Refused`."""
    public = signer.public_key()
    hashing = _HASHES.get(public.curve.name) if isinstance(public, ec.EllipticCurvePublicKey) else None
    if not isinstance(public, ec.EllipticCurvePublicKey) or hashing is None:
        raise Refused("model.key", "P-256, P-384 or P-521 is required")
    try:
        public.verify(signature, envelope.pae(envelope.STATEMENT, payload), ec.ECDSA(hashing))
    except InvalidSignature:
        raise Refused("envelope.signature_invalid", "the certificate's key did not sign this") from None
    return payload


def _is_ca(certificate: x509.Certificate) -> bool:
    constraints = _extension(certificate, x509.BasicConstraints)
    return constraints is not None and constraints.ca


def _extension(certificate: x509.Certificate, kind: type[E]) -> E | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
