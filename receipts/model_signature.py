"""Model signatures (OpenSSF model-signing v1.0) under a key that the reader pins; no network is asked.

Such a file is a Sigstore bundle around a DSSE envelope that names every file of a model by digest. We
read it with our own envelope, as strictly as our own statements; the files are hashed by the node at
load. A key inside the file is not looked at. Other signers than a pinned key are `receipts.makers`: a file
holds one kind of them, and is never read as another.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, Self, TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from receipts.sigstore_forms import BUNDLE_TYPE
from schemas import envelope
from schemas.canonical import Json, read_json, sha256, write_json
from schemas.envelope import Envelope
from schemas.errors import Refused, Unreadable
from schemas.keys import VerifyKey

MAX_SIGNATURE_BYTES: Final = 4 * 1024 * 1024  # some ten thousand files of a model
MAX_FILES: Final = 16_384
STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE: Final = "https://model_signing/signature/v1.0"

Material: TypeAlias = Literal["publicKey", "x509CertificateChain", "certificate"]
_MATERIALS: Final[dict[Material, str]] = {
    "publicKey": "a key",
    "x509CertificateChain": "a chain of certificates",
    "certificate": "an identity",
}


@dataclass(frozen=True, slots=True)
class SignedModel:
    """A model that the holder of a pinned key signed."""

    digest: str
    """SHA-256 of the signature file, hex: how receipts name it."""
    name: str
    signer: str
    """Thumbprint of the pinned key; or the certificate with its root; or the identity with its issuer."""
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
    _, inner = material(data, "publicKey")
    verified = envelope.verify_parsed(read_signed(inner), keys)
    return signed_model(data, verified.payload, verified.signer)


def read_signed(inner: bytes) -> Envelope:
    """One signature over an in-toto statement, not yet verified.

    Raises `Unreadable`, or `Refused` with `envelope.payload_type`.
    """
    signed = envelope.read(inner, limit=MAX_SIGNATURE_BYTES)
    if signed.payload_type != envelope.STATEMENT or len(signed.signatures) != 1:
        raise Refused("envelope.payload_type", "one signature over an in-toto statement expected")
    return signed


def signed_model(data: bytes, payload: bytes, signer: str) -> SignedModel:
    """What a payload says that `signer` was found to have signed, in the signature file `data`.

    Raises `Unreadable`, or `Refused` with `model.predicate` or `model.root`.
    """
    name, root, files = _stated(read_json(payload, limit=MAX_SIGNATURE_BYTES))
    if sha256(*(bytes.fromhex(each) for each in files)).hex() != root:
        raise Refused("model.root", "the model's digest is not that of its files")
    return SignedModel(sha256(data).hex(), name, signer, frozenset(files))


def read_signer(pem: bytes) -> VerifyKey:
    """A signer's public P-256 key in PEM. Raises `Unreadable` or `Refused`."""
    try:
        public = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise Unreadable("model.signer", "not a public key in PEM") from None
    if not isinstance(public, EllipticCurvePublicKey):
        raise Refused("keys.curve", "P-256 is required")
    return VerifyKey.of(public)


def material(data: bytes, kind: Material) -> tuple[Json, bytes]:
    """(what the file brings of its signer, its DSSE envelope), for a file of this kind and no other.

    Raises `Unreadable` (`model.bundle`, `model.media_type`).
    """
    match read_json(data, limit=MAX_SIGNATURE_BYTES):
        case {"mediaType": str(media), "verificationMaterial": dict(brought), "dsseEnvelope": dict(inner)}:
            if [each for each in _MATERIALS if each in brought] != [kind] or not isinstance(
                brought[kind], dict
            ):
                raise Unreadable("model.bundle", f"not a model signature by {_MATERIALS[kind]}")
            if media != BUNDLE_TYPE:
                raise Unreadable("model.media_type", f"{BUNDLE_TYPE} expected")
            return brought[kind], write_json(inner)
    raise Unreadable("model.bundle", "not a model signature")


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
