"""What the log shows: receipts, proofs, and the files of an auditor's bundle. Reads only.

Runs in one thread of its own with its own connection: a long bundle delays no receipt.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import Final

from receipts import proof
from receipts.bundle import Bundle, Disclosures
from receipts.leaf import Kind
from receipts.log.draft import Documents, Issued, Recorded
from receipts.log.tiles import TileSource
from receipts.log.writing.batch import moment
from receipts.log.writing.signing import Signer
from receipts.merkle import EMPTY_ROOT, consistency_proof, leaf_hash, range_root
from receipts.proof import Proof
from receipts.statements import packed
from receipts.statements.fields import RECORD
from receipts.statements.notice import EQUIVOCATION, Convicted
from receipts.statements.receipt import MODELS, Receipt
from receipts.statements.statement import parse_payload, parse_receipt, receipt_kind
from schemas import envelope
from schemas.canonical import Json, read_json
from schemas.errors import Refused, Unreadable

MAX_CONVICTION_BYTES: Final = 4 * 1024 * 1024  # of documents that go along with a bundle: thousands of them
MAX_COSIGNED_LOOKED_AT: Final = 64  # checkpoints after a receipt, some minutes, that may gather cosignatures


@dataclass(frozen=True, slots=True)
class Stored:
    """One of our own receipts as it stands in the database."""

    index: int
    receipt_id: str
    request_id: str
    digest: bytes
    packed: bytes = field(repr=False)
    disclosures: bytes | None = field(repr=False)

    @property
    def envelope(self) -> bytes:
        """As it was first given out, byte for byte."""
        return packed.written(self.packed)


_COLUMNS = "idx, receipt_id, request_id, digest, envelope, disclosures"


@dataclass(slots=True)
class Reader:
    """Owned by one thread."""

    connection: sqlite3.Connection
    signer: Signer | None
    """Signs promises again where there is no proof yet; None for one who only reads."""
    tiles: TileSource = field(init=False)

    def __post_init__(self) -> None:
        self.tiles = TileSource(self.connection)

    def find(self, name: str) -> list[Stored]:
        """Our receipts of a request id, or of the request that a receipt id belongs to."""
        row = self.connection.execute(
            "SELECT request_id FROM statement WHERE receipt_id = ?", (name,)
        ).fetchone()
        return self._select("request_id = ?", row[0] if row else name)

    def issued(self, receipt_id: str) -> Issued | None:
        """A receipt as it was first given out, promise included, byte for byte."""
        for stored in self._select("receipt_id = ?", receipt_id):
            promise = self._promise(stored)
            return Issued(stored.receipt_id, stored.digest, stored.index, stored.packed, promise)
        return None

    def proof(self, receipt_id: str) -> bytes | None:
        """tlog-proof text as in `bundle`; None until a checkpoint covers the receipt."""
        for stored in self._select("receipt_id = ?", receipt_id):
            return self._proof(stored.index)
        raise Refused("log.unknown_receipt", f"no receipt {receipt_id} in this log")

    def kept(self, digest: bytes) -> bytes | None:
        """A statement of others that was kept here, by its receipt digest; None for a stranger."""
        row = self.connection.execute(
            "SELECT envelope FROM foreign_statement WHERE digest = ?", (digest,)
        ).fetchone()
        return None if row is None else bytes(row[0])

    def kept_of(self, request_id: str) -> list[bytes]:
        """Statements of others about this request, by their digests."""
        return [data for _, data, _ in self._foreign(request_id)]

    def received(self, issuer: str, number: int) -> bytes | None:
        """A receipt of this issuer and number among what was kept of others."""
        for (data,) in self.connection.execute("SELECT envelope FROM foreign_statement"):
            payload = envelope.read(data).payload
            model = MODELS.get(receipt_kind(payload))
            if model is None:
                continue  # a promise, or a node's own statement
            body = parse_receipt(payload, model)
            if (body.issuer, body.seq) == (issuer, number):
                return bytes(data)
        return None

    def requests(self, chosen: Callable[[list[Receipt]], bool]) -> list[str]:
        """Ids of the requests whose own receipts here, all together, are chosen."""
        rows = self.connection.execute(
            "SELECT request_id, envelope FROM statement WHERE envelope != x'' ORDER BY request_id, idx"
        )
        found: list[str] = []
        for request_id, group in groupby(rows, key=lambda row: str(row[0])):
            payloads = [packed.read(data).payload for _, data in group]
            if chosen([parse_receipt(each, MODELS[receipt_kind(each)]) for each in payloads]):
                found.append(request_id)
        return found

    def tombstones(self, request_id: str) -> list[bytes]:
        """What stands in the place of erased receipts."""
        rows = self.connection.execute(
            "SELECT t.envelope FROM tombstone t JOIN statement s ON s.idx = t.idx WHERE s.request_id = ?"
            " ORDER BY t.idx",
            (request_id,),
        )
        return [data for (data,) in rows]

    def convictions(self) -> list[bytes]:
        """Documents that convict somebody and are kept here, by their digests."""
        known = self.connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'notice'").fetchone()
        sql = "SELECT envelope FROM notice WHERE kind = ? ORDER BY idx"
        rows = self.connection.execute(sql, (int(Kind.EQUIVOCATION),)).fetchall() if known else []
        named = [parse_payload(envelope.read(data).payload, EQUIVOCATION, Convicted)[2] for (data,) in rows]
        return list(self._blobs({body.document for body in named}).values())

    def _shown_convictions(self) -> Iterator[bytes]:
        """As many as a bundle takes along, the shortest first: a long one cannot crowd out the others."""
        total = 0
        for document in sorted(self.convictions(), key=len):
            total += len(document)
            if total > MAX_CONVICTION_BYTES:
                return
            yield document

    def consistency(self, first: int, second: int) -> list[bytes]:
        """Consistency proof between two sizes. Raises `Refused` for a size that the log does not have."""
        size = self._size()
        if second > size:
            raise Refused("merkle.size", f"the log has {size} leaves")
        return consistency_proof(first, second, self.tiles.node)

    def root_at(self, size: int) -> bytes:
        """Root of the first `size` leaves. Raises `Refused` for a size that the log does not have."""
        if size > self._size():
            raise Refused("merkle.size", f"the log has fewer than {size} leaves")
        return range_root(0, size, self.tiles.node) if size else EMPTY_ROOT

    def bundle(self, name: str, documents: Documents, *, explained: bool = False) -> Bundle:
        """Everything that an auditor needs of one request (receipts.md 16.1).

        `name`: a request id or receipt id. `explained` adds what cut and ranking read, losers included:
        only for those who are entitled to see them. Raises `Refused` (`log.unknown_receipt`).
        """
        own = self.find(name)
        if not own and self.tombstones(name):
            raise Refused(
                "log.erased", f"the receipts of {name} were erased; tombstones stand in their place"
            )
        if not own:
            raise Refused("log.unknown_receipt", f"no receipt or request {name} in this log")
        foreign = self._foreign(own[0].request_id)
        envelopes = {stored.digest: stored.envelope for stored in own}
        proofs = {stored.digest: text for stored in own if (text := self._proof(stored.index))}
        for stored in own:
            if stored.digest not in proofs and self.signer is not None:
                promise = self._promise(stored)()
                envelopes[envelope.read(promise).digest] = promise
        envelopes |= {digest: data for digest, data, _ in foreign}
        proofs |= {digest: text for digest, _, text in foreign if text}
        disclosures = {
            stored.receipt_id: Disclosures.read(stored.disclosures) for stored in own if stored.disclosures
        }
        wanted = {digest for disclosed in disclosures.values() for digest in disclosed.collateral}
        wanted |= {digest for data in envelopes.values() for digest in evidence_digests(data)}
        wanted |= {digest for stored in own for digest in reasons(stored.envelope, ranking=explained)}
        if explained:
            wanted |= {each.considered for each in disclosures.values() if each.considered}
            wanted |= {advert for each in disclosures.values() for advert in each.adverts}
        return Bundle(
            envelopes=dict(sorted(envelopes.items())),
            proofs=proofs,
            charter=documents.charter,
            manifests=tuple(documents.manifests[domain] for domain in sorted(documents.manifests)),
            reference_values=tuple(documents.reference_values),
            policies=tuple(
                documents.policies[digest]
                for digest in sorted({each for stored in own for each in policy_digests(stored.envelope)})
                if digest in documents.policies
            ),
            blobs=self._blobs(wanted),
            disclosures=disclosures,
            equivocations=tuple(self._shown_convictions()),
        )

    def unsettled(self, kind: str) -> list[Recorded]:
        """Write-ahead rows of this kind whose outcome is unknown, oldest first."""
        rows = self.connection.execute(
            "SELECT key, data FROM ahead WHERE kind = ? AND settled = 0 ORDER BY time_ms, key", (kind,)
        )
        return [Recorded(kind, key, data) for key, data in rows]

    def recorded(self, kind: str, key: str) -> bytes | None:
        """A write-ahead row's data, settled or not; None when there is none."""
        row = self.connection.execute(
            "SELECT data FROM ahead WHERE kind = ? AND key = ?", (kind, key)
        ).fetchone()
        return None if row is None else bytes(row[0])

    def _size(self) -> int:
        size: int = self.connection.execute("SELECT coalesce(max(idx) + 1, 0) FROM leaf").fetchone()[0]
        return size

    def _select(self, where: str, value: str) -> list[Stored]:
        rows = self.connection.execute(
            f"SELECT {_COLUMNS} FROM statement WHERE {where} AND envelope != x'' ORDER BY idx",  # noqa: S608  # fixed texts
            (value,),
        )
        found = [Stored(*row) for row in rows]
        _check_digests(each.digest for each in found)
        return found

    def _foreign(self, request_id: str) -> list[tuple[bytes, bytes, bytes | None]]:
        found = self.connection.execute(
            "SELECT digest, envelope, proof FROM foreign_statement WHERE request_id = ? ORDER BY digest",
            (request_id,),
        ).fetchall()
        _check_digests(digest for digest, _, _ in found)
        return found

    def newest_proofs(self, name: str) -> dict[bytes, bytes]:
        """Digest → tlog-proof text under the newest checkpoint, whoever cosigned it; `name` as in `find`."""
        newest = self._newest()
        found = {stored.digest: self._proof_under(newest, stored.index) for stored in self.find(name)}
        return {digest: text for digest, text in found.items() if text is not None}

    def _newest(self) -> tuple[int, bytes] | None:
        row: tuple[int, bytes] | None = self.connection.execute(
            "SELECT size, note FROM checkpoint ORDER BY size DESC LIMIT 1"
        ).fetchone()
        return row

    def _proof(self, index: int) -> bytes | None:
        return self._proof_under(self._cosigned(index) or self._newest(), index)

    def _proof_under(self, row: tuple[int, bytes] | None, index: int) -> bytes | None:
        """Under a checkpoint, given by its size and text; None where it does not cover the leaf."""
        if row is None or index >= row[0]:
            return None
        found = self.connection.execute("SELECT salt FROM leaf WHERE idx = ?", (index,)).fetchone()
        if found is None:
            raise Unreadable("log.damaged", f"leaf {index} is missing")
        (salt,) = found
        path = self.tiles.inclusion(index, row[0])
        return proof.write(Proof(index, tuple(path), row[1], salt))

    def _cosigned(self, index: int) -> tuple[int, bytes] | None:
        """The checkpoint that most witnesses signed, the earliest of them, so that its time is tight."""
        rows = self.connection.execute(
            "SELECT size, count(*) FROM cosignature WHERE size > ? GROUP BY size ORDER BY size LIMIT ?",
            (index, MAX_COSIGNED_LOOKED_AT),
        ).fetchall()
        if not rows:
            return None
        size = max(rows, key=lambda row: (row[1], -row[0]))[0]
        (signed,) = self.connection.execute("SELECT note FROM checkpoint WHERE size = ?", (size,)).fetchone()
        lines = self.connection.execute(
            "SELECT line FROM cosignature WHERE size = ? ORDER BY witness", (size,)
        ).fetchall()
        return size, signed + "".join(line for (line,) in lines).encode()

    def _promise(self, stored: Stored) -> Callable[[], bytes]:
        """Signs it from what is stored: deterministic signatures give the same bytes again (RFC 6979)."""
        if self.signer is None:
            raise Refused("log.no_keys", "without the log's keys there are no promises")
        record, time_ms = self.connection.execute(
            "SELECT record, time_ms FROM leaf WHERE idx = ?", (stored.index,)
        ).fetchone()
        return partial(
            self.signer.promise,
            stored.receipt_id, stored.digest, leaf_hash(record), stored.index, moment(time_ms),
        )  # fmt: skip

    def _blobs(self, wanted: set[str]) -> dict[bytes, bytes]:
        rows = [
            self.connection.execute(
                "SELECT digest, data FROM blob WHERE digest = ?", (bytes.fromhex(digest),)
            ).fetchone()
            for digest in sorted(wanted)
        ]
        return dict(row for row in rows if row is not None)


def _check_digests(digests: Iterable[bytes]) -> None:
    if any(len(each) != 32 for each in digests):
        raise Unreadable("log.damaged", "a receipt's digest is not 32 bytes")


def reasons(data: bytes, *, ranking: bool) -> set[str]:
    """Digests of what one of our own receipts was decided from: the policy's facts, and J's inputs."""
    found: set[str] = set()
    match read_json(envelope.read(data).payload):
        case {"predicate": {"policy": {"properties": list(texts)}}}:
            named = [text.removeprefix(RECORD) for text in texts if isinstance(text, str)]
            found |= {text for text in named if re.fullmatch(r"[0-9a-f]{64}", text)}
    match read_json(envelope.read(data).payload):
        case {"predicate": {"inputs": {"costs": str(digest)}}} if ranking:
            found.add(digest)
    return found


def policy_digests(data: bytes) -> set[str]:
    """Digests of the policy sets that one of our own receipts names: as layers, or as a refusal's sets."""
    match read_json(envelope.read(data).payload):
        case {"predicate": {"policy": {"layers": list(layers), "policies": list(sets)}}}:
            named = [each for each in (*layers, *sets) if isinstance(each, dict)]
            return {str(each[name]) for each in named for name in ("digest", "sha256") if name in each}
    return set()


def evidence_digests(data: bytes) -> set[str]:
    """The evidence that a stored statement names, found by key: the statement was verified when kept."""
    found: set[str] = set()
    pending: list[Json] = [read_json(envelope.read(data).payload)]
    while pending:
        match pending.pop():
            case dict(fields):
                digest = fields.get("evidenceDigest")
                if isinstance(digest, str) and re.fullmatch(r"[0-9a-f]{64}", digest):
                    found.add(digest)
                pending += fields.values()
            case list(items):
                pending += items
    return found
