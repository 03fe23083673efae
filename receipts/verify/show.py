"""What a bundle states, unverified, for people who want to read it."""

from __future__ import annotations

from receipts import bundle as bundles
from receipts import proof
from schemas import envelope
from schemas.canonical import Json, read_json


def describe(data: bytes) -> dict[str, Json]:
    """Every statement, proof and file of a bundle. Nothing is judged. Raises `Unreadable`."""
    bundle = bundles.read(data)
    statements: list[Json] = []
    for digest, raw in bundle.envelopes.items():
        parsed = envelope.read(raw)
        keyids: list[Json] = [keyid for keyid, _ in parsed.signatures]
        statements.append({"digest": digest.hex(), "keyids": keyids, "statement": read_json(parsed.payload)})
    return {
        "verified": False,
        "statements": statements,
        "proofs": [_proof(digest, text) for digest, text in sorted(bundle.proofs.items())],
        "charter": bundle.charter is not None,
        "manifests": [envelope.read(raw).digest.hex() for raw in bundle.manifests],
        "evidence": [{"digest": digest.hex(), "bytes": len(raw)} for digest, raw in bundle.blobs.items()],
        "disclosures": {name: disclosed.as_json() for name, disclosed in bundle.disclosures.items()},
    }


def _proof(digest: bytes, text: bytes) -> Json:
    parsed = proof.read(text)
    return {
        "receipt": digest.hex(),
        "index": parsed.index,
        "hashes": len(parsed.path),
        "checkpoint": parsed.note.decode("utf-8", "replace"),
    }
