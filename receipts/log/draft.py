"""What goes into the log and what comes out of it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from receipts.bundle import ChallengeDisclosure, Disclosures
from receipts.cosignature import Cosigner
from receipts.leaf import Kind
from receipts.note import NoteSigner, format_signature
from receipts.statements import packed
from receipts.statements.fields import ManifestRef
from receipts.statements.receipt import KINDS, Drafted, predicate_type
from receipts.statements.statement import commitment_file
from schemas.canonical import sha256
from schemas.keys import SigningKey, base64url

__all__ = [
    "ChallengeDisclosure",
    "Disclosures",
    "Documents",
    "Draft",
    "Issued",
    "Keep",
    "LogIdentity",
    "LogKeys",
    "Prepared",
    "Recorded",
    "prepare_all",
]


@dataclass(frozen=True, slots=True)
class Draft:
    """A receipt but for what only the log can give: number, predecessor, manifest, log."""

    body: Drafted
    disclosures: Disclosures | None = None


@dataclass(frozen=True, slots=True)
class Issued:
    """A receipt that is durable. Only this may leave the process."""

    receipt_id: str
    digest: bytes
    """Receipt digest (SHA-256 of the PAE), what other statements link to."""
    index: int
    stored: bytes = field(repr=False)
    """Key, signature and payload, as the row holds them (receipts.statements.packed)."""
    sign_promise: Callable[[], bytes] = field(repr=False, compare=False)

    @property
    def envelope(self) -> bytes:
        """The signed receipt as it goes out, always the same bytes; made when it is asked for."""
        return packed.written(self.stored)

    @property
    def promise(self) -> bytes:
        """The signed inclusion promise (receipts.md 7.3), always the same bytes (RFC 6979).

        Signed when it is asked for: of what never goes out it never is.
        """
        return self.sign_promise()


@dataclass(frozen=True, slots=True)
class Keep:
    """Other parties' words and raw evidence, stored by digest; the same again changes nothing."""

    request_id: str
    envelopes: Sequence[bytes] = ()
    """Statements that the caller has verified: NodeStatement, the peer's Execution and promise."""
    proofs: Mapping[bytes, bytes] = field(default_factory=dict)
    """Receipt digest of a foreign receipt → its tlog-proof text."""
    evidence: Sequence[bytes] = field(default=(), repr=False)
    """NodeEvidence documents and collateral."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A write-ahead row (session.md 11): digests only, never a body or a secret."""

    kind: str
    key: str
    data: bytes


@dataclass(frozen=True, slots=True)
class LogKeys:
    """The keys of the log's holder, each with one role."""

    receipt: SigningKey
    promise: SigningKey
    note: NoteSigner
    beside: Cosigner | None = None
    """An ML-DSA-44 key that signs every checkpoint too, where the manifest names one."""

    def sign(self, text: str, at: datetime) -> bytes:
        """A checkpoint note, signed by every key that the log has."""
        signed = self.note.sign(text)
        if self.beside is None:
            return signed
        return signed + format_signature(self.beside.sign(text, int(at.timestamp()))).encode()


@dataclass(frozen=True, slots=True)
class Documents:
    """What pins a verifier's trust, as signed bytes: they go into every bundle."""

    charter: bytes | None = field(default=None, repr=False)
    manifests: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """Domain → manifest envelope."""
    reference_values: Sequence[bytes] = field(default=(), repr=False)
    policies: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """Digest of a policy set → its text; a bundle takes those that its own receipts name."""


@dataclass(frozen=True, slots=True)
class LogIdentity:
    """Whose log this is. Fixed for the life of a database, but for manifest and documents."""

    federation: str
    domain: str
    origin: str
    manifest: ManifestRef
    documents: Documents = Documents()


@dataclass(frozen=True, slots=True)
class Prepared:
    """A draft as the writer takes it: everything that needs no number is computed already."""

    receipt_id: str
    """128 random bits."""
    predicate_type: str
    kind: Kind
    peer: str
    request_id: str
    role: str
    subject: str
    body: bytes = field(repr=False)
    disclosures: bytes | None = field(repr=False)


ID_BYTES: Final = 16  # 128 random bits name a receipt (receipts.md 3.1)
_ROLES: Final = {Kind.PLACEMENT: "broker", Kind.EXECUTION: "executor", Kind.ACKNOWLEDGEMENT: "broker"}


def prepare_all(drafts: Sequence[Draft]) -> list[Prepared]:
    """Name and serialise drafts, outside the writer's thread. Twice the same draft is two receipts."""
    chance = secrets.token_bytes(ID_BYTES * len(drafts))  # asking the system once is most of it (measured)
    return [_prepare(draft, chance[at * ID_BYTES : (at + 1) * ID_BYTES]) for at, draft in enumerate(drafts)]


def _prepare(draft: Draft, chance: bytes) -> Prepared:
    body = draft.body
    name = predicate_type(body)
    return Prepared(
        receipt_id=base64url(chance),
        predicate_type=name,
        kind=KINDS[name],
        peer=body.peer,
        request_id=body.request.id,
        role=_ROLES[KINDS[name]],
        subject=sha256(commitment_file(body.request.commitment)).hex(),
        body=body.write(),
        disclosures=None if draft.disclosures is None else draft.disclosures.write(),
    )
