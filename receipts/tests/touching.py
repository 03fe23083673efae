"""What somebody who holds a bundle can do to it: leave parts out, sign them anew, put two together."""

from __future__ import annotations

from dataclasses import replace

from receipts.bundle import Bundle
from receipts.statements.statement import receipt_kind
from schemas import envelope
from schemas.keys import SigningKey


def predicate(data: bytes) -> str:
    """What a statement says it is."""
    return receipt_kind(envelope.read(data).payload)


def without(bundle: Bundle, kind: str) -> Bundle:
    kept = {name: data for name, data in bundle.envelopes.items() if kind not in predicate(data)}
    assert len(kept) < len(bundle.envelopes)
    return replace(bundle, envelopes=kept)


def resigned(bundle: Bundle, kind: str, key: SigningKey) -> Bundle:
    """The same words, those of this kind signed with another key."""
    signed = [
        envelope.sign(envelope.STATEMENT, envelope.read(data).payload, key)
        if kind in predicate(data)
        else data
        for data in bundle.envelopes.values()
    ]
    return replace(bundle, envelopes={envelope.read(data).digest: data for data in signed})


def joined(first: Bundle, second: Bundle) -> Bundle:
    """Receipts and proofs of both; everything else is the first one's."""
    return replace(
        first, envelopes={**first.envelopes, **second.envelopes}, proofs={**first.proofs, **second.proofs}
    )
