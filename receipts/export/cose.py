"""A receipt as COSE: its payload in a COSE_Sign1, its place in the log as a COSE receipt beside it.

Both are signed anew, by the receipt key and by the log's: COSE signs other bytes than DSSE and notes do,
which begin with 0x84 (RFC 9052 4.4) and so can be taken for neither. Nothing is signed that the same keys had
not signed before: payload and checkpoint are verified first.

COSE receipts were written by the editor's draft of RFC 9942 (label 394 receipts, 395 `vds`, 396 `vdp`,
RFC9162_SHA256 = 1); its published text was not at hand.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import cbor2
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from receipts import proof
from receipts.leaf import raw_thumbprint
from receipts.note import NoteKey, NoteSigner
from receipts.statements.receipt import KINDS
from receipts.statements.statement import receipt_kind
from schemas import envelope
from schemas.errors import Refused
from schemas.keys import SigningKey

SIGN1: Final = 18  # tag of COSE_Sign1 (RFC 9052 2)
ALGORITHM: Final = 1  # header parameters of RFC 9052 3.1
CONTENT_TYPE: Final = 3
KEY_ID: Final = 4
CLAIMS: Final = 15  # CWT claims in headers (RFC 9597)
ISSUER: Final = 1  # of CWT claims (RFC 8392)
RECEIPTS: Final = 394
STRUCTURE: Final = 395
PROOFS: Final = 396
RFC9162_SHA256: Final = 1
INCLUSION: Final = -1
ES256: Final = -7  # RFC 9053 2.1: ECDSA with SHA-256, r ‖ s
EDDSA: Final = -8  # RFC 9053 2.2; what readers know, though RFC 9864 gives Ed25519 a number of its own
SALT: Final = "comity-leaf-salt"
"""Our own header: with payload and key it makes the leaf record, which the inclusion proof is about."""

Header: TypeAlias = dict[int | str, Any]
"""Parameters of COSE by their numbers, our own by name."""


@dataclass(frozen=True, slots=True)
class Signers:
    """The keys of an export: those that signed receipt and checkpoint already."""

    receipt: SigningKey
    log: NoteSigner


def export(data: bytes, text: bytes, signers: Signers, log_keys: Iterable[NoteKey]) -> bytes:
    """The COSE form of a receipt's envelope and its inclusion proof.

    `log_keys`: those that the log's domain registered. Raises what `envelope.verify` and `proof.verify`
    raise; `Refused` with `export.log_key` for another log's key, `export.alone` for a tree of one leaf.
    """
    verified = envelope.verify(data, envelope.STATEMENT, [signers.receipt.public])
    registered = list(log_keys)
    if signers.log.key not in registered:
        raise Refused("export.log_key", f"not a registered key of {signers.log.key.name}")
    logged = proof.verify(
        text,
        kind=KINDS[receipt_kind(verified.payload)],
        receipt_digest=verified.digest,
        issuer_thumbprint=verified.signer,
        origin=signers.log.key.name,
        keys=registered,
    )
    parsed, stated = proof.read(text), logged.checkpoint.checkpoint
    if not parsed.path:
        raise Refused("export.alone", "a COSE receipt names a sibling: wait for a second leaf in the log")
    place = _write([stated.size, parsed.index, list(parsed.path)])
    receipt = _inclusion(place, stated.root, signers.log)
    protected: Header = {
        ALGORITHM: ES256,
        CONTENT_TYPE: envelope.STATEMENT,
        KEY_ID: raw_thumbprint(verified.signer),
    }
    return _sign1(
        protected,
        {RECEIPTS: [receipt], SALT: parsed.extra},
        verified.payload,
        _es256(signers.receipt, _signed(protected, verified.payload)),
    )


def _inclusion(place: bytes, root: bytes, signer: NoteSigner) -> bytes:
    """A receipt of inclusion: the root is signed and left out, so that a reader must compute it."""
    key = signer.key
    protected: Header = {
        ALGORITHM: EDDSA,
        KEY_ID: key.key_id,
        CLAIMS: {ISSUER: key.name},  # the root alone would not say of which log
        STRUCTURE: RFC9162_SHA256,
    }
    signature = signer.private.sign(_signed(protected, root))
    return _sign1(protected, {PROOFS: {INCLUSION: [place]}}, None, signature)


def _signed(protected: Header, payload: bytes) -> bytes:
    """Sig_structure (RFC 9052 4.4), without external data."""
    return _write(["Signature1", _write(protected), b"", payload])


def _sign1(protected: Header, unprotected: Header, payload: bytes | None, signature: bytes) -> bytes:
    return _write(cbor2.CBORTag(SIGN1, [_write(protected), unprotected, payload, signature]))


def _write(value: Any) -> bytes:
    """CBOR in its deterministic form: shortest heads, definite lengths, keys in order (RFC 8949 4.2)."""
    return cbor2.dumps(value, canonical=True)


def _es256(key: SigningKey, signed: bytes) -> bytes:
    """r ‖ s, each of 32 bytes (RFC 9053 2.1)."""
    r, s = decode_dss_signature(key.sign(signed))
    return r.to_bytes(32) + s.to_bytes(32)
