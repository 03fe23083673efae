"""The service's key set, archived with the token: its keys vanish within days (RFC 7517; gpu.md 9).

A key counts only as the key of a certificate that the set brings along, and that its intermediate issued.
The root above is in no key set: who wants it anchored pins the intermediate or the root.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from attestation.gpu.nras.token import decode_part
from attestation.gpu.pki.roots import Roots
from attestation.gpu.pki.signature import p384_of, verify_link
from attestation.pki.pins import Pin
from attestation.pki.x509 import Certificate, read_certificate
from schemas.canonical import Json, read_json
from schemas.errors import Refused, Undecided, Unreadable

MAX_SET_BYTES: Final = 1024 * 1024  # 32 keys with their certificates have 80 KiB
MAX_KEYS: Final = 256
MAX_CHAIN: Final = 4
SERVICE_NAME: Final = "NVIDIA Attestation Service"
_RSA_SHA256: Final = bytes.fromhex("300d06092a864886f70d01010b0500")  # RFC 4055 5
_COORDINATE: Final = 48


@dataclass(frozen=True, slots=True)
class ServiceKey:
    """The key that signed a token, and the certificates above it."""

    chain: tuple[Certificate, ...]
    """Leaf and intermediate; sometimes the root as well."""
    pin: Pin | None
    """None = nothing above the key is pinned."""

    @property
    def public(self) -> ec.EllipticCurvePublicKey:
        return p384_of(self.chain[0])


def find_key(key_sets: tuple[bytes, ...], key_id: str, issued_at: int, roots: Roots) -> ServiceKey:
    """The one key of that id, certified at the time of issue.

    Raises `Undecided` (`gpu.nras_keys_unavailable`) without a key set, else `Refused`. 1. exactly one key;
    2. it is the certificate's; 3. which names the service and was in date; 4. and its issuer signed it.
    """
    if not key_sets:
        raise Undecided("gpu.nras_keys_unavailable", "no key set was offered: the token cannot be checked")
    found = [key for data in key_sets for key in _read(data) if key.get("kid") == key_id]
    if not found or any(key != found[0] for key in found):
        raise Refused("gpu.nras_key_unknown", f"{len(found)} keys with the id {key_id}")
    chain = _certificates(found[0])
    _hold_coordinates(found[0], chain[0])
    _hold_leaf(chain, issued_at)
    pins = [roots.service.get(each.spki_fingerprint) for each in chain[1:]]
    return ServiceKey(chain, next((pin for pin in pins if pin is not None), None))


def _read(data: bytes) -> list[dict[str, Json]]:
    try:
        stated = read_json(data, limit=MAX_SET_BYTES)
    except Unreadable as error:
        raise _mismatch(error.text) from None
    keys = stated.get("keys") if isinstance(stated, dict) else None
    if not isinstance(keys, list) or len(keys) > MAX_KEYS:
        raise _mismatch("not a key set")
    return [key for key in keys if isinstance(key, dict)]


def _certificates(key: dict[str, Json]) -> tuple[Certificate, ...]:
    """x5c: standard base64, leaf first (RFC 7517 4.7)."""
    listed = key.get("x5c")
    if key.get("kty") != "EC" or key.get("crv") != "P-384" or not isinstance(listed, list):
        raise _mismatch("not a P-384 key with certificates")
    if not 2 <= len(listed) <= MAX_CHAIN or not all(isinstance(each, str) for each in listed):
        raise _mismatch(f"{len(listed)} certificates")
    try:
        return tuple(read_certificate(base64.b64decode(str(each), validate=True)) for each in listed)
    except (Unreadable, binascii.Error, ValueError):
        raise _mismatch("a certificate that cannot be read") from None


def _hold_coordinates(key: dict[str, Json], leaf: Certificate) -> Certificate:
    """x and y are those of the certified key (RFC 7518 6.2.1)."""
    try:
        public = p384_of(leaf).public_numbers()
    except Refused as error:
        raise _mismatch(error.text) from None
    stated = [key.get(name) for name in ("x", "y")]
    wanted = [number.to_bytes(_COORDINATE) for number in (public.x, public.y)]
    if [decode_part(each) if isinstance(each, str) else b"" for each in stated] != wanted:
        raise _mismatch("the key is not that of its certificate")
    return leaf


def _hold_leaf(chain: tuple[Certificate, ...], issued_at: int) -> Certificate:
    leaf, issuer, *_ = chain
    if not leaf.common_name.startswith(SERVICE_NAME):
        raise _mismatch(f"{leaf.common_name} is not the attestation service")
    if not leaf.not_before <= issued_at <= leaf.not_after:
        raise _mismatch(f"{leaf.common_name} was not in date when the token was issued")
    for child, parent in pairwise(chain):
        if child.issuer != parent.subject:
            raise _mismatch(f"{child.common_name} was not issued by {parent.common_name}")
        _verify(child, parent)
    if not issuer.not_before <= issued_at <= issuer.not_after:
        raise _mismatch(f"{issuer.common_name} was not in date when the token was issued")
    return leaf


def _verify(child: Certificate, parent: Certificate) -> Certificate:
    """NVIDIA's intermediate signs with RSA, what is above it with P-384."""
    key = parent.public_key
    if not isinstance(key, rsa.RSAPublicKey):
        try:
            verify_link(child.der, parent.der)
        except Refused as error:
            raise _mismatch(error.text) from None
        return child
    if child.signed.algorithm != _RSA_SHA256 or child.inner_algorithm != _RSA_SHA256:
        raise _mismatch(f"{child.common_name} is not signed with RSA and SHA-256")
    try:
        key.verify(child.signed.signature, child.signed.tbs, padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature:
        raise _mismatch(f"{child.common_name} is not signed by {parent.common_name}") from None
    return child


def _mismatch(why: str) -> Refused:
    return Refused("gpu.nras_key_mismatch", why)
