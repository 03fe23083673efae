"""Which nodes an operator has put out, and the trust epoch: the agent's only durable facts.

One small file, replaced as a whole and synced before the operator is told that it is done; a crash
leaves the old or the new one. `trust_epoch` only ever rises (session.md 5). To take a node back,
stop the agent and remove its entry.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, Self

from pydantic import Field

from schemas.canonical import Wire
from schemas.errors import ConfigurationError, Unreadable
from schemas.files import sync_folder
from schemas.primitives import Count, Label, Token

FILE: Final = "revocations.json"
MAX_REVOKED: Final = 10_000  # node ids; ids of scrapped machines may be removed while the agent is stopped

ReasonClass = Literal["compromise", "stale"]


class Revoked(Wire):
    """Why a node is out."""

    reason_class: ReasonClass
    reason: Label


class RevocationFile(Wire):
    """The whole file."""

    v: Literal[1] = 1
    trust_epoch: Count
    nodes: dict[Token, Revoked] = Field(max_length=MAX_REVOKED)


@dataclass(slots=True)
class Revocations:
    """Read once at start; `save` blocks: call it in a thread."""

    folder: Path
    trust_epoch: int
    nodes: dict[str, Revoked] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Raises `ConfigurationError` when the file is there but cannot be read: never fail open."""
        path = folder / FILE
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not path.exists():
                return cls(folder, int(time.time()))
            held = RevocationFile.read(path.read_bytes(), limit=16 * 1024 * 1024)
        except OSError as error:
            raise ConfigurationError("agent.state", f"{path}: {error.strerror}") from None
        except Unreadable as error:
            raise ConfigurationError("agent.state", f"{path}: {error}; restore it from a backup") from None
        return cls(folder, held.trust_epoch, dict(held.nodes))

    def revoke(self, node_id: str, reason_class: ReasonClass, reason: str) -> None:
        """Put a node out, in memory and at once; `save` makes it last."""
        self.nodes[node_id] = Revoked(reason_class=reason_class, reason=reason)
        self.bump()

    def bump(self) -> None:
        """Something that peers rely on is no longer true."""
        self.trust_epoch += 1

    def snapshot(self) -> RevocationFile:
        return RevocationFile(trust_epoch=self.trust_epoch, nodes=dict(self.nodes))

    def save(self, held: RevocationFile) -> None:
        """Replace the file and sync it. Raises `ConfigurationError`."""
        path, fresh = self.folder / FILE, self.folder / f"{FILE}.new"
        try:
            with fresh.open("wb") as file:
                file.write(held.write())
                file.flush()
                os.fsync(file.fileno())
            os.replace(fresh, path)
            sync_folder(self.folder)
        except OSError as error:
            raise ConfigurationError("agent.state", f"{path}: {error.strerror}") from None
