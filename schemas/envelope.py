"""The one place that makes and checks signatures over messages and statements: DSSE 1.0.2.

The bytes that were signed are the bytes that are stored and parsed. An object's identity is the
SHA-256 of its pre-authentication encoding (PAE): signature bytes are malleable and name nothing.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import msgspec

from schemas.canonical import Json, read_json, sha256
from schemas.errors import Refused, Unreadable
from schemas.keys import SigningKey, VerifyKey

STATEMENT: Final = "application/vnd.in-toto+json"
MESSAGE: Final = "application/vnd.comity.message.v1+json"
ADVERT: Final = "application/vnd.comity.advert.v1+json"
CHARTER: Final = "application/vnd.comity.charter.v1+json"
REFERENCE_VALUES: Final = "application/vnd.comity.reference-values.v1+json"

_STANDARD: Final = bytes.maketrans(b"-_", b"+/")

MAX_ENVELOPE_BYTES = 256 * 1024  # one NATS message
MAX_SIGNATURES = 16  # a manifest's threshold of roots; everything else has exactly one
MAX_KEYS_TRIED = 16  # verifications that a signature may cost, whatever its keyid says


@dataclass(frozen=True, slots=True)
class Verified:
    """A payload whose signature was checked, and by whom it was made."""

    payload: bytes
    signer: str
    """Thumbprint of the registered key that verified."""
    digest: bytes
    """SHA-256 of the PAE, 32 bytes: the object's identity."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """A parsed, not yet verified envelope."""

    payload_type: str
    payload: bytes
    signatures: tuple[tuple[str, bytes], ...]
    """(keyid hint, signature bytes)"""

    @property
    def digest(self) -> bytes:
        return sha256(pae(self.payload_type, self.payload))


class _Signature(msgspec.Struct, gc=False):
    """A signature as DSSE names its parts."""

    keyid: str
    sig: bytes


class _Written(msgspec.Struct, gc=False):
    """An envelope as DSSE names its parts, in the order in which we write them; bytes are base64."""

    payload: bytes
    payloadType: str
    signatures: list[_Signature]


_encode: Final = msgspec.json.Encoder().encode
_decode_written: Final = msgspec.json.Decoder(_Written).decode


def pae(payload_type: str, payload: bytes) -> bytes:
    """Pre-authentication encoding (DSSE protocol.md): lengths are byte counts in decimal."""
    kind = payload_type.encode("utf-8")
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def digest(payload_type: str, payload: bytes) -> bytes:
    """The identity of a signed object: SHA-256 of its PAE (32 bytes)."""
    return sha256(pae(payload_type, payload))


def sign(payload_type: str, payload: bytes, *keys: SigningKey) -> bytes:
    """A DSSE envelope as JSON bytes, signed by each key (one, but for threshold-signed manifests)."""
    return sign_digest(payload_type, payload, digest(payload_type, payload), *keys)


def sign_digest(payload_type: str, payload: bytes, digest: bytes, *keys: SigningKey) -> bytes:
    """As `sign`, byte for byte, where the object's digest is known already."""
    signatures = tuple((key.thumbprint, key.sign_digest(digest)) for key in keys)
    return write(Envelope(payload_type, payload, signatures))


def write(envelope: Envelope) -> bytes:
    """The one spelling in which envelopes leave: compact JSON, standard base64."""
    signatures = [_Signature(keyid, signature) for keyid, signature in envelope.signatures]
    return _encode(_Written(envelope.payload, envelope.payload_type, signatures))


def read(data: bytes, *, limit: int = MAX_ENVELOPE_BYTES) -> Envelope:
    """Parse an envelope without verifying it. Raises `Unreadable`. Unknown fields are ignored (DSSE)."""
    return (_read_written(data) if len(data) <= limit else None) or _read_any(data, limit)


def _read_any(data: bytes, limit: int) -> Envelope:
    """Any JSON spelling of an envelope."""
    match read_json(data, limit=limit):
        case {"payload": str(payload), "payloadType": str(kind), "signatures": list(listed)}:
            if not 1 <= len(listed) <= MAX_SIGNATURES:
                raise Unreadable("envelope.signature_count", f"{len(listed)} signatures")
            return Envelope(kind, _base64(payload), tuple(_signature(entry) for entry in listed))
    raise Unreadable("envelope.malformed", "not a DSSE envelope")


def _read_written(data: bytes) -> Envelope | None:
    """What `read` gives, for an envelope as `sign` writes it; None for any other spelling.

    A compiled reader that is not believed (docs/decisions/0010): only what comes out as the very bytes that
    went in is used, so that no second key, no blank and no loose base64 can hide.
    """
    try:
        found = _decode_written(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not 1 <= len(found.signatures) <= MAX_SIGNATURES or _encode(found) != data:
        return None
    signatures = tuple((each.keyid, each.sig) for each in found.signatures)
    return Envelope(found.payloadType, found.payload, signatures)


def verify(data: bytes, payload_type: str, keys: Iterable[VerifyKey]) -> Verified:
    """Check a single-signature envelope against registered keys, and hand out what they signed.

    Raises `Unreadable`, or `Refused` with `envelope.payload_type`, `envelope.signature_count`,
    `envelope.key_unknown` or `envelope.signature_invalid`.
    """
    return verify_one(read(data), payload_type, keys)


def verify_one(envelope: Envelope, payload_type: str, keys: Iterable[VerifyKey]) -> Verified:
    """As `verify`, for an envelope that was read already. Raises `Refused`."""
    if envelope.payload_type != payload_type:
        raise Refused("envelope.payload_type", f"{payload_type} expected")
    if len(envelope.signatures) != 1:
        raise Refused("envelope.signature_count", "exactly one signature expected")
    return verify_parsed(envelope, keys)


def verify_parsed(envelope: Envelope, keys: Iterable[VerifyKey]) -> Verified:
    """As `verify`, for an envelope that was read already; any one signature by a given key is enough."""
    digest = envelope.digest
    for key, signature in _candidates(envelope, list(keys)):
        try:
            key.verify_digest(signature, digest)
        except Refused:
            continue
        return Verified(envelope.payload, key.thumbprint, digest)
    raise Refused("envelope.signature_invalid", "no registered key made this signature")


def verify_threshold(data: bytes, payload_type: str, keys: Iterable[VerifyKey], threshold: int) -> Verified:
    """Check that at least `threshold` *different* keys signed. Raises as `verify`."""
    envelope = read(data)
    if envelope.payload_type != payload_type:
        raise Refused("envelope.payload_type", f"{payload_type} expected")
    if threshold < 1:
        raise Refused("envelope.threshold", "a threshold is at least one")
    digest = envelope.digest
    signers: set[str] = set()
    for key, signature in _candidates(envelope, list(keys)):
        try:
            key.verify_digest(signature, digest)
        except Refused:
            continue
        signers.add(key.thumbprint)
    if len(signers) < threshold:
        raise Refused("envelope.threshold", f"{len(signers)} of {threshold} required signatures hold")
    return Verified(envelope.payload, min(signers), digest)


def _candidates(envelope: Envelope, keys: list[VerifyKey]) -> list[tuple[VerifyKey, bytes]]:
    """Which keys to try on which signatures. keyid is unauthenticated: it narrows, it never decides."""
    pairs: list[tuple[VerifyKey, bytes]] = []
    for keyid, signature in envelope.signatures:
        named = [key for key in keys if key.thumbprint == keyid]
        pairs += [(key, signature) for key in (named or keys)[:MAX_KEYS_TRIED]]
    if not pairs:
        raise Refused("envelope.key_unknown", "no key is registered for this")
    return pairs


def _signature(entry: Json) -> tuple[str, bytes]:
    match entry:
        case {"sig": str(sig), **rest}:
            keyid = rest.get("keyid", "")
            if isinstance(keyid, str):
                return keyid, _base64(sig)
    raise Unreadable("envelope.malformed", "a signature entry is malformed")


def _base64(text: str) -> bytes:
    """Standard or URL-safe, never mixed, padded, without stray bits (receipts.md 2)."""
    urlsafe = "-" in text or "_" in text
    if urlsafe and ("+" in text or "/" in text):
        raise Unreadable("envelope.base64", "mixed base64 alphabets")
    try:
        raw = text.encode("ascii")
    except ValueError:
        raise Unreadable("envelope.base64", "not base64") from None
    return _decode(raw.translate(_STANDARD) if urlsafe else raw)


def _decode(raw: bytes) -> bytes:
    """Standard base64, whole and padded; of its last group alone, spare bits could be set (RFC 4648 3.5)."""
    try:
        data = binascii.a2b_base64(raw, strict_mode=True)
    except binascii.Error:
        raise Unreadable("envelope.base64", "not base64") from None
    last = raw[-4:]
    if len(raw) % 4 or base64.b64encode(binascii.a2b_base64(last)) != last:
        raise Unreadable("envelope.base64", "base64 with stray bits or missing padding")
    return data
