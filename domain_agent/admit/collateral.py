"""The domain's bundle of collateral, as its operator renews it: served to nodes and peers by hash.

The folder is looked at before every quote, so that what `comity attest fetch --bundle` writes there counts
with the next one. A bundle that does not hold is refused and named; the one before it goes on serving.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

from attestation.collateral.bundle import INDEX, read_bundle
from domain_agent.membership import Membership
from schemas.canonical import sha256
from schemas.errors import ComityError, Refused, Undecided
from schemas.proof.collateral import ROLE, verify_index, verify_pieces

_log: Final = logging.getLogger("comity.agent")


@dataclass(frozen=True, slots=True)
class Held:
    """One bundle that holds."""

    digest: str
    """SHA-256 of the index's envelope, hex: the bundle's name."""
    pieces: tuple[bytes, ...] = field(repr=False)
    documents: Mapping[str, bytes] = field(repr=False)
    """Name → bytes, of the index and of every piece."""


@dataclass(slots=True)
class Collateral:
    """One per agent. `renew` blocks: call it in a thread."""

    membership: Membership
    folder: Path | None
    """None: this domain keeps no bundle."""
    held: Held | None = None
    _before: Held | None = None
    _seen: tuple[int, int] = (0, 0)
    """Time and size of the index file at the last look."""
    _looking: threading.Lock = field(default_factory=threading.Lock, repr=False)
    """Several nodes are asked at a time: one of them looks, the others take what is in force."""

    @property
    def digest(self) -> str | None:
        """The name of the bundle in force."""
        return self.held.digest if self.held else None

    @property
    def pieces(self) -> tuple[bytes, ...]:
        return self.held.pieces if self.held else ()

    def renew(self, now: datetime) -> bool:
        """Read the folder again where its index changed. Returns whether another bundle is in force."""
        if self.folder is None or not self._looking.acquire(blocking=False):
            return False
        try:
            return self._renew(self.folder, now)
        finally:
            self._looking.release()

    def _renew(self, folder: Path, now: datetime) -> bool:
        try:
            stated = (folder / INDEX).stat()
            seen = (stated.st_mtime_ns, stated.st_size)
            if seen == self._seen:
                return False
            found = self._read(folder, now)
        except OSError as error:
            _log.warning("no bundle of collateral: %s", error.strerror, extra={"folder": str(folder)})
            return False
        except ComityError as error:
            _log.warning("bundle of collateral refused: %s", error, extra={"code": error.code})
            return False
        self._before, self.held, self._seen = self.held, found, seen
        return True

    def _read(self, folder: Path, now: datetime) -> Held:
        """The bundle there, if this very domain signed it. Raises `ComityError`."""
        data, files = read_bundle(folder)
        index = verify_index(data, lambda domain, at: self.membership.trust.keys(domain, ROLE, at), now)
        if index.issuer != self.membership.domain:
            raise Refused("collateral.issuer", f"a bundle of {index.issuer}")
        name = sha256(data).hex()
        return Held(name, verify_pieces(index, files), {**files, name: data})

    def document(self, digest: str) -> bytes:
        """An index or a piece, of this bundle or the one before it. Raises `Undecided`."""
        for held in (self.held, self._before):
            if held is not None and digest in held.documents:
                return held.documents[digest]
        raise Undecided("evidence.unknown", "no document with this digest is kept")
