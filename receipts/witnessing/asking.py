"""How a log asks its witnesses: each new checkpoint to all of them at once, none of them waited for.

A cosignature that comes is stored beside the checkpoint; one that does not is missing in the count,
and that is all: witnesses never hold up a receipt. A witness that has seen more than we have means
that this log was set back, and then it must not sign again (receipts.md 7.4).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Protocol

import httpx

from receipts import checkpoint, note
from receipts.checkpoint import SignedCheckpoint
from receipts.cosignature import CosignerKey
from receipts.counted import counted
from receipts.note import MAX_NOTE_BYTES, Signature
from receipts.witnessing.quorum import MAX_AHEAD_S
from schemas.errors import ComityError, Refused, Undecided, Unreadable

ANSWER_S: Final = 5.0  # seconds for one witness to answer; a missing one is recorded, not waited for
PAUSE_S: Final = 0.2  # seconds between two checkpoints shown: each costs every witness a write to disk
MAX_ANSWER_BYTES: Final = 64 * 1024  # a cosignature line of 3.3 kB, or a few
_log = logging.getLogger("comity.witnessing")

Consistency = Callable[[int, int], Awaitable[Sequence[bytes]]]
"""(first, second) → proof that our log's tree at `second` continues the one at `first`."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back for an add-checkpoint request."""

    status: int
    body: bytes


class Road(Protocol):
    """How to reach a witness: HTTP, or the federation's bus."""

    async def add_checkpoint(self, body: bytes) -> Reply:
        """Raises `Undecided` when no answer comes."""
        ...

    async def latest(self, origin: str) -> bytes | None:
        """The note that it cosigned last. Raises `Undecided` when no answer comes."""
        ...


@dataclass(slots=True)
class Witness:
    """Somebody else's witness, and what is known of how it stands to our log."""

    operator: str
    key: CosignerKey
    road: Road = field(repr=False)
    size: int = 0
    """Leaves of ours that it cosigned last, as far as we know."""
    trouble: str | None = None
    """Why its last cosignature is missing; None when it is not."""


@dataclass(frozen=True, slots=True)
class HttpRoad:
    """tlog-witness over HTTP."""

    client: httpx.AsyncClient
    url: str
    """Prefix of submission and monitoring paths, without a slash behind."""

    async def add_checkpoint(self, body: bytes) -> Reply:
        return await self._ask("POST", "add-checkpoint", body)

    async def latest(self, origin: str) -> bytes | None:
        reply = await self._ask("GET", f"{hashlib.sha256(origin.encode()).hexdigest()}/checkpoint", b"")
        if reply.status == 404:
            return None
        if reply.status != 200:
            raise Undecided("witness.answer", f"status {reply.status}")
        return reply.body

    async def _ask(self, method: str, path: str, body: bytes) -> Reply:
        try:
            async with (
                asyncio.timeout(ANSWER_S),
                self.client.stream(method, f"{self.url}/{path}", content=body) as response,
            ):
                data = b""
                async for part in response.aiter_bytes():
                    data += part
                    if len(data) > MAX_NOTE_BYTES:
                        raise Undecided("witness.answer", "an answer without end")
                return Reply(response.status_code, data)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            raise Undecided("witness.unreachable", f"{self.url}: {type(error).__name__}") from None


def request_body(old: int, hashes: Sequence[bytes], signed: bytes) -> bytes:
    """An add-checkpoint request (tlog-witness)."""
    lines = [f"old {old}", *(base64.b64encode(each).decode("ascii") for each in hashes), "", ""]
    return "\n".join(lines).encode() + signed


async def cosign(witness: Witness, signed: bytes, consistency: Consistency, *, now: datetime) -> Signature:
    """One witness's valid cosignature over our checkpoint note.

    Tells the witness what it saw last, once more when it knows better. Raises `Refused`
    (`witness.ahead`) when it says that it cosigned more of this log than there is, `Undecided` for the rest.
    """
    stated = checkpoint.read(signed)
    ours = stated.checkpoint.size
    for _ in range(2):
        old = min(witness.size, ours)  # there is no proof from more than we have, and so nothing to ask with
        hashes = await consistency(old, ours)
        reply = await witness.road.add_checkpoint(request_body(old, hashes, signed))
        if reply.status != 409:
            break
        said = _stated_size(reply.body)
        if said > ours:  # not remembered: a bare number proves nothing, and the next round asks again
            seen = f"{witness.key.name} cosigned {counted(said, 'leaf', 'leaves')}"
            raise Refused("witness.ahead", f"{seen}, the checkpoint has {ours}")
        witness.size = said
    if reply.status != 200:
        raise Undecided("witness.answer", f"{witness.key.name}: status {reply.status}")
    line = _own_line(witness.key, reply.body, stated, now)
    witness.size = ours
    return line


def _stated_size(body: bytes) -> int:
    text = body.decode("ascii", "replace").removesuffix("\n")
    if not text.isascii() or not text.isdecimal() or len(text) > 19:
        raise Undecided("witness.answer", "a conflict without a size")
    return int(text)


def _own_line(key: CosignerKey, body: bytes, stated: SignedCheckpoint, now: datetime) -> Signature:
    """The witness's line in an answer. Lines by keys that we do not know are ignored (tlog-witness)."""
    try:
        lines = note.read_signatures(body[:MAX_ANSWER_BYTES].decode("utf-8", "replace"))
        line = next(each for each in lines if (each.name, each.key_id) == (key.name, key.key_id))
        time = key.verify(line, stated.note.text)
    except StopIteration:
        raise Undecided("witness.answer", f"no line by {key.name}") from None
    except ComityError as error:
        raise Undecided("witness.answer", f"{key.name}: {error.text}") from None
    if time > now.timestamp() + MAX_AHEAD_S:
        raise Undecided("witness.answer", f"{key.name}: a time that has not come")
    return line


class WitnessedLog(Protocol):
    """What asking needs of the log."""

    @property
    def size(self) -> int: ...

    async def consistency(self, first: int, second: int) -> Sequence[bytes]: ...

    async def root_at(self, size: int) -> bytes: ...

    async def keep_cosignature(self, size: int, signature: Signature) -> None: ...

    async def newer_checkpoint(self, than: int) -> bytes: ...


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(slots=True)
class Circle:
    """All witnesses of one log."""

    origin: str
    keys: Sequence[note.NoteKey]
    """The log's own verifier keys: nothing that they did not sign proves anything against it."""
    witnesses: Sequence[Witness]
    clock: Callable[[], datetime] = _utc_now

    @property
    def status(self) -> str:
        """In words, k of n: for logs, metrics and reports."""
        there = sum(each.trouble is None and each.size > 0 for each in self.witnesses)
        return f"witnesses: {there}/{len(self.witnesses)}"

    async def check_not_behind(self, log: WitnessedLog) -> None:
        """Return if no witness that answers has seen more of this log, or another one (receipts.md 7.4).

        A witness that cannot be reached leaves it open, is named in the log, and holds nothing up.
        Raises `Refused` (`log.behind_witness`, `log.contradicts_witness`).
        """
        for witness, seen in zip(
            self.witnesses, await asyncio.gather(*map(self._latest, self.witnesses)), strict=True
        ):
            if seen is None:
                continue
            try:
                shown = self._shown(witness, seen)
            except (Refused, Unreadable) as error:
                witness.trouble = error.code
                continue  # it shows nothing that we ever signed, or vouches for nothing
            await self._compare(witness, shown, log)

    async def _latest(self, witness: Witness) -> bytes | None:
        try:
            return await witness.road.latest(self.origin)
        except Undecided as error:
            witness.trouble = error.code
            _log.warning("witness not asked", extra={"witness": witness.key.name, "code": error.code})
            return None

    async def _compare(self, witness: Witness, shown: SignedCheckpoint, log: WitnessedLog) -> None:
        stated = shown.checkpoint
        if stated.size > log.size:
            seen = f"{witness.key.name} has seen {counted(stated.size, 'leaf', 'leaves')}"
            raise Refused("log.behind_witness", f"{seen}, this log has {log.size}: restore newer data")
        if await log.root_at(stated.size) != stated.root:
            raise Refused("log.contradicts_witness", f"{witness.key.name} has seen another tree of this log")
        witness.size = stated.size

    async def show(self, log: WitnessedLog, signed: bytes) -> int:
        """Ask every witness to cosign our checkpoint; returns how many did.

        Raises `Refused` (`witness.ahead`) when one of them proves that this log was set back.
        """
        asked = [self._one(witness, log, signed) for witness in self.witnesses]
        return sum(await asyncio.gather(*asked))

    async def follow(self, log: WitnessedLog) -> None:
        """Show every new checkpoint, for ever. Raises `Refused` when this log turns out to be set back.

        What gathers while witnesses answer goes to them as one checkpoint.
        """
        size = 0
        while True:
            signed = await log.newer_checkpoint(size)
            size = checkpoint.read(signed).checkpoint.size
            await self.show(log, signed)
            await asyncio.sleep(PAUSE_S)

    async def _one(self, witness: Witness, log: WitnessedLog, signed: bytes) -> bool:
        """Whether it cosigned, and we keep it. A log that cannot keep it says so itself (`log.failed`)."""
        try:
            line = await cosign(witness, signed, log.consistency, now=self.clock())
            await log.keep_cosignature(checkpoint.read(signed).checkpoint.size, line)
        except ComityError as error:
            if error.code == "witness.ahead" and await self._proves(witness, log):
                raise
            witness.trouble = error.code
        else:
            witness.trouble = None
            return True
        _log.warning("no cosignature", extra={"witness": witness.key.name, "code": witness.trouble})
        return False

    async def _proves(self, witness: Witness, log: WitnessedLog) -> bool:
        """Whether a witness that claims to be ahead can show what we signed: a bare number proves nothing."""
        seen = await self._latest(witness)
        try:
            return seen is not None and self._shown(witness, seen).checkpoint.size > log.size
        except (Refused, Unreadable):
            return False

    def _shown(self, witness: Witness, data: bytes) -> SignedCheckpoint:
        """A note that both our log and this witness signed. Raises `Refused` or `Unreadable`."""
        shown = checkpoint.verify(data, self.keys, origin=self.origin)
        line = next((each for each in shown.note.signatures if each.key_id == witness.key.key_id), None)
        if line is None:
            raise Refused("witness.unsigned", f"not cosigned by {witness.key.name}")
        witness.key.verify(line, shown.note.text)
        return shown
