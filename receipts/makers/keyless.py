"""Model signatures without a key of one's own (`model_signing sign sigstore`), under a pinned Sigstore root.

The library `sigstore` verifies, without a network: a certificate of minutes under the root's authority, its
certificate timestamp, the entry in the root's log, the time, and that identity and issuer are the demanded
ones (receipts.md 17.2). It is looser than we are in what nobody signed (17.5), so its file names nothing but
itself: what is compared with a receipt is the SHA-256 of the whole signature file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from receipts.model_signature import SignedModel, material, read_signed, signed_model
from receipts.sigstore_forms import ROOT_TYPE, TRUST_TYPE, trust_configuration
from schemas.canonical import read_json, write_json
from schemas.errors import Refused, Unreadable

MAX_ROOT_BYTES: Final = 1024 * 1024  # the public instance's root is about 10 KiB


@dataclass(frozen=True, slots=True)
class Keyless:
    """Whose signature a reader demands, and under which root."""

    root: bytes
    """A client trust configuration; `read_root` makes one of a trusted root alone."""
    identity: str
    """The certificate's alternative name: an address or a URI."""
    issuer: str
    """URL of who said that the signer is that."""


def read_root(data: bytes) -> bytes:
    """A trusted root, or a client trust configuration that holds one. Raises `Unreadable`."""
    document = read_json(data, limit=MAX_ROOT_BYTES)
    kind = document.get("mediaType") if isinstance(document, dict) else None
    if kind == ROOT_TYPE:
        return write_json(trust_configuration(document))
    if kind == TRUST_TYPE:
        return write_json(document)
    raise Unreadable("model.sigstore_root", f"{ROOT_TYPE} or {TRUST_TYPE} expected")


def verify_keyless(data: bytes, demanded: Keyless) -> SignedModel:
    """The model that the demanded identity signed.

    Raises `Unreadable`, or `Refused` with `model.sigstore`, `envelope.payload_type` or what `signed_model`
    raises.
    """
    _, inner = material(data, "certificate")
    signed = read_signed(inner)
    if _by_the_library(data, demanded) != (signed.payload_type, signed.payload):
        raise Refused("model.sigstore", "what was verified is not what was read")
    return signed_model(data, signed.payload, f"{demanded.identity} of {demanded.issuer}")


def _by_the_library(data: bytes, demanded: Keyless) -> tuple[str, bytes]:
    """(payload type, payload) as the library verified them. Raises `Refused` (`model.sigstore`)."""
    from sigstore.models import Bundle, ClientTrustConfig  # a second to import, and few need it
    from sigstore.verify import Verifier, policy

    try:
        root = ClientTrustConfig.from_json(demanded.root.decode()).trusted_root
        wanted = policy.Identity(identity=demanded.identity, issuer=demanded.issuer)
        return Verifier(trusted_root=root).verify_dsse(Bundle.from_json(data), wanted)
    except Exception as error:  # of many trees: whatever the library dislikes does not hold
        raise Refused("model.sigstore", f"{type(error).__name__}: {error!s:.200}") from None
