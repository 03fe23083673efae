"""The in-toto frame of every statement, and the one way to read a signed one (receipts.md 2 to 4).

Order: parse the envelope, check the signature under registered keys, parse the very bytes that
were signed, check type and subject, then issuer, federation and audience. Nothing is serialised again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from json.encoder import encode_basestring
from typing import Final, Generic, TypeVar

from receipts.statements.fields import Camel
from receipts.statements.receipt import FIRST, MODELS, Receipt
from schemas import envelope
from schemas.canonical import MAX_JSON_BYTES, Json, read_json, sha256
from schemas.errors import Refused, Unreadable
from schemas.keys import VerifyKey

STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
COMMITMENT_LABEL: Final = b"comity-commitment-v1\n"

B = TypeVar("B", bound=Camel)


@dataclass(frozen=True, slots=True)
class Statement(Generic[B]):
    """A statement that was authenticated or, by `parse`, merely read."""

    body: B
    digest: bytes
    """Receipt digest: SHA-256 of the PAE, 32 bytes."""
    signer: str
    """Thumbprint of the registered key that verified; empty when only parsed."""
    envelope: bytes = field(repr=False)


def commitment_file(commitment: str) -> bytes:
    """The file that `subject` names: a label and the 32-byte request commitment; it reveals nothing."""
    return COMMITMENT_LABEL + bytes.fromhex(commitment)


def frame(predicate_type: str, name: str, digest: str, predicate: bytes) -> bytes:
    """Payload bytes of a statement, from a predicate that is JSON already."""
    subject = f'{_BEFORE}{encode_basestring(name)},"digest":{{"sha256":{encode_basestring(digest)}}}}}],'
    return subject.encode() + _type_member(predicate_type) + predicate + b"}"


_BEFORE: Final = f'{{"_type":"{STATEMENT_TYPE}","subject":[{{"name":'
_WRITTEN: Final = re.compile(
    re.escape(_BEFORE).encode()
    + rb'"(?P<name>[!#-[\]-~]*)","digest":{"sha256":"(?P<digest>[!#-[\]-~]*)"}}\],'
)
"""A frame as far as the subject, in plain ASCII without escapes: it says what stands there."""


@lru_cache
def _type_member(predicate_type: str) -> bytes:
    return f'"predicateType":{encode_basestring(predicate_type)},"predicate":'.encode()


def parse_payload(payload: bytes, predicate_type: str, model: type[B]) -> tuple[str, str, B]:
    """(subject name, subject SHA-256, predicate) of strictly read payload bytes.

    Raises `Unreadable`, or `Refused` with `receipt.type`, `receipt.predicate_type`,
    `receipt.subject` or `receipt.crit_unknown`.
    """
    return _parse_written(payload, predicate_type, model) or _parse_any(payload, predicate_type, model)


def _parse_written(payload: bytes, predicate_type: str, model: type[B]) -> tuple[str, str, B] | None:
    """The same for bytes as `frame` and `Wire.write` make them, where no field is critical; else None."""
    subject = _WRITTEN.match(payload) if len(payload) <= MAX_JSON_BYTES else None
    if subject is None or not payload.startswith(_type_member(predicate_type), subject.end()):
        return None
    begin = subject.end() + len(_type_member(predicate_type))
    body = model.read_written(payload[begin:-1]) if payload.endswith(b"}") else None
    if body is None or getattr(body, "crit", None):
        return None
    return subject["name"].decode(), subject["digest"].decode(), body


def _parse_any(payload: bytes, predicate_type: str, model: type[B]) -> tuple[str, str, B]:
    """Any JSON spelling of a statement."""
    match read_json(payload, limit=MAX_JSON_BYTES):
        case {
            "_type": kind,
            "subject": subject,
            "predicateType": found,
            "predicate": dict(predicate),
            **more,
        }:
            if more:
                raise Unreadable("receipt.frame", "a field that in-toto Statement v1 does not have")
            if kind != STATEMENT_TYPE:
                raise Refused("receipt.type", "not an in-toto Statement v1")
            if found != predicate_type:
                raise Refused("receipt.predicate_type", f"{predicate_type} expected")
            name, digest = _subject(subject)
            _check_crit(predicate.get("crit", []), model)
            return name, digest, model.from_json(predicate)
    raise Unreadable("receipt.frame", "not an in-toto statement")


R = TypeVar("R", bound=Receipt)


def read_receipt(
    data: bytes,
    model: type[R],
    *,
    keys: Iterable[VerifyKey],
    issuer: str,
    federation: str,
    audience: str | None,
) -> Statement[R]:
    """A signed Placement, Execution or Acknowledgement.

    `keys`: the issuer's registered keys of role `receipt`. `audience`: the domain that relies on it;
    None for an auditor, who is nobody's counterparty. Raises `Unreadable`, or `Refused` with
    `receipt.issuer`, `receipt.federation`, `receipt.audience`, `receipt.subject` or `receipt.first`.
    """
    verified = envelope.verify(data, envelope.STATEMENT, keys)
    body = parse_receipt(verified.payload, model)
    if body.issuer != issuer:
        raise Refused("receipt.issuer", f"issued by {body.issuer}, not by {issuer}")
    if body.federation != federation:
        raise Refused("receipt.federation", "another federation's receipt")
    if audience is not None and audience not in body.audience:
        raise Refused("receipt.audience", f"not meant for {audience}")
    return Statement(body, verified.digest, verified.signer, data)


def parse_receipt(payload: bytes, model: type[R]) -> R:
    """A receipt's payload, checked within itself: subject, sequence start. Raises as `parse_payload`."""
    predicate_type = next(name for name, known in MODELS.items() if known is model)
    name, digest, body = parse_payload(payload, predicate_type, model)
    if name != body.receipt_id or digest != sha256(commitment_file(body.request.commitment)).hex():
        raise Refused("receipt.subject", "the subject is not this receipt's request commitment")
    if (body.seq == 0) != (body.prev == FIRST):
        raise Refused("receipt.first", "`prev` is zero exactly for sequence number 0")
    return body


def receipt_kind(payload: bytes) -> str:
    """The predicate type that a payload names, unverified. Raises `Unreadable`."""
    match read_json(payload, limit=MAX_JSON_BYTES):
        case {"predicateType": str(kind)}:
            return kind
    raise Unreadable("receipt.frame", "not an in-toto statement")


def _subject(value: Json) -> tuple[str, str]:
    match value:
        case [{"name": str(name), "digest": {"sha256": str(digest), **others}, **more}]:
            if not others and not more:
                return name, digest
    raise Refused("receipt.subject", "exactly one subject with a name and one SHA-256")


@lru_cache
def _known(model: type[Camel]) -> frozenset[str]:
    """The field names of a predicate, as they stand on the wire."""
    return frozenset(info.alias or name for name, info in model.model_fields.items())


def _check_crit(crit: Json, model: type[Camel]) -> None:
    if not crit or not isinstance(crit, list):
        return
    if unknown := [name for name in crit if isinstance(name, str) and name not in _known(model)]:
        raise Refused("receipt.crit_unknown", f"a critical field is not understood: {unknown[0]!r:.80}")
