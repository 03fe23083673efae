"""Admitting nodes: challenge, quote, our own appraisal, and a time limit on all of it.

A node is admitted only while fresh evidence of it affirms against this domain's expectations. It is
asked again each epoch, and soon after a peer has a new challenge; silence lets the admission lapse,
evidence that contradicts ends it at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, Literal

from attestation.appraise import NodeAppraisal, appraise_node
from attestation.expected import Expectations
from attestation.narrow import narrow
from domain_agent.admit.challenges import OwnChallenges, PeerChallenges
from domain_agent.admit.collateral import Collateral
from domain_agent.admit.nodes import NodeBook, NodeRecord
from domain_agent.admit.results import ResultIssuer
from domain_agent.admit.revocations import ReasonClass, Revocations
from domain_agent.clock import Clock
from domain_agent.membership import Membership
from schemas.errors import ComityError, Refused, Undecided
from schemas.messages.interior import Challenges

EPOCH_S: Final = 60  # seconds between two key epochs of a node (session.md 2)
GRACE_S: Final = 15.0  # seconds after an epoch's end in which a late renewal keeps the admission
RETRY_S: Final = 2.0  # seconds between two quotes of one node, whatever asks for them, and after a failure
SPACING_PER_PEER_S: Final = (
    0.1  # seconds more between quotes per peer, so that a large federation costs no more
)
MAX_AT_ONCE: Final = 8  # appraisals at a time: each is a few milliseconds of one core
TICK_S: Final = 0.25  # seconds between two looks at what is due

AskNode = Callable[[str, Challenges], Awaitable[bytes]]
"""(node id, challenges) → the NodeEvidence document. Raises `ComityError`."""
Lost = Callable[[tuple[str, ...], ReasonClass, str], None]
"""(thumbprints of node keys, class, reason): nothing under these keys is to be trusted any more."""

_log = logging.getLogger("comity.agent")


class _NoDocument(Undecided):
    """The node could not be asked, or did not answer: that speaks neither for nor against it."""


@dataclass(slots=True)
class _Turn:
    """When a node is asked next. Steady seconds."""

    renew_at: float = 0.0
    asked_at: float = float("-inf")
    rests_until: float = 0.0
    """After a failure, whatever asks: one that hung until its time was over was asked long enough ago."""
    answered: int = -1
    """Version of the peers' challenges that the latest evidence answers."""
    epoch_ends: float = 0.0
    asking: bool = False


@dataclass(slots=True)
class Admission:
    """The agent's gate. One per agent, on its event loop; state is in the node book."""

    membership: Membership
    expectations: Expectations
    book: NodeBook
    own: OwnChallenges
    peers: PeerChallenges
    revocations: Revocations
    ask: AskNode
    lost: Lost
    clock: Clock
    epoch_s: float = EPOCH_S
    accept: Literal["affirming", "warning"] = "affirming"
    collateral: Collateral | None = None
    """What the domain's operator fetched; it goes to the nodes and counts here."""
    results: ResultIssuer | None = None
    """Signs every appraisal; None: this domain issues no results."""
    _turns: dict[tuple[str, str], _Turn] = field(default_factory=dict)
    _asking: set[asyncio.Task[None]] = field(default_factory=set)

    def arrive(self, node_id: str, boot_id: str) -> NodeRecord:
        """A node says that it is here. An earlier boot of it is over: its keys are never used again."""
        record, earlier = self.book.arrive(node_id, boot_id)
        if earlier is not None:
            self._turns.pop((earlier.node_id, earlier.boot_id), None)
            if earlier.appraisal is not None:
                self._lose(earlier.appraisal, "stale", "node.restarted")
        self._turns.setdefault((node_id, boot_id), _Turn())
        return record

    def due(self) -> list[NodeRecord]:
        """Nodes that are to be asked now, the longest unasked first: whoever hangs keeps nobody waiting."""
        steady = self.clock.steady()
        spacing = max(RETRY_S, min(self.epoch_s, SPACING_PER_PEER_S * len(self.membership.peers)))
        found = (record for record in self.book if self._is_due(record, steady, spacing))
        return sorted(found, key=lambda record: self._turn(record).asked_at)

    async def run(self) -> None:
        """Ask whoever is due, for as long as the agent runs."""
        try:
            while True:
                for record in self.due()[: MAX_AT_ONCE - len(self._asking)]:
                    self._turn(record).asking = True
                    task = asyncio.create_task(self.renew(record))
                    self._asking.add(task)
                    task.add_done_callback(self._asking.discard)
                await asyncio.sleep(TICK_S)
        finally:
            for task in self._asking:
                task.cancel()
            await asyncio.gather(*self._asking, return_exceptions=True)

    async def renew(self, record: NodeRecord) -> None:
        """One challenge, one quote, one appraisal. The outcome is in the record; nothing is raised."""
        turn, steady = self._turn(record), self.clock.steady()
        turn.asking, turn.asked_at = True, steady
        if steady >= turn.epoch_ends:
            record.key_epoch = max(record.key_epoch + 1, int(self.clock.wall()))
            turn.epoch_ends = steady + self.epoch_s
        answered = self.peers.version
        try:
            appraisal, document = await self._appraise(record)
            self._admit(record, appraisal, document)
            turn.answered, turn.renew_at = answered, turn.epoch_ends
        except ComityError as error:
            self._refuse(record, error)
            turn.rests_until = turn.renew_at = turn.epoch_ends = self.clock.steady() + RETRY_S
        finally:
            turn.asking = False

    def revoke(self, node_id: str, reason_class: ReasonClass, reason: str) -> None:
        """Put a node out now, for as long as the revocation stands. Durability is the caller's.

        All keys that this machine ever proved to us are told, also where they were told before: what
        was merely replaced may turn out to be compromised, and a boot that it says is over may not be.
        """
        self.revocations.revoke(node_id, reason_class, reason)
        record = self.book.get(node_id)
        if record is None:  # peers may know it from before our start: the next advert has them ask again
            return
        if record.keys:
            self.lost(record.keys, reason_class, reason)
        record.put_out("node.revoked")

    def _is_due(self, record: NodeRecord, steady: float, spacing: float) -> bool:
        turn = self._turn(record)
        if turn.asking or steady < turn.rests_until or record.node_id in self.revocations.nodes:
            return False
        if steady >= turn.renew_at:
            return steady - turn.asked_at >= RETRY_S
        return turn.answered != self.peers.version and steady - turn.asked_at >= spacing

    async def _appraise(self, record: NodeRecord) -> tuple[NodeAppraisal, bytes]:
        now, supply = self.clock.wall(), self.collateral
        if supply is not None:
            await asyncio.to_thread(supply.renew, self.clock.now())
        mine = self.own.current(now)
        challenges = {**self.peers.current(now), self.membership.domain: mine.value}
        asked = Challenges(
            key_epoch=record.key_epoch,
            challenges={domain: value.hex() for domain, value in challenges.items()},
            collateral=supply.digest if supply else None,
        )
        try:
            document, at = await self.ask(record.node_id, asked), self.clock.now()
        except Undecided as error:
            raise _NoDocument(error.code, error.text) from None
        appraisal = await asyncio.to_thread(
            appraise_node,
            document,
            expectations=narrow(self.expectations, self.membership.trust, at),
            challenges=self.own.issued(now),
            enrolments=self.membership.trust.enrolments(),
            at=at,
            extra_endorsements=supply.pieces if supply else (),
        )
        record.result = self.results.issue(appraisal, at.timestamp()) if self.results else None
        return appraisal, document

    def _admit(self, record: NodeRecord, appraisal: NodeAppraisal, document: bytes) -> None:
        """Raises `Refused` or `Undecided` when this evidence admits nobody here."""
        if record.node_id in self.revocations.nodes:
            raise Refused("node.revoked", "revoked while it was being asked")
        if self.book.get(record.node_id) is not record:
            raise Undecided("node.restarted", "another boot took its place while it was being asked")
        _check_identity(record, appraisal, self.membership)
        _check_devices(record, appraisal, self.book, self.clock.wall())
        if appraisal.status == "none":
            raise Undecided(appraisal.reason or "node.undecided", "the evidence does not decide")
        if appraisal.status == "contraindicated" or (
            appraisal.status == "warning" and self.accept != "warning"
        ):
            raise Refused(appraisal.reason or "node.contraindicated", f"the appraisal is {appraisal.status}")
        record.appraisal, record.reason = appraisal, None
        record.note_key(appraisal.sign_key.thumbprint)
        record.admitted_until = min(appraisal.expires_at, self.clock.wall() + self.epoch_s + GRACE_S)
        record.keep(appraisal.evidence_digest.hex(), document, record.key_epoch)

    def _refuse(self, record: NodeRecord, error: ComityError) -> None:
        """Where no document came, an admission stays until it lapses; whatever else failed ends it now."""
        record.reason = error.code
        if isinstance(error, _NoDocument) and record.appraisal is not None:
            return
        _log.warning("node not admitted: %s", error, extra={"node": record.node_id, "code": error.code})
        if isinstance(error, Refused):
            if record.appraisal is not None:
                self._lose(record.appraisal, "compromise", error.code)
            record.put_out(error.code)
        record.appraisal, record.admitted_until = None, 0.0

    def _lose(self, proved: NodeAppraisal, reason_class: ReasonClass, reason: str) -> None:
        """What peers may rely on is over without an order: a trust epoch of its own."""
        self.revocations.bump()
        self.lost((proved.sign_key.thumbprint,), reason_class, reason)

    def _turn(self, record: NodeRecord) -> _Turn:
        return self._turns.setdefault((record.node_id, record.boot_id), _Turn())


def _check_identity(record: NodeRecord, appraisal: NodeAppraisal, ours: Membership) -> None:
    """The evidence is of the node that was asked, in this boot and epoch, of this domain."""
    stated = appraisal.evidence
    if (stated.federation, stated.domain) != (ours.federation, ours.domain):
        raise Refused("node.foreign", f"evidence of a node of {stated.domain}")
    if (stated.node_id, stated.boot_id) != (record.node_id, record.boot_id):
        raise Refused("node.identity", "evidence of another node or boot")
    if stated.key_epoch != record.key_epoch:
        raise Refused("node.key_epoch", "evidence of another key epoch")


def _check_devices(record: NodeRecord, appraisal: NodeAppraisal, book: NodeBook, now: float) -> None:
    """No GPU stands in two machines: one that answers for a second node is lent out (gpu.md 10)."""
    for other in book:
        if other is record or other.appraisal is None or not other.admitted(now):
            continue
        if other.appraisal.device_digests & appraisal.device_digests:
            raise Refused("node.device_elsewhere", f"a device of {other.node_id}, which is admitted with it")
