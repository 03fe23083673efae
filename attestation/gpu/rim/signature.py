"""The signature of a manifest: one shape of XML-DSig and no other (W3C xmldsig-core1; gpu.md 6).

The signature covers the whole document but itself. What is read are the very bytes whose digest was
signed, so that nobody can read a value that was not under the signature.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from lxml import etree

from attestation.gpu.pki.signature import RAW_BYTES, p384_of, verify_raw
from attestation.gpu.rim.canonical import malformed
from attestation.gpu.rim.document import read_document
from attestation.pki.x509 import Certificate, read_certificate
from schemas.errors import Refused, Unreadable

CHAIN_LENGTH: Final = 4
_DS: Final = "{http://www.w3.org/2000/09/xmldsig#}"
_C14N11: Final = "http://www.w3.org/2006/12/xml-c14n11"
_ENVELOPED: Final = "http://www.w3.org/2000/09/xmldsig#enveloped-signature"
_ECDSA_SHA384: Final = "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384"
_SHA384: Final = "http://www.w3.org/2001/04/xmldsig-more#sha384"


@dataclass(frozen=True, slots=True)
class Signature:
    """The signature of a document, in the one shape. It has not been verified."""

    chain: tuple[Certificate, ...]
    """Signer, two authorities, root; as delivered."""
    digest_holds: bool
    """Whether the digest in `signed_info` is that of the document."""
    signed_info: bytes
    value: bytes
    """r ‖ s, 96 bytes, over `signed_info`."""


@dataclass(frozen=True, slots=True)
class _Parts:
    """A signature's elements, once their shape holds."""

    signature: Any
    signed_info: Any
    digest: bytes
    value: bytes
    certificates: tuple[bytes, ...]


def read_signed(data: bytes) -> tuple[bytes, Signature]:
    """The bytes that are digested, everything but the signature; and that. Raises `Refused` (`gpu.rim_*`).

    1. well-formed and bounded; 2. one signature of the one shape; 3. its certificates can be read.
    """
    root = read_document(data)
    parts = _parts(root)
    chain = _chain(parts.certificates)
    signed_info = _canonical(parts.signed_info)
    canonical = _canonical_without(root, parts.signature)
    digest_holds = hashlib.sha384(canonical).digest() == parts.digest
    return canonical, Signature(chain, digest_holds, signed_info, parts.value)


def verify_signed(signature: Signature) -> Signature:
    """The signature, which its first certificate's key made; the chain is not judged. Raises `Refused`.

    1. SignedInfo under the signer's key; 2. the digest of everything else (xmldsig-core1 3.2).
    """
    try:
        verify_raw(p384_of(signature.chain[0]), signature.value, signature.signed_info)
    except Refused as error:
        raise Refused("gpu.rim_signature_invalid", error.text) from None
    if not signature.digest_holds:
        raise Refused("gpu.rim_digest_mismatch", "the document is not what was signed")
    return signature


def _parts(root: Any) -> _Parts:
    """The one signature, directly under the root, with the members that it must have and no others."""
    found = list(root.iter(f"{_DS}Signature", f"{_DS}Object"))
    signature = next((each for each in found if each.tag == f"{_DS}Signature"), None)
    if signature is None:
        raise malformed("not signed")
    if len(found) != 1 or signature.getparent() is not root:
        raise _wrapping("not exactly one signature, directly under the root, or an Object inside it")
    info, value, key = _members(signature, "SignedInfo", "SignatureValue", "KeyInfo")
    method, algorithm, reference = _members(info, "CanonicalizationMethod", "SignatureMethod", "Reference")
    _hold_algorithm(method, _C14N11)
    _hold_algorithm(algorithm, _ECDSA_SHA384)
    return _Parts(signature, info, _reference(reference), _base64(value, RAW_BYTES), _certificates(key))


def _members(element: Any, *names: str) -> list[Any]:
    """Exactly these children, in this order."""
    children = list(element)
    if [child.tag for child in children] != [f"{_DS}{name}" for name in names]:
        raise _wrapping(f"{etree.QName(element).localname} has other members than {', '.join(names)}")
    return children


def _hold_algorithm(element: Any, wanted: str) -> Any:
    """An allow list of one: no parameters, no children (xmldsig-core1 6.1)."""
    if element.items() != [("Algorithm", wanted)] or len(element):
        raise Refused("gpu.rim_algorithm_refused", f"{element.get('Algorithm')} where {wanted} belongs")
    return element


def _reference(reference: Any) -> bytes:
    """The digest of the one reference, which is to the whole document (xmldsig-core1 4.4.3.2)."""
    if reference.items() != [("URI", "")]:
        raise _wrapping("a reference to something else than the whole document")
    transforms, method, value = _members(reference, "Transforms", "DigestMethod", "DigestValue")
    applied = list(transforms)
    if [each.tag for each in applied] != [f"{_DS}Transform"] * 2:
        raise Refused("gpu.rim_algorithm_refused", "not exactly two transforms")
    _hold_algorithm(applied[0], _ENVELOPED)
    _hold_algorithm(applied[1], _C14N11)
    _hold_algorithm(method, _SHA384)
    return _base64(value, hashlib.sha384().digest_size)


def _certificates(key: Any) -> tuple[bytes, ...]:
    """X509Data alone counts; a KeyValue is passed over, since it proves nothing (xmldsig-core1 4.5)."""
    named = [child for child in key if child.tag != f"{_DS}KeyValue"]
    if [child.tag for child in named] != [f"{_DS}X509Data"]:
        raise _wrapping("KeyInfo holds something other than certificates")
    found = list(named[0])
    if [child.tag for child in found] != [f"{_DS}X509Certificate"] * CHAIN_LENGTH:
        raise Refused("gpu.rim_chain_untrusted", f"not {CHAIN_LENGTH} certificates")
    return tuple(_base64(child) for child in found)


def _base64(element: Any, length: int | None = None) -> bytes:
    """The element's text, which may be broken into lines (xmldsig-core1 4.2)."""
    try:
        decoded = base64.b64decode("".join((element.text or "").split()), validate=True)
    except (binascii.Error, ValueError):
        raise malformed("a value that is not base64") from None
    if len(element) or not decoded or length not in (None, len(decoded)):
        raise malformed(f"{etree.QName(element).localname} has {len(decoded)} bytes")
    return decoded


def _chain(certificates: Sequence[bytes]) -> tuple[Certificate, ...]:
    try:
        return tuple(read_certificate(each) for each in certificates)
    except Unreadable as error:
        raise malformed(error.text) from None


def _canonical(element: Any) -> bytes:
    """C14N without comments, with the namespaces in scope (xml-c14n11; the same bytes as 1.0 here)."""
    try:
        canonical: bytes = etree.tostring(element, method="c14n", exclusive=False, with_comments=False)
    except etree.C14NError:  # a relative namespace URI, which C14N 1.0 section 1.3 forbids
        raise malformed("cannot be canonicalised") from None
    return canonical


def _canonical_without(root: Any, signature: Any) -> bytes:
    """The enveloped-signature transform (xmldsig-core1 6.6.4): the text behind the signature stays."""
    tail, previous = signature.tail or "", signature.getprevious()
    if previous is None:
        root.text = (root.text or "") + tail
    else:
        previous.tail = (previous.tail or "") + tail
    root.remove(signature)
    return _canonical(root)


def _wrapping(why: str) -> Refused:
    return Refused("gpu.rim_signature_wrapping", why)
