"""What a domain's agent keeps for verifying its nodes, fetched by the name that its advert states.

Evidence that leaves something undecided may lack a certificate, a list or a manifest that its domain holds
apart, because it did not fit. The bundle is fetched once for each name, whole or not at all. Nothing in it
is believed for having come: the index is held to the domain's registered key, every piece to its digest,
and each piece again to its vendor's root by the appraisal.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from schemas.canonical import sha256
from schemas.errors import ComityError, Refused
from schemas.papers.trust import FederationTrust
from schemas.proof.collateral import (
    MAX_INDEX_BYTES,
    ROLE,
    CollateralIndex,
    Piece,
    verify_index,
    verify_piece,
)

FETCH_S: Final = 5.0  # seconds for a whole bundle, as for one document of evidence: a request waits for it
AT_ONCE: Final = 8  # pieces on their way; a border answers 64 requests at a time, of all its peers
MAX_HELD: Final = 16  # domains whose bundles are held: 128 MiB if each were as large as it may be
RETRY_S: Final = 30.0  # seconds before a bundle that could not be had, or did not hold, is asked for again
RENEW_S: Final = 30.0  # seconds that one bundle of a domain counts at least: operators renew theirs daily

Fetch = Callable[[str, str], Awaitable[bytes]]
"""(domain, digest in hex) → the document's bytes. Raises `ComityError`."""
log = logging.getLogger("comity.placing")


@dataclass(frozen=True, slots=True)
class Supply:
    """A domain's bundle as it was verified; none has no name."""

    name: str | None = None
    """SHA-256 of the index's envelope, hex."""
    pieces: dict[str, bytes] = field(default_factory=dict, repr=False)
    """SHA-256 in hex → bytes."""


NOTHING: Final = Supply()


@dataclass(slots=True)
class PeerCollateral:
    """Bundles by domain. One per broker, on its event loop."""

    trust: FederationTrust
    fetch: Fetch
    named: Callable[[str], str | None]
    """Domain → the name of the bundle that it advertises now; None where it keeps none."""
    _held: dict[str, Supply] = field(default_factory=dict)
    _failed: dict[str, tuple[str, float]] = field(default_factory=dict)
    """Domain → the name that was tried in vain, and when it may be tried again (monotonic seconds)."""
    _renewed: dict[str, float] = field(default_factory=dict)
    """Domain → when its bundle came (monotonic seconds)."""
    _turns: dict[str, asyncio.Lock] = field(default_factory=dict)

    async def of(self, domain: str) -> Supply:
        """The bundle in force, fetched where it is new; `NOTHING` where there is none that holds."""
        name = self.named(domain)
        if name is None:
            return NOTHING
        async with self._turns.setdefault(domain, asyncio.Lock()):
            held, now = self._held.get(domain, NOTHING), time.monotonic()
            tried, again = self._failed.get(domain, ("", 0.0))
            if held.name == name or (held.name and now < self._renewed[domain] + RENEW_S):
                return held
            if tried == name and now < again:
                return NOTHING
            try:
                async with asyncio.timeout(FETCH_S):
                    return self._keep(domain, await self._take(domain, name, held))
            except (ComityError, TimeoutError) as error:
                self._failed[domain] = (name, time.monotonic() + RETRY_S)
                code = getattr(error, "code", "timeout")
                log.warning("no collateral of a peer: %s", error, extra={"peer": domain, "code": code})
                return NOTHING

    async def _take(self, domain: str, name: str, before: Supply) -> Supply:
        """Index first, then what is new in it. Raises `ComityError`."""
        index = self._index(await self.fetch(domain, name), domain, name)
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(piece: Piece) -> bytes:
            if piece.sha256 in before.pieces:
                return before.pieces[piece.sha256]
            async with gate:
                return verify_piece(piece, await self.fetch(domain, piece.sha256))

        pieces = await _all([one(piece) for piece in index.pieces])
        return Supply(name, {piece.sha256: data for piece, data in zip(index.pieces, pieces, strict=True)})

    def _index(self, data: bytes, domain: str, name: str) -> CollateralIndex:
        """The index, if it is the one that was advertised, by this very domain. Raises `ComityError`."""
        if len(data) > MAX_INDEX_BYTES or sha256(data).hex() != name:
            raise Refused("collateral.index", f"{domain} sent another index than it advertises")
        now = datetime.now(UTC)
        index = verify_index(data, lambda issuer, at: self.trust.keys(issuer, ROLE, at), now)
        if index.issuer != domain:
            raise Refused("collateral.issuer", f"a bundle of {index.issuer}, advertised by {domain}")
        return index

    def _keep(self, domain: str, supply: Supply) -> Supply:
        self._failed.pop(domain, None)
        self._held.pop(domain, None)
        self._held[domain], self._renewed[domain] = supply, time.monotonic()
        while len(self._held) > MAX_HELD:
            del self._held[next(iter(self._held))]
        return supply


async def _all(waiting: Sequence[Awaitable[bytes]]) -> list[bytes]:
    """Every result, in order; the first failure stops the others and is raised alone."""
    tasks = [asyncio.ensure_future(each) for each in waiting]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
