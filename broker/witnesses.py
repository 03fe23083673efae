"""Our witness for the others' logs, and theirs for ours, over the federation's bus (receipts.md 11).

The operation `witness` carries the very bodies of tlog-witness: a word for the resource, a newline,
the body; back come the status, a newline, the body. The sender's name decides nothing: a checkpoint
speaks through its own log's signature.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from broker.peers import Peers
from receipts.cosignature import Cosigner, CosignerKey
from receipts.log import TransparencyLog
from receipts.note import NoteKey
from receipts.verify.pinned import under_charter
from receipts.witnessing.asking import ANSWER_S, Circle, Reply, Witness
from receipts.witnessing.remembered import remember
from receipts.witnessing.state import WitnessState
from schemas.errors import ComityError, Refused, Undecided
from schemas.papers.trust import FederationTrust

ADD = b"add-checkpoint"
LATEST = b"latest"
CONVICT = b"convict"
log = logging.getLogger("comity.witnessing")


@dataclass(frozen=True, slots=True)
class BusRoad:
    """A peer's witness, reached like every other operation of that peer."""

    peers: Peers
    operator: str

    async def add_checkpoint(self, body: bytes) -> Reply:
        return await self._ask(ADD, body)

    async def latest(self, origin: str) -> bytes | None:
        reply = await self._ask(LATEST, origin.encode())
        return reply.body if reply.status == 200 else None

    async def _ask(self, word: bytes, body: bytes) -> Reply:
        try:
            data = await self.peers.ask(self.operator, "witness", word + b"\n" + body, within=ANSWER_S)
        except ComityError as error:  # a peer without a witness refuses; one that is away does not answer
            raise Undecided("witness.unreachable", f"{self.operator}: {error.code}") from None
        status, _, rest = data.partition(b"\n")
        if not status.isdigit() or len(status) != 3:
            raise Undecided("witness.answer", f"{self.operator}: not an answer of a witness")
        return Reply(int(status), rest)


def open_witness(path: Path, name: str, seed: bytes, trust: FederationTrust, domain: str) -> WitnessState:
    """Our witness: it believes each other member's log under the keys in that member's manifest."""
    logs: dict[str, list[NoteKey]] = {}
    for member in trust.members:
        if member != domain:
            for log in trust.manifest(member).logs:
                logs.setdefault(log.origin, []).append(NoteKey.read(log.vkey))
    return WitnessState.open(path, logs=logs, signers=[Cosigner.of(name, seed)])


def circle(origin: str, peers: Peers) -> Circle:
    """Everyone else's witnesses, asked over the bus; each operator's first key counts."""
    trust = peers.trust
    own = [NoteKey.read(log.vkey) for log in trust.manifest(peers.domain).logs if log.origin == origin]
    witnesses = [
        Witness(member, CosignerKey.read(each.vkey), BusRoad(peers, member))
        for member in trust.members
        if member != peers.domain
        for each in trust.manifest(member).witnesses[:1]
    ]
    return Circle(origin, own, witnesses)


async def answer(state: WitnessState | None, peers: Peers, own: TransparencyLog, payload: bytes) -> bytes:
    """One request to our witness. What it catches is said in our `own` log, and to everyone.

    Raises `Refused` where we run none, `Undecided` when its disk fails.
    """
    if state is None:
        raise Refused("witness.none", "this domain runs no witness")
    word, _, body = payload.partition(b"\n")
    if word == ADD:
        time = int(datetime.now(UTC).timestamp())
        judged = await asyncio.to_thread(state.judge_checkpoint, body, time=time)
        if judged.conviction is not None:
            await remember_all(state, peers.trust, own)
            await _tell_all(judged.conviction, peers)
        return b"%d\n%s" % (judged.answer.status, judged.answer.body)
    if word == CONVICT:
        if await asyncio.to_thread(state.add_conviction, body):
            log.warning("a log was convicted of two histories", extra={"bytes": len(body)})
            await remember_all(state, peers.trust, own)
        return b""
    if word == LATEST:
        note = await asyncio.to_thread(state.latest, body.decode("utf-8", "replace"))
        return b"404\n" if note is None else b"200\n" + note
    raise Refused("witness.operation", "none of add-checkpoint, latest and convict")


async def remember_all(state: WitnessState, trust: FederationTrust, own: TransparencyLog) -> None:
    """Have every conviction stand in our own log, those that a crash cut off as well."""
    held = under_charter(trust)
    async with state.remembering:  # two that both find it missing from the log would both say it
        for document in await asyncio.to_thread(state.convictions):
            try:
                await remember(own, held, document, datetime.now(UTC))
            except ComityError as error:  # keys may have changed since it was caught
                log.warning("conviction not logged", extra={"code": error.code})


async def _tell_all(document: bytes, peers: Peers) -> None:
    """Whoever catches a log tells everyone: the document convinces by itself, and travels once from each."""
    for domain in (member for member in peers.trust.members if member != peers.domain):
        try:
            await peers.tell(domain, "witness", CONVICT + b"\n" + document)
        except ComityError as error:
            log.warning("conviction not sent", extra={"peer": domain, "code": error.code})
