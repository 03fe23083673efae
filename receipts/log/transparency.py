"""The log as its program uses it: issue, keep, record, prove. One holder per database.

A crash at any line leaves: what was answered is on disk; what was not answered either is or is not,
whole; numbers of a failed batch are given again; no checkpoint was shown that is not stored.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Self, TypeVar

from receipts import bundle, checkpoint
from receipts.log import store, tiles
from receipts.log.draft import Documents, Draft, Issued, Keep, LogIdentity, LogKeys, Recorded, prepare_all
from receipts.log.erasure import Order, erase_again, ledger_of, unlogged
from receipts.log.reader import Reader
from receipts.log.writing import batch, writer
from receipts.log.writing.batch import Work
from receipts.log.writing.holder import Holder
from receipts.log.writing.signing import Signer, State
from receipts.log.writing.writer import Writer
from receipts.merkle import range_root
from receipts.note import Signature, format_signature
from receipts.statements.fields import ManifestRef
from receipts.statements.notice import Accusation, Convicted, Gap, Notice, sign_notice
from receipts.statements.receipt import Receipt
from schemas.errors import ComityError, ConfigurationError, Refused, Undecided

CHECKPOINT_DELAY_S: Final = 0.3  # seconds from an append to its checkpoint; the proof is due within one
SETTLED_KEPT_MS: Final = 24 * 3600 * 1000  # settled rows refuse a second run for as long as a header lives

T = TypeVar("T")


def _utc_now() -> datetime:
    return datetime.now(UTC)


class TransparencyLog:
    """An open log. Belongs to one event loop; `open` and `close` it there."""

    def __init__(self, write: Writer, reader: Reader, reading: ThreadPoolExecutor) -> None:
        """Use `open`."""
        self._writer = write
        self._reader = reader
        self._reading = reading
        self._identity = write.signer.identity
        self._dirty = asyncio.Event()
        self._announced = asyncio.Event()
        self._failed: asyncio.Future[ComityError] = asyncio.get_running_loop().create_future()
        self._publisher = asyncio.create_task(self._publish(), name="comity-log-checkpoints")

    @classmethod
    async def open(
        cls,
        database: Path | str,
        *,
        identity: LogIdentity,
        keys: LogKeys,
        clock: Callable[[], datetime] = _utc_now,
    ) -> Self:
        """Become the log's holder and read where it stands.

        Raises `Refused` (`log.contradicts_checkpoint`, `log.leaves_missing`) or `ConfigurationError`
        (`log.held`, `log.database`, `log.schema`, `log.identity`, `log.keys`).
        """
        path, loop = Path(database), asyncio.get_running_loop()
        connection, holder, state, emptied = await asyncio.to_thread(_open, path, identity, keys, clock)
        signer = Signer(identity, keys, writer.new_pool())
        log: Self

        def on_failure(error: ComityError) -> None:
            loop.call_soon_threadsafe(log._note_failure, error)

        write = Writer(path, connection, holder, state, signer, clock, loop, on_failure, emptied)
        try:
            reader = Reader(store.connect(path, read_only=True), signer)
        except ComityError:
            write.abandon()
            raise
        log = cls(write, reader, ThreadPoolExecutor(1, thread_name_prefix="comity-log-read"))
        write.start()
        try:
            await log._submit(Work(checkpoint=True))
        except ComityError:
            await log.close()
            raise
        return log

    async def issue(
        self,
        drafts: Sequence[Draft],
        *,
        keep: Keep | None = None,
        record: Sequence[Recorded] = (),
        settle: Sequence[tuple[str, str]] = (),
    ) -> list[Issued]:
        """Number, sign and append receipts; with them, in one transaction, whatever else must be durable.

        Returns after the commit. Raises `Refused` (`log.clock`, `log.recorded`, `log.queue_full`;
        nothing of the call happened) or, for good, what `failed` reports.
        """
        work = Work(prepare_all(drafts), keep, record, settle)
        issued = await self._submit(work)
        if drafts:
            self._dirty.set()
        return issued

    async def keep(self, kept: Keep) -> None:
        """Store statements of others, their proofs, and evidence. Idempotent."""
        await self._submit(Work(keep=kept))

    async def keep_commitment_keys(self, keys: Sequence[tuple[bytes, bytes]]) -> None:
        """Store (commitment, key) pairs, apart from what they open."""
        await self._submit(Work(commitment_keys=keys))

    async def keep_cosignature(self, size: int, signature: Signature) -> None:
        """Store a witness's valid word on our checkpoint of this size (receipts.witnessing.asking)."""
        line = format_signature(signature)
        name = f"{signature.name}+{signature.key_id.hex()}"  # one witness may have keys of two types
        await self._submit(Work(cosignatures=[(size, name, line)]))

    async def erase(self, request_id: str, *, reason: str, authority: str, at: datetime) -> None:
        """Erase all receipts of a request, but for leaves and tombstones (receipts.log.erasure).

        Returns when they are erased in the database. What was overwritten leaves its write-ahead log as soon
        as no reader stands in the way; `wal_emptied` tells. Raises `Refused` (`log.unknown_receipt`,
        `retention.hold`, `retention.early`).
        """
        await self._submit(Work(erasures=[Order(request_id, reason, authority, at)]))
        self._dirty.set()

    async def state(self, body: Gap | Accusation | Convicted, *, kept: bytes | None = None) -> Notice:
        """Sign a word about a log under our name, and put it into ours. Raises as `issue`.

        `kept`: the document that it names, kept by its digest in the same transaction.
        """
        notice = sign_notice(body, self._writer.signer.keys.receipt)
        evidence = Keep("", evidence=[kept]) if kept is not None else None
        await self._submit(Work(keep=evidence, notices=[notice]))
        self._dirty.set()
        return notice

    async def convictions(self) -> list[bytes]:
        """Documents that this log says it keeps, in the order of the log."""
        return await self._read(lambda reader: reader.convictions())

    async def tell_of_erasures(self) -> int:
        """Log the tombstones that stand under no leaf, as after a restore; returns how many.

        Not part of opening: the witnesses must be asked first whether this log was set back (7.4).
        """
        notices = await self._read(lambda reader: unlogged(reader.connection))
        if notices:
            await self._submit(Work(notices=notices))
            self._dirty.set()
        return len(notices)

    async def tombstones(self, request_id: str) -> list[bytes]:
        """Signed tombstones of an erased request, in the order of the log."""
        return await self._read(lambda reader: reader.tombstones(request_id))

    async def record(self, kind: str, key: str, data: bytes) -> None:
        """Pass a point of no return: durable when this returns. Raises `Refused` (`log.recorded`)."""
        await self._submit(Work(records=[Recorded(kind, key, data)]))

    async def settle(self, kind: str, key: str) -> None:
        """The outcome of a recorded point is known."""
        await self._submit(Work(settled=[(kind, key)]))

    async def unsettled(self, kind: str) -> list[Recorded]:
        """Points of no return whose outcome nobody wrote down: ask `status`, never run again."""
        return await self._read(lambda reader: reader.unsettled(kind))

    async def recorded(self, kind: str, key: str) -> bytes | None:
        """What was recorded under this key, settled or not; None when nothing was."""
        return await self._read(lambda reader: reader.recorded(kind, key))

    async def checkpoint(self) -> bytes:
        """A signed checkpoint over everything committed so far, stored before it is returned."""
        await self._submit(Work(checkpoint=True))
        self._announce()
        return self.latest_checkpoint

    async def newer_checkpoint(self, than: int) -> bytes:
        """Wait for a checkpoint over more than so many leaves."""
        while self._writer.state.checkpoint[0] <= than:
            await self._announced.wait()
        return self.latest_checkpoint

    @property
    def latest_checkpoint(self) -> bytes:
        """The newest stored checkpoint's note."""
        return self._writer.state.checkpoint[1]

    @property
    def wal_emptied(self) -> bool:
        """Whether nothing that was erased stands in the write-ahead log any more.

        False while a reader of the database is in the way: it is tried again until it is true, by the next
        holder if need be, and the log tells of one who stays.
        """
        return self._writer.emptied

    @property
    def identity(self) -> LogIdentity:
        """Whose log this is."""
        return self._identity

    @property
    def size(self) -> int:
        """Leaves committed so far."""
        return self._writer.state.tree.size

    async def issued(self, receipt_id: str) -> Issued | None:
        """One of our receipts as it was first given out, byte for byte; None for a stranger."""
        return await self._read(lambda reader: reader.issued(receipt_id))

    async def of_request(self, request_id: str) -> list[bytes]:
        """Envelopes of our own receipts of this request, in the order of the log."""
        return await self._read(lambda reader: [stored.envelope for stored in reader.find(request_id)])

    async def kept(self, digest: bytes) -> bytes | None:
        """A statement of others that was kept here, by its receipt digest; None for a stranger."""
        return await self._read(lambda reader: reader.kept(digest))

    async def kept_of(self, request_id: str) -> list[bytes]:
        """Statements of others about this request, by their digests."""
        return await self._read(lambda reader: reader.kept_of(request_id))

    async def received(self, issuer: str, number: int) -> bytes | None:
        """A peer's receipt of this number to us, as we keep it; None when it never came."""
        return await self._read(lambda reader: reader.received(issuer, number))

    async def requests(self, chosen: Callable[[list[Receipt]], bool]) -> list[str]:
        """Ids of the requests whose receipts, all together, are chosen."""
        return await self._read(lambda reader: reader.requests(chosen))

    async def proof(self, receipt_id: str) -> bytes | None:
        """tlog-proof text; None until a checkpoint covers the receipt. Raises `Refused` for a stranger."""
        return await self._read(lambda reader: reader.proof(receipt_id))

    async def consistency(self, first: int, second: int) -> list[bytes]:
        """Hashes that show one size of this log inside a later one. Raises `Refused`."""
        return await self._read(lambda reader: reader.consistency(first, second))

    async def root_at(self, size: int) -> bytes:
        """Root of the first `size` leaves. Raises `Refused` for a size that the log does not have."""
        return await self._read(lambda reader: reader.root_at(size))

    async def bundle(self, name: str) -> bytes:
        """The auditor's bundle (zip) of a request id or receipt id. Raises `Refused`."""
        documents = self._identity.documents
        return await self._read(lambda reader: bundle.write(reader.bundle(name, documents)))

    def update_manifest(self, manifest: ManifestRef, documents: Documents) -> None:
        """From the next receipt on, this manifest is in force."""
        self._identity = replace(self._identity, manifest=manifest, documents=documents)
        self._writer.signer = replace(self._writer.signer, identity=self._identity)

    async def failed(self) -> ComityError:
        """Wait until the log can no longer be written: then the program must exit, it holds nothing."""
        return await asyncio.shield(self._failed)

    async def close(self) -> None:
        """Write what is queued, sign a last checkpoint, give up the role."""
        self._publisher.cancel()
        await asyncio.gather(self._publisher, return_exceptions=True)
        with contextlib.suppress(ComityError):  # a log that has failed is closed all the same
            await self._submit(Work(checkpoint=True))
        await asyncio.to_thread(self._reading.shutdown)
        self._reader.connection.close()
        # The writer last: whoever may write, and is the last to leave, puts SQLite's journal into the file.
        await asyncio.to_thread(self._writer.stop)

    def _note_failure(self, error: ComityError) -> None:
        if not self._failed.done():
            self._failed.set_result(error)

    async def _submit(self, work: Work) -> list[Issued]:
        return await self._writer.submit(work)

    async def _read(self, ask: Callable[[Reader], T]) -> T:
        """What the reader answers. Raises what it raises, and `Undecided` (`log.cannot_read`)."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._reading, ask, self._reader)
        except sqlite3.Error as error:
            raise Undecided("log.cannot_read", f"the log cannot be read: {error}") from None

    async def _publish(self) -> None:
        """Sign a checkpoint soon after appends. Ends when the log has failed."""
        while self._writer.failure is None:
            await self._dirty.wait()
            await asyncio.sleep(CHECKPOINT_DELAY_S)
            self._dirty.clear()
            with contextlib.suppress(ComityError):  # `failed` tells the program
                await self._submit(Work(checkpoint=True))
                self._announce()

    def _announce(self) -> None:
        """Wake who waits for a newer checkpoint; the next one gets an event of its own."""
        self._announced.set()
        self._announced = asyncio.Event()


def _open(
    database: Path, identity: LogIdentity, keys: LogKeys, clock: Callable[[], datetime]
) -> tuple[sqlite3.Connection, Holder, State, bool]:
    """1. take the role; 2. is it this log; 3. rebuild the tree; 4. does it continue what was shown.

    The bool: whether nothing that was erased stands in the write-ahead log. One that was left behind may be
    what stood there when a crash, or a reader at the end, came between an erasure and the emptying.
    """
    if keys.note.key.name != identity.origin:
        raise ConfigurationError("log.keys", f"the note key's name must be the origin {identity.origin}")
    left_behind = store.has_journal(database)
    with contextlib.ExitStack() as undo:
        connection = store.connect(database)
        undo.callback(connection.close)
        try:
            store.prepare_for_writing(connection, database)
            holder = Holder.acquire(database, connection)
            undo.callback(holder.release)
            _claim(connection, identity)
            state = _load(connection)
            _prune(connection, clock())
            erased = erase_again(connection, ledger_of(database), keys.receipt, clock())
        except sqlite3.Error as error:
            raise ConfigurationError("log.database", f"{database}: {error}") from None
        undo.pop_all()
    return connection, holder, state, not (left_behind or erased)


def _claim(connection: sqlite3.Connection, identity: LogIdentity) -> None:
    """Write whose log this is, or find it written. Raises `ConfigurationError`."""
    wanted = {"federation": identity.federation, "domain": identity.domain, "origin": identity.origin}
    held = store.read_meta(connection)
    for name, value in wanted.items():
        if held.get(name, value) != value:
            raise ConfigurationError("log.identity", f"this database belongs to {name} {held[name]}")
    connection.executemany("INSERT OR IGNORE INTO meta (name, value) VALUES (?, ?)", wanted.items())


def _load(connection: sqlite3.Connection) -> State:
    """The writer's state from the tables. Raises `Refused` when they contradict a shown checkpoint."""
    tree = tiles.load(connection)
    newest = connection.execute("SELECT size, note FROM checkpoint ORDER BY size DESC LIMIT 1").fetchone()
    if newest is not None:
        _check_continues(connection, tree.size, newest[1])
    last_ms = connection.execute("SELECT max(time_ms) FROM leaf").fetchone()[0] or 0
    chains = {row[0]: (row[1], row[2]) for row in connection.execute("SELECT peer, seq, digest FROM chain")}
    return State(tree, chains, last_ms, newest or (-1, b""))


def _check_continues(connection: sqlite3.Connection, size: int, note: bytes) -> None:
    """A log that was set back must not sign again (receipts.md 7.4)."""
    shown = checkpoint.read(note).checkpoint
    if shown.size > size:
        raise Refused("log.rolled_back", f"a checkpoint of {shown.size} leaves was signed, {size} are here")
    source = tiles.TileSource(connection)
    if shown.size and range_root(0, shown.size, source.node) != shown.root:
        raise Refused("log.contradicts_checkpoint", "the stored tree is not the one that was signed")


def _prune(connection: sqlite3.Connection, now: datetime) -> None:
    """Of a settled row its name is kept, for a while; what it held is a receipt by now."""
    oldest = batch.milliseconds(now) - SETTLED_KEPT_MS
    connection.execute("DELETE FROM ahead WHERE settled = 1 AND time_ms < ?", (oldest,))
    connection.execute("UPDATE ahead SET data = x'' WHERE settled = 1 AND data != x''")
