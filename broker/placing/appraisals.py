"""Is a node what it claims, by our own check, right now? Prove before decide (session.md 5).

A provider's verdict is a hint; the evidence comes by digest and is appraised here against our own
expectations and our own challenge. The cache holds an appraisal no longer than the earliest of
challenge age, collateral and certificates allows, and a revocation empties it at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Literal

from attestation.appraise import IssuedChallenge, NodeAppraisal, appraise_node
from attestation.expected import Expectations
from attestation.narrow import narrow
from broker.placing.collateral import NOTHING, PeerCollateral, Supply
from schemas.errors import Refused
from schemas.messages.interior import OwnAdvert
from schemas.papers.trust import FederationTrust
from schemas.proof.evidence import MAX_EVIDENCE_BYTES, evidence_digest, unpack

MAX_CACHED: Final = 4096  # appraisals; one per node and epoch in sight
MAX_DOCUMENT_BYTES: Final = 128 * 1024 * 1024  # of evidence in memory: large nodes' are a mebibyte an epoch
MAX_REVOKED: Final = 100_000  # keys of one domain's nodes, each of which makes a new one at each start
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
    _cached: dict[str, NodeAppraisal] = field(default_factory=dict)
    _documents: dict[str, bytes] = field(default_factory=dict)
    _document_bytes: int = 0
    _revoked: dict[str, dict[str, ReasonClass]] = field(default_factory=dict)
    """By domain, then by the node key's thumbprint."""
    _shut: set[str] = field(default_factory=set)
    """Domains that revoked more than we can remember: none of their nodes is trusted any more."""
    _epochs: dict[str, int] = field(default_factory=dict)
    """By domain, its own trust epoch as its newest advert stated it, however long ago."""
    _running: dict[tuple[str, str], asyncio.Task[NodeAppraisal]] = field(default_factory=dict)
    _supplied: dict[str, Supply] = field(default_factory=dict)
    """Evidence digest → the bundle without which it was undecided, whether it helped or not."""

    async def appraise(self, domain: str, digest: str) -> NodeAppraisal:
        """Our verdict on the evidence `domain` named. One check at a time per document.

        Raises `Undecided` when the document cannot be had, `Refused` when it is not what was named.
        """
        held = self._cached.get(digest)
        if held is not None and held.evidence.domain == domain and held.expires_at > _seconds():
            return held
        task = self._running.get((domain, digest))
        if task is None:
            task = asyncio.create_task(self._appraise(domain, digest))
            self._running[domain, digest] = task
            task.add_done_callback(lambda _: self._running.pop((domain, digest), None))
        return await asyncio.shield(task)

    async def _appraise(self, domain: str, digest: str) -> NodeAppraisal:
        document = self._documents.get(digest) or unpack(await self.fetch(domain, digest))
        if len(document) > MAX_EVIDENCE_BYTES or evidence_digest(document).hex() != digest:
            raise Refused("evidence.digest", f"{domain} sent another document than it named")
        appraisal = await self._judge(document, self._supplied.get(digest, NOTHING))
        if appraisal.evidence.domain != domain:
            raise Refused("evidence.foreign", f"a node of {appraisal.evidence.domain}, offered by {domain}")
        self._keep(digest, document)
        if appraisal.status == "none":
            appraisal = await self._supply(domain, digest, document, appraisal)
        if appraisal.status in ("affirming", "warning") and digest in self._documents:
            self._cached[digest] = appraisal
        return appraisal

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

    async def _supply(
        self, domain: str, digest: str, document: bytes, undecided: NodeAppraisal
    ) -> NodeAppraisal:
        """Judge again with what the domain keeps apart; once for each document and bundle."""
        supply = await self.collateral.of(domain) if self.collateral else NOTHING
        if supply.name == self._supplied.get(digest, NOTHING).name:
            return undecided
        if digest in self._documents:
            self._supplied[digest] = supply
        return await self._judge(document, supply)

    def _keep(self, digest: str, document: bytes) -> None:
        """Remember a document; with the oldest goes all that is known about it, so that no verdict outlives
        its evidence."""
        if digest not in self._documents:
            self._documents[digest] = document
            self._document_bytes += len(document)
        while len(self._documents) > MAX_CACHED or self._document_bytes > MAX_DOCUMENT_BYTES:
            oldest = next(iter(self._documents))
            self._document_bytes -= len(self._documents.pop(oldest))
            self._cached.pop(oldest, None)
            self._supplied.pop(oldest, None)

    def supply(self, digest: str) -> Supply:
        """The collateral that an appraisal took beside the evidence's own, for the receipt's bundle."""
        return self._supplied.get(digest, NOTHING)

    def document(self, digest: str) -> bytes | None:
        """The raw evidence behind an appraisal, for the receipt's bundle."""
        return self._documents.get(digest)

    def usable(self, appraisal: NodeAppraisal, epoch: int) -> NodeAppraisal:
        """The same appraisal, if nothing has changed since `epoch`. Raises `Refused`.

        This is the last look before the first byte leaves.
        """
        reason = self.revocation(appraisal.evidence.domain, appraisal.sign_key.thumbprint)
        if reason is not None:
            raise Refused("trust.node_revoked", f"the node was revoked ({reason})")
        if appraisal.expires_at <= _seconds():
            raise Refused("trust.appraisal_expired", "the proof is too old")
        if epoch != self.trust_epoch and appraisal.evidence_digest.hex() not in self._cached:
            raise Refused("trust.epoch_changed", "trust changed since the proof; prove again")
        return appraisal

    def revoke(self, domain: str, thumbprints: list[str], reason: ReasonClass) -> None:
        """Never trust these node keys of this domain again. A domain speaks for its own nodes alone."""
        self.trust_epoch += 1
        if domain not in self._shut:
            revoked = self._revoked.setdefault(domain, {})
            for each in thumbprints:
                if revoked.get(each) != "compromise":  # which an earlier word that comes late does not undo
                    revoked[each] = reason
            if len(revoked) > MAX_REVOKED:
                self._shut.add(domain)
                del self._revoked[domain]
        self._cached = {
            digest: held
            for digest, held in self._cached.items()
            if held.evidence.domain != domain or held.sign_key.thumbprint not in thumbprints
        }

    def note_epoch(self, domain: str, epoch: int) -> None:
        """What the newest advert of a member says. An epoch that moved shows a revocation that was lost, and
        is noticed also where the adverts between were lost with it."""
        if self._epochs.setdefault(domain, epoch) != epoch:
            self._epochs[domain] = epoch
            self._distrust(domain)

    def _distrust(self, domain: str) -> None:
        """Forget every verdict on this domain's nodes: its trust epoch moved and we do not know why."""
        self.trust_epoch += 1
        self._cached = {d: held for d, held in self._cached.items() if held.evidence.domain != domain}

    def revocation(self, domain: str, thumbprint: str) -> ReasonClass | None:
        """Why this node key of this domain is out, if it is."""
        return "compromise" if domain in self._shut else self._revoked.get(domain, {}).get(thumbprint)


def _seconds() -> float:
    return datetime.now(UTC).timestamp()
