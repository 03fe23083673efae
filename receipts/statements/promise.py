"""InclusionPromise: the log's signed word that a receipt stands at this index, before the proof exists.

One writer assigns the index inside the durable transaction, so that a broken promise is short to
show: the promise, and a checkpoint past that index with another leaf there (receipts.md 7.3).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from receipts.statements.fields import Camel
from receipts.statements.receipt import PREDICATES
from receipts.statements.statement import Statement, frame, parse_payload
from schemas import envelope
from schemas.canonical import Json, write_json
from schemas.errors import Refused
from schemas.keys import VerifyKey
from schemas.primitives import Count, Digest, DomainName, Label, TimeText, Token, parse_time

INCLUSION_PROMISE: Final = f"{PREDICATES}/inclusion-promise/v1"
MAX_MERGE_DELAY_S: Final = 10  # seconds, unless the manifest says otherwise (receipts.md 7.3)


class InclusionPromise(Camel):
    """A leaf that will be under every checkpoint of this log from `deadline` on."""

    federation: Label
    issuer: DomainName
    origin: Label
    receipt_id: Token
    receipt_digest: Digest
    leaf_hash: Digest
    index: Count
    time: TimeText
    deadline: TimeText


def promise_payload(promise: InclusionPromise) -> bytes:
    """The payload to sign."""
    return frame(INCLUSION_PROMISE, promise.receipt_id, promise.receipt_digest, promise.write())


@dataclass(frozen=True, slots=True)
class PromiseForm:
    """`promise_payload` for many promises of one log: byte for byte what the model writes."""

    before: str
    """JSON members of log and issuer, comma behind."""

    @classmethod
    def of(cls, federation: str, issuer: str, origin: str) -> PromiseForm:
        names: dict[str, Json] = {"federation": federation, "issuer": issuer, "origin": origin}
        return cls(write_json(names)[1:-1].decode() + ",")

    def payload(
        self, receipt_id: str, receipt_digest: str, leaf_hash: str, index: int, times: tuple[str, str]
    ) -> bytes:
        """A promise's payload, from plain tokens, hex digests and `(time, deadline)`: none needs escapes."""
        body = (
            f'{{{self.before}"receiptId":"{receipt_id}","receiptDigest":"{receipt_digest}",'
            f'"leafHash":"{leaf_hash}","index":{index},"time":"{times[0]}","deadline":"{times[1]}"}}'
        )
        return frame(INCLUSION_PROMISE, receipt_id, receipt_digest, body.encode())


def read_promise(
    data: bytes, *, keys: Iterable[VerifyKey], issuer: str, federation: str, receipt_digest: bytes
) -> Statement[InclusionPromise]:
    """A promise for this very receipt, by one of the issuer's keys of role `promise`.

    Raises `Unreadable`, or `Refused` with `promise.issuer`, `promise.receipt` or `promise.times`.
    """
    verified = envelope.verify(data, envelope.STATEMENT, keys)
    promise = parse_promise(verified.payload)
    if (promise.issuer, promise.federation) != (issuer, federation):
        raise Refused("promise.issuer", f"not a promise by {issuer} in {federation}")
    if promise.receipt_digest != receipt_digest.hex():
        raise Refused("promise.receipt", "the promise is for another receipt")
    return Statement(promise, verified.digest, verified.signer, data)


def parse_promise(payload: bytes) -> InclusionPromise:
    """The payload, unverified. Raises `Unreadable` or `Refused`."""
    name, digest, promise = parse_payload(payload, INCLUSION_PROMISE, InclusionPromise)
    if (name, digest) != (promise.receipt_id, promise.receipt_digest):
        raise Refused("receipt.subject", "the subject is not the receipt that was promised")
    if parse_time(promise.deadline) < parse_time(promise.time):
        raise Refused("promise.times", "the deadline lies before the promise")
    return promise


def is_due(promise: InclusionPromise, at: datetime) -> bool:
    """Whether the log owes a proof by now."""
    return at >= parse_time(promise.deadline)
