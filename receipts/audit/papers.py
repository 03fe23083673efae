"""Charter and manifests from a folder: recognised by what they are, believed only under the auditor's pin."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from receipts.bundle import Bundle
from schemas import envelope
from schemas.errors import ConfigurationError, Unreadable
from schemas.papers.manifest import MANIFEST_TYPE

MAX_PAPERS: Final = 4096  # files looked at
MAX_PAPER_BYTES: Final = 4 * 1024 * 1024  # of one file; larger ones are none of ours


def read(folder: Path) -> Bundle:
    """A bundle of papers alone.

    Raises `ConfigurationError` when the folder cannot be read, or holds two charters: which one is meant is
    nothing to guess.
    """
    charters: dict[bytes, bytes] = {}
    manifests: list[bytes] = []
    try:
        if not folder.is_dir():
            raise ConfigurationError("audit.papers", f"{folder}: no such folder")
        files = sorted(path for path in folder.rglob("*.json") if path.is_file())[:MAX_PAPERS]
        documents = [path.read_bytes() for path in files if path.stat().st_size <= MAX_PAPER_BYTES]
    except OSError as error:
        raise ConfigurationError("audit.papers", f"{folder}: {error.strerror}") from None
    for data in documents:
        match _kind(data):
            case "charter":
                charters[envelope.read(data).digest] = data
            case "manifest":
                manifests.append(data)
    if not manifests:
        raise ConfigurationError("audit.papers", f"{folder} holds no signed manifest")
    if len(charters) > 1:
        named = ", ".join(sorted(digest.hex() for digest in charters))
        raise ConfigurationError("audit.papers", f"{folder} holds {len(charters)} charters: {named}")
    return Bundle(envelopes={}, charter=next(iter(charters.values()), None), manifests=tuple(manifests))


def _kind(data: bytes) -> str | None:
    try:
        kind = envelope.read(data).payload_type
    except Unreadable:
        return None
    return {envelope.CHARTER: "charter", MANIFEST_TYPE: "manifest"}.get(kind)
