"""Model signatures (OpenSSF model-signing v1.0) under a key that the reader pins; no network is asked.

Such a file is a Sigstore bundle around a DSSE envelope that names every file of a model by digest. We
read it with our own envelope, as strictly as our own statements; the files are hashed by the node at
load. Not read: signatures by certificate or by a transparency log. A key inside the file is not looked at.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from schemas import envelope
from schemas.canonical import Json, read_json, sha256, write_json
from schemas.errors import Refused, Unreadable
from schemas.keys import VerifyKey

MAX_SIGNATURE_BYTES: Final = 4 * 1024 * 1024  # some ten thousand files of a model
MAX_FILES: Final = 16_384
STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE: Final = "https://model_signing/signature/v1.0"
MEDIA_TYPE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"


@dataclass(frozen=True, slots=True)
class SignedModel:
    """A model that the holder of a pinned key signed."""

    digest: str
    """SHA-256 of the signature file, hex: how receipts name it."""
    name: str
    signer: str
    """Thumbprint of the pinned key."""
    files: frozenset[str]
    """SHA-256 of each of the model's files, hex."""

    def holds(self, artifact_digest: str) -> Self:
        """This model, if the file is one of its own. Raises `Refused` (`model.file`)."""
        if artifact_digest not in self.files:
            raise Refused(
                "model.file", f"{self.name:.80} was signed without the file {artifact_digest[:16]}…"
            )
        return self


def verify_model(data: bytes, keys: Iterable[VerifyKey]) -> SignedModel:
    """The model that one of these keys signed.

    Raises `Unreadable`, or `Refused` with what `envelope.verify` raises, `model.predicate` or `model.root`.
    """
    signed = envelope.read(_envelope(data), limit=MAX_SIGNATURE_BYTES)
    if signed.payload_type != envelope.STATEMENT or len(signed.signatures) != 1:
        raise Refused("envelope.payload_type", "one signature over an in-toto statement expected")
    verified = envelope.verify_parsed(signed, keys)
    name, root, files = _stated(read_json(verified.payload, limit=MAX_SIGNATURE_BYTES))
    if sha256(*(bytes.fromhex(each) for each in files)).hex() != root:
        raise Refused("model.root", "the model's digest is not that of its files")
    return SignedModel(sha256(data).hex(), name, verified.signer, frozenset(files))


def read_signer(pem: bytes) -> VerifyKey:
    """A signer's public P-256 key in PEM. Raises `Unreadable` or `Refused`."""
    try:
        public = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise Unreadable("model.signer", "not a public key in PEM") from None
    if not isinstance(public, EllipticCurvePublicKey):
        raise Refused("keys.curve", "P-256 is required")
    return VerifyKey.of(public)


def _envelope(data: bytes) -> bytes:
    match read_json(data, limit=MAX_SIGNATURE_BYTES):
        case {
            "mediaType": str(kind),
            "verificationMaterial": {"publicKey": dict()},
            "dsseEnvelope": dict(inner),
        }:
            if kind != MEDIA_TYPE:
                raise Unreadable("model.media_type", f"{MEDIA_TYPE} expected")
            return write_json(inner)
    raise Unreadable("model.bundle", "not a model signature by a key")


def _stated(payload: Json) -> tuple[str, str, list[str]]:
    """(name, digest over all files, digest of each file in their order)."""
    match payload:
        case {
            "_type": kind,
            "subject": [{"name": str(name), "digest": {"sha256": str(root)}}],
            "predicateType": predicate,
            "predicate": {"serialization": {"method": str(method)}, "resources": list(listed)},
        }:
            if (kind, predicate) != (STATEMENT_TYPE, PREDICATE):
                raise Refused("model.predicate", f"{PREDICATE} expected")
            if method != "files" or not 1 <= len(listed) <= MAX_FILES:
                raise Unreadable("model.serialization", "one SHA-256 for each of the model's files expected")
            return name, root, [_file(each) for each in listed]
    raise Unreadable("model.statement", "not a statement about a model")


def _file(value: Json) -> str:
    match value:
        case {"name": str(), "algorithm": "sha256", "digest": str(digest)}:
            if len(digest) == 64 and all(each in "0123456789abcdef" for each in digest):
                return digest
    raise Unreadable("model.file", "a file without a SHA-256")
