"""Is a node what it claims, by our own check, right now? Prove before decide (session.md 5).

A provider's verdict is a hint; the evidence comes by digest and is appraised here against our own
expectations and our own challenge. The cache holds an appraisal no longer than the earliest of
challenge age, collateral and certificates allows, and a revocation empties it at once.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Literal

from attestation.appraise import IssuedChallenge, NodeAppraisal, appraise_node
from attestation.expected import Expectations
from attestation.narrow import narrow
from broker.placing.collateral import NOTHING, PeerCollateral, Supply
from schemas.errors import ComityError, Refused, Undecided
from schemas.messages.interior import OwnAdvert
from schemas.papers.trust import FederationTrust
from schemas.proof.evidence import MAX_EVIDENCE_BYTES, evidence_digest, unpack

GOOD: Final = frozenset({"affirming", "warning"})  # verdicts under which a node may serve, if policy says so
MAX_CACHED: Final = 4096  # appraisals; one per node and epoch in sight
MAX_DOCUMENT_BYTES: Final = 128 * 1024 * 1024  # of evidence in memory: large nodes' are a mebibyte an epoch
MAX_REVOKED: Final = 100_000  # keys of one domain's nodes, each of which makes a new one at each start
MAX_PROOFS: Final = 3  # of one document in a row: a domain in which trust moves as often is not waited for
SILENT_S: Final = 5.0  # seconds that a domain is left alone which did not answer: every request would wait
MAX_CHALLENGES: Final = 64  # some 50 minutes: what answers only older ones answers nobody, at whatever age

Fetch = Callable[[str, str], Awaitable[bytes]]
"""(domain, evidence digest in hex) → the document's bytes."""
ReasonClass = Literal["compromise", "stale"]


class ChallengeBook:
    """The challenges that our own agent issued. Their age counts from here, on our clock."""

    def __init__(self, domain: str) -> None:
        self._domain = domain
        self._issued: dict[str, float] = {}

    def note(self, advert: OwnAdvert) -> None:
        """Remember a challenge when it is first heard of."""
        self._issued.setdefault(advert.challenge, float(advert.issued_at))
        while len(self._issued) > MAX_CHALLENGES:
            del self._issued[next(iter(self._issued))]

    def issued(self) -> list[IssuedChallenge]:
        return [
            IssuedChallenge(domain=self._domain, value=bytes.fromhex(value), issued_at=at)
            for value, at in self._issued.items()
        ]


@dataclass(slots=True)
class Held:
    """A document of a peer, and what we found in it. All of it is forgotten together."""

    domain: str
    document: bytes = field(repr=False)
    verdict: NodeAppraisal | None = None
    """A good one, as long as nothing speaks against it."""
    supply: Supply = NOTHING
    """The bundle without which it was undecided, whether it helped or not."""


@dataclass(slots=True)
class Appraisals:
    """The broker's verdicts on nodes. One per process, on its event loop; nothing here outlives it."""

    trust: FederationTrust
    expectations: Expectations
    challenges: ChallengeBook
    fetch: Fetch
    collateral: PeerCollateral | None = None
    """What domains keep for their nodes apart from evidence; None: evidence must bring everything itself."""
    trust_epoch: int = 0
    """Rises with everything that may turn a good verdict bad; re-read before the first byte leaves."""
    _moves: Counter[str] = field(default_factory=Counter)
    """The same for each domain, so that none of them holds up what is proved of another."""
    _held: dict[str, Held] = field(default_factory=dict)
    """By the evidence's digest, oldest first."""
    _held_bytes: int = 0
    _revoked: dict[str, dict[str, ReasonClass]] = field(default_factory=dict)
    """By domain, then by the node key's thumbprint."""
    _shut: set[str] = field(default_factory=set)
    """Domains that revoked more than we can remember: none of their nodes is trusted any more."""
    _epochs: dict[str, int] = field(default_factory=dict)
    """By domain, its own trust epoch as its newest advert or a revocation since then stated it."""
    _silent: dict[str, float] = field(default_factory=dict)
    """By domain, until when it is not asked for evidence (steady seconds)."""
    _running: dict[tuple[str, str], asyncio.Task[NodeAppraisal]] = field(default_factory=dict)

    async def appraise(self, domain: str, digest: str) -> NodeAppraisal:
        """Our verdict on the evidence `domain` named. One check at a time per document.

        Raises `Undecided` when the document cannot be had, `Refused` when it is not what was named.
        """
        held = self._held.get(digest)
        if held is not None and held.domain != domain:
            raise Refused("evidence.foreign", f"a node of {held.domain}, offered by {domain}")
        if held is not None and held.verdict is not None and held.verdict.expires_at > _seconds():
            return held.verdict
        task = self._running.get((domain, digest))
        if task is None:
            task = asyncio.create_task(self._appraise(domain, digest))
            self._running[domain, digest] = task
            task.add_done_callback(lambda _: self._running.pop((domain, digest), None))
        return await asyncio.shield(task)

    async def _appraise(self, domain: str, digest: str) -> NodeAppraisal:
        """A verdict that was made, document and all, while nothing spoke against its domain."""
        for _ in range(MAX_PROOFS):
            moves = self._moves[domain]
            held, appraisal = await self._prove(domain, digest)
            if moves == self._moves[domain]:
                held.verdict = appraisal if appraisal.status in GOOD else None
                self._keep(digest, held)
                return appraisal
        raise Refused("trust.epoch_changed", f"trust in {domain} changes faster than it can be proved")

    async def _prove(self, domain: str, digest: str) -> tuple[Held, NodeAppraisal]:
        held = self._held.get(digest) or Held(domain, unpack(await self._fetch(domain, digest)))
        if len(held.document) > MAX_EVIDENCE_BYTES or evidence_digest(held.document).hex() != digest:
            raise Refused("evidence.digest", f"{domain} sent another document than it named")
        appraisal = await self._judge(held.document, held.supply)
        if appraisal.evidence.domain != domain:
            raise Refused("evidence.foreign", f"a node of {appraisal.evidence.domain}, offered by {domain}")
        if appraisal.status == "none":
            appraisal = await self._supply(held, appraisal)
        return held, appraisal

    async def _fetch(self, domain: str, digest: str) -> bytes:
        """The document. Raises `Undecided`, at once where the domain was silent a moment ago."""
        if self._silent.get(domain, 0.0) > time.monotonic():
            raise Undecided("evidence.withheld", f"{domain} did not answer a moment ago")
        try:
            return await self.fetch(domain, digest)
        except ComityError as error:
            if error.code == "bus.timeout":
                self._silent[domain] = time.monotonic() + SILENT_S
            raise

    async def _judge(self, document: bytes, supply: Supply) -> NodeAppraisal:
        """Raises `Unreadable` when the bytes are no evidence."""
        now = datetime.now(UTC)
        return await asyncio.to_thread(
            appraise_node,
            document,
            expectations=narrow(self.expectations, self.trust, now),
            challenges=self.challenges.issued(),
            enrolments=self.trust.enrolments(),
            at=now,
            extra_endorsements=tuple(supply.pieces.values()),
        )

    async def _supply(self, held: Held, undecided: NodeAppraisal) -> NodeAppraisal:
        """Judge again with what the domain keeps apart; once for each document and bundle."""
        supply = await self.collateral.of(held.domain) if self.collateral else NOTHING
        if supply.name == held.supply.name:
            return undecided
        held.supply = supply
        return await self._judge(held.document, supply)

    def _keep(self, digest: str, held: Held) -> None:
        """Remember a document; with the oldest goes all that is known about it, so that no verdict outlives
        its evidence."""
        if digest not in self._held:
            self._held[digest] = held
            self._held_bytes += len(held.document)
        while len(self._held) > MAX_CACHED or self._held_bytes > MAX_DOCUMENT_BYTES:
            self._forget(next(iter(self._held)))

    def _forget(self, digest: str) -> None:
        self._held_bytes -= len(self._held.pop(digest).document)

    def supply(self, digest: str) -> Supply:
        """The collateral that an appraisal took beside the evidence's own, for the receipt's bundle."""
        held = self._held.get(digest)
        return held.supply if held else NOTHING

    def document(self, digest: str) -> bytes | None:
        """The raw evidence behind an appraisal, for the receipt's bundle."""
        held = self._held.get(digest)
        return held.document if held else None

    async def still(self, appraisal: NodeAppraisal, epoch: int) -> NodeAppraisal:
        """The last look before the first byte leaves: what the node is, if trust moved since `epoch`.

        Returns at once where nothing speaks against the appraisal; otherwise the same evidence is had and
        judged again. Raises `Refused` when the node is out or is no longer found to be the same, `Undecided`
        when its domain does not show the evidence any more.
        """
        digest = appraisal.evidence_digest.hex()
        for _ in range(MAX_PROOFS):
            self._check_lasting(appraisal)
            held = self._held.get(digest)
            if epoch == self.trust_epoch or (held is not None and held.verdict is appraisal):
                return appraisal
            epoch = self.trust_epoch
            again = await self.appraise(appraisal.evidence.domain, digest)
            if (again.status, again.reason) != (appraisal.status, appraisal.reason):
                raise Refused("trust.verdict_changed", f"the node is {again.status} now")
            appraisal = again
        raise Refused("trust.epoch_changed", "trust changes faster than it can be proved")

    def _check_lasting(self, appraisal: NodeAppraisal) -> None:
        reason = self.revocation(appraisal.evidence.domain, appraisal.sign_key.thumbprint)
        if reason is not None:
            raise Refused("trust.node_revoked", f"the node was revoked ({reason})")
        if appraisal.expires_at <= _seconds():
            raise Refused("trust.appraisal_expired", "the proof is too old")

    def revoke(self, domain: str, thumbprints: list[str], reason: ReasonClass, epoch: int) -> None:
        """Never trust these node keys of this domain again. A domain speaks for its own nodes alone.

        epoch: the domain's trust epoch from here on. Where it is the next one, the adverts that state it tell
        nothing new.
        """
        self._move(domain)
        if self._epochs.get(domain) == epoch - 1:
            self._epochs[domain] = epoch
        if domain not in self._shut:
            revoked = self._revoked.setdefault(domain, {})
            for each in thumbprints:
                if revoked.get(each) != "compromise":  # which an earlier word that comes late does not undo
                    revoked[each] = reason
            if len(revoked) > MAX_REVOKED:
                self._shut.add(domain)
                del self._revoked[domain]
        for held in self._held.values():
            if held.verdict and self.revocation(held.domain, held.verdict.sign_key.thumbprint):
                held.verdict = None

    def note_epoch(self, domain: str, epoch: int) -> None:
        """What the newest advert of a member says. An epoch that moved shows a revocation that was lost, and
        is noticed also where the adverts between were lost with it."""
        if self._epochs.setdefault(domain, epoch) != epoch:
            self._epochs[domain] = epoch
            self._distrust(domain)

    def _distrust(self, domain: str) -> None:
        """Its trust epoch moved and we do not know why: nothing that this domain showed counts any more.

        An agent shows no evidence of a node that it revoked, so that asking again is what finds it out.
        """
        self._move(domain)
        for digest in [digest for digest, held in self._held.items() if held.domain == domain]:
            self._forget(digest)

    def _move(self, domain: str) -> None:
        self.trust_epoch += 1
        self._moves[domain] += 1

    def revocation(self, domain: str, thumbprint: str) -> ReasonClass | None:
        """Why this node key of this domain is out, if it is."""
        return "compromise" if domain in self._shut else self._revoked.get(domain, {}).get(thumbprint)


def _seconds() -> float:
    return datetime.now(UTC).timestamp()
