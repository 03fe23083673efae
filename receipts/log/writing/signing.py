"""Receipts numbered and signed on their way into the log, and the promises made of them afterwards."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final

from receipts import leaf
from receipts.log.draft import LogIdentity, LogKeys, Prepared
from receipts.log.tiles import Tree
from receipts.merkle import leaf_hash
from receipts.statements.fields import ManifestRef
from receipts.statements.packed import pack
from receipts.statements.promise import MAX_MERGE_DELAY_S, PromiseForm
from receipts.statements.receipt import FIRST
from receipts.statements.statement import frame
from schemas import envelope
from schemas.canonical import Json, write_json
from schemas.primitives import format_time

OTHER_SHARE: Final = 0.5  # of a batch's receipts, signed by another thread
PARALLEL_FROM: Final = 8  # receipts in a batch; below it, handing over costs more than two signatures
_FIRST: Final = bytes.fromhex(FIRST)


@dataclass(slots=True)
class State:
    """What the writer knows without asking the database."""

    tree: Tree
    chains: dict[str, tuple[int, bytes]]
    """Peer → (next number, receipt digest of the last)."""
    last_ms: int
    """Time of the newest leaf."""
    checkpoint: tuple[int, bytes]
    """Size and note of the newest stored checkpoint; (-1, b"") before the first."""


@dataclass(frozen=True, slots=True)
class Numbered:
    """A receipt with its place, ready to be signed."""

    prepared: Prepared
    seq: int
    index: int
    digest: bytes
    salt: bytes
    record: bytes
    """The leaf, written."""
    leaf_hash: bytes
    at: datetime
    payload: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Signer:
    """Turns prepared drafts into numbered, signed receipts."""

    identity: LogIdentity
    keys: LogKeys
    pool: Executor

    def number(self, drafts: Sequence[Prepared], state: State, at: datetime) -> list[Numbered]:
        """Give each receipt its sequence number, predecessor and leaf index."""
        fixed = self._fixed()
        heads: dict[str, tuple[int, bytes]] = {}
        numbered: list[Numbered] = []
        salts = secrets.token_bytes(leaf.SALT_BYTES * len(drafts))
        first = state.tree.size
        for number, draft in enumerate(drafts):
            seq, last = heads.get(draft.peer) or state.chains.get(draft.peer) or (0, _FIRST)
            predicate = _predicate(draft, fixed, seq, last)
            payload = frame(draft.predicate_type, draft.receipt_id, draft.subject, predicate)
            digest = envelope.digest(envelope.STATEMENT, payload)
            salt = salts[number * leaf.SALT_BYTES : (number + 1) * leaf.SALT_BYTES]
            record = leaf.make(draft.kind, salt, digest, self.keys.receipt.thumbprint).write()
            index, hashed = first + number, leaf_hash(record)
            numbered.append(Numbered(draft, seq, index, digest, salt, record, hashed, at, payload))
            heads[draft.peer] = (seq + 1, digest)
        return numbered

    def _fixed(self) -> tuple[str, str, str]:
        identity = self.identity
        return _fixed(identity.domain, identity.federation, identity.origin, identity.manifest)

    def receipts(self, numbered: Sequence[Numbered]) -> list[bytes]:
        """Signed and packed; some of them by another thread when there are many (signing frees the GIL)."""
        share = int(len(numbered) * OTHER_SHARE) if len(numbered) >= PARALLEL_FROM else 0
        other = self.pool.submit(self._receipts, numbered[:share]) if share else None
        mine = self._receipts(numbered[share:])
        return [*other.result(), *mine] if other else mine

    def _receipts(self, numbered: Sequence[Numbered]) -> list[bytes]:
        key = self.keys.receipt
        return [pack(key.thumbprint, key.sign_digest(one.digest), one.payload) for one in numbered]

    def promise_of(self, one: Numbered) -> bytes:
        """The promise of a receipt that is committed."""
        return self.promise(one.prepared.receipt_id, one.digest, one.leaf_hash, one.index, one.at)

    def promise(self, receipt_id: str, digest: bytes, leaf_hashed: bytes, index: int, at: datetime) -> bytes:
        """One promise: a pure function of what is stored (RFC 6979), so it can be made again."""
        identity = self.identity
        form = _promise_form(identity.federation, identity.domain, identity.origin)
        payload = form.payload(receipt_id, digest.hex(), leaf_hashed.hex(), index, _promise_times(at))
        return envelope.sign(envelope.STATEMENT, payload, self.keys.promise)


def _predicate(draft: Prepared, fixed: tuple[str, str, str], seq: int, last: bytes) -> bytes:
    """Issuance fields in the model's order, then the draft's own; what never changes is written once."""
    issuer, federation, behind = fixed
    head = (
        f'{{"receiptId":"{draft.receipt_id}",{issuer},"role":"{draft.role}",{federation},'
        f'"seq":{seq},"prev":"{last.hex()}",{behind},'
    )
    return head.encode() + draft.body[1:]


@lru_cache(maxsize=4)
def _fixed(domain: str, federation: str, origin: str, manifest: ManifestRef) -> tuple[str, str, str]:
    """Issuance fields that stay the same under one manifest, as JSON members."""
    parts: tuple[dict[str, Json], ...] = (
        {"issuer": domain},
        {"federation": federation},
        {"manifest": manifest.as_json(), "log": {"origin": origin}},
    )
    issuer, named, behind = (write_json(each)[1:-1].decode() for each in parts)
    return issuer, named, behind


@lru_cache(maxsize=4)
def _promise_form(federation: str, domain: str, origin: str) -> PromiseForm:
    """The promises of one log share all but what they are about and when."""
    return PromiseForm.of(federation, domain, origin)


@lru_cache(maxsize=4)
def _promise_times(at: datetime) -> tuple[str, str]:
    """Time and deadline: the same for all promises of one batch."""
    return format_time(at), format_time(at + timedelta(seconds=MAX_MERGE_DELAY_S))
