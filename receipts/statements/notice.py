"""What a domain says of its log beside receipts: erased, lost, withheld, caught (receipts.md 12 to 14).

Tombstone: a receipt was erased, by whose order. Gap: own receipts were lost; it turns hidden into
admitted, not into fine. Accusation: a peer withholds a receipt that its own next one names. Convicted:
a document is kept here that shows somebody saying two things. Each is signed by the domain's receipt
key and stands in its log under a leaf of its own kind.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated, Final, TypeAlias, TypeVar

from pydantic import Field

from receipts.leaf import Kind
from receipts.statements.fields import MAX_LISTED, Camel
from receipts.statements.receipt import MODELS, PREDICATES, Receipt
from receipts.statements.statement import Statement, frame, parse_payload, parse_receipt, receipt_kind
from schemas import envelope
from schemas.canonical import sha256
from schemas.errors import Refused
from schemas.keys import SigningKey, VerifyKey
from schemas.primitives import Count, Digest, DomainName, Label, TimeText, Token

TOMBSTONE: Final = f"{PREDICATES}/tombstone/v1"
GAP: Final = f"{PREDICATES}/gap/v1"
ACCUSATION: Final = f"{PREDICATES}/accusation/v1"
EQUIVOCATION: Final = f"{PREDICATES}/equivocation/v1"
MAX_SHOWN: Final = 64 * 1024  # characters of the envelope that an accusation carries; in base64 it still fits


class Tombstone(Camel):
    """Who had a receipt erased, when and why: no word of what it said."""

    leaf: Count
    receipt_id: Token
    reason: Label
    """Machine-readable, such as `gdpr-17`."""
    authority: Label
    """Who ordered it."""
    time: TimeText


class Gap(Camel):
    """Own receipts to one peer that this log lost, numbers `first` to `last`."""

    federation: Label
    issuer: DomainName
    peer: DomainName
    first: Count
    last: Count
    reason: Label
    """Machine-readable, such as `disk-lost`."""
    lost: list[Digest] = Field(default_factory=list, max_length=MAX_LISTED)
    """Receipt digests of the lost ones, where known."""
    time: TimeText


class Accusation(Camel):
    """A peer withholds its receipt number `number`: the next one, shown here, names it."""

    federation: Label
    issuer: DomainName
    accused: DomainName
    number: Count
    named: Digest
    """Receipt digest of the withheld one: `prev` of the one shown."""
    shown: Annotated[str, Field(max_length=MAX_SHOWN)]
    """The envelope of the accused's receipt number + 1, as JSON text."""
    time: TimeText


class Convicted(Camel):
    """Somebody was caught saying two things. The document that shows it is kept beside the log."""

    federation: Label
    issuer: DomainName
    accused: Label
    """A log's origin, a witness's name, or a domain."""
    document: Digest
    """SHA-256 of the equivocation (receipts.witnessing.equivocation)."""
    time: TimeText


Noticed: TypeAlias = Tombstone | Gap | Accusation | Convicted
N = TypeVar("N", bound=Noticed)

_TYPES: Final[dict[type[Camel], tuple[str, Kind]]] = {
    Tombstone: (TOMBSTONE, Kind.TOMBSTONE),
    Gap: (GAP, Kind.GAP),
    Accusation: (ACCUSATION, Kind.ACCUSATION),
    Convicted: (EQUIVOCATION, Kind.EQUIVOCATION),
}
BY_KIND: Final[dict[int, type[Noticed]]] = {
    int(_TYPES[model][1]): model for model in (Tombstone, Gap, Accusation, Convicted)
}


@dataclass(frozen=True, slots=True)
class Notice:
    """A signed notice, on its way into the log."""

    kind: Kind
    digest: bytes
    """Of its PAE: what its leaf stands for."""
    envelope: bytes = field(repr=False)
    about: int | None = None
    """The leaf that a tombstone speaks of."""


def sign_notice(body: Noticed, key: SigningKey) -> Notice:
    """Sign it. Its subject is itself: there is no other artifact."""
    written = body.write()
    predicate_type, kind = _TYPES[type(body)]
    named = sha256(written).hex()
    name = body.receipt_id if isinstance(body, Tombstone) else named
    payload = frame(predicate_type, name, named, written)
    digest = envelope.digest(envelope.STATEMENT, payload)
    about = body.leaf if isinstance(body, Tombstone) else None
    return Notice(kind, digest, envelope.sign_digest(envelope.STATEMENT, payload, digest, key), about)


def read_notice(data: bytes, model: type[N], keys: Iterable[VerifyKey]) -> Statement[N]:
    """A notice that one of these keys signed.

    Raises `Unreadable`, or `Refused` with `receipt.subject` or `notice.range`.
    """
    verified = envelope.verify(data, envelope.STATEMENT, keys)
    _, digest, body = parse_payload(verified.payload, _TYPES[model][0], model)
    if digest != sha256(body.write()).hex():
        raise Refused("receipt.subject", "the subject is not this notice")
    if isinstance(body, Gap) and body.first > body.last:
        raise Refused("notice.range", "a gap ends before it begins")
    return Statement(body, verified.digest, verified.signer, data)


def check_accusation(body: Accusation, keys: Iterable[VerifyKey]) -> Receipt:
    """Return the receipt that convicts, if it does. `keys`: the accused's registered receipt keys.

    What it shows: the accused signed number + 1 to the accuser, and in it the name of a number. That it
    withholds that number, only its log or its silence shows. Raises `Refused` or `Unreadable`.
    """
    verified = envelope.verify(body.shown.encode(), envelope.STATEMENT, keys)
    model = MODELS.get(receipt_kind(verified.payload))
    if model is None:
        raise Refused("accusation.shown", "what is shown is no receipt")
    shown = parse_receipt(verified.payload, model)
    if (shown.issuer, shown.peer, shown.federation) != (body.accused, body.issuer, body.federation):
        raise Refused("accusation.parties", "the receipt shown is not the accused's to the accuser")
    if (shown.seq, shown.prev) != (body.number + 1, body.named):
        raise Refused("accusation.number", "the receipt shown does not name the one withheld")
    return shown
