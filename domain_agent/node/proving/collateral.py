"""The node's copy of its domain's collateral: fetched from the agent by hash, sent along with every quote.

Nothing of it is believed for having come from the agent: the index is verified under the domain's registered
key, every piece by its digest, and each piece again to its vendor's root by whoever appraises.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from domain_agent.membership import Membership
from schemas.canonical import sha256
from schemas.errors import ComityError, Refused
from schemas.proof.collateral import ROLE, CollateralIndex, verify_index, verify_pieces

MAX_ATTACHED: Final = 48  # documents: evidence holds 64, the CPU's own among them
MAX_ATTACHED_BYTES: Final = 112 * 1024  # in base64 150 KiB of the 192 that evidence may have
FETCH_S: Final = 3.0  # seconds for a whole bundle; a quote is waited for for 5

Fetch = Callable[[str], Awaitable[bytes]]
"""Digest in hex → the document's bytes. Raises `ComityError`."""

_log: Final = logging.getLogger("comity.node")


@dataclass(slots=True)
class CollateralCopy:
    """One per node, on its event loop."""

    membership: Membership
    fetch: Fetch
    pieces: tuple[bytes, ...] = field(default=(), repr=False)
    """What goes along with a quote; empty until there is a bundle that holds and fits."""
    _digest: str | None = None
    _known: dict[str, bytes] = field(default_factory=dict, repr=False)

    async def renew(self, digest: str | None, now: datetime) -> None:
        """Hold the bundle of this name. One that cannot be had or does not hold changes nothing."""
        if digest is None or digest == self._digest:
            return
        try:
            async with asyncio.timeout(FETCH_S):
                await self._take(digest, now)
        except (ComityError, TimeoutError) as error:
            _log.warning("no new collateral: %s", error, extra={"code": getattr(error, "code", "timeout")})

    async def _take(self, digest: str, now: datetime) -> None:
        """Index first, then what is new in it. Raises `ComityError`."""
        index = self._index(await self.fetch(digest), digest, now)
        wanted = [piece.sha256 for piece in index.pieces]
        known = {name: self._known.get(name) or await self.fetch(name) for name in wanted}
        pieces = verify_pieces(index, known)
        fits = len(pieces) <= MAX_ATTACHED and sum(map(len, pieces)) <= MAX_ATTACHED_BYTES
        if not fits:
            _log.warning("collateral does not fit into evidence: verifiers need the domain's bundle")
        self.pieces, self._known, self._digest = pieces if fits else (), known, digest

    def _index(self, data: bytes, digest: str, now: datetime) -> CollateralIndex:
        if sha256(data).hex() != digest:
            raise Refused("collateral.index", "another index than the one that was named")
        index = verify_index(data, lambda domain, at: self.membership.trust.keys(domain, ROLE, at), now)
        if index.issuer != self.membership.domain:
            raise Refused("collateral.issuer", f"a bundle of {index.issuer}")
        return index
