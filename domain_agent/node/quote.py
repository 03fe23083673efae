"""What the node says of itself to the hardware: its configuration, and one quote over all challenges.

Every digest here is computed by the node from the bytes that it is about to run (session.md 4).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from domain_agent.node.collect import Collect
from domain_agent.node.keys import NodeKeys
from schemas import binding
from schemas.errors import ConfigurationError, Refused
from schemas.evidence import ChallengeProof, CpuEvidence, NodeConfiguration, NodeEvidence

READ_BYTES: Final = 1024 * 1024  # per read while hashing
MAX_DOCUMENT_BYTES: Final = 192 * 1024  # an evidence document answers in one bus message (session.md 10)


async def file_digest(path: Path) -> str:
    """SHA-256 of a file in hex, computed in a thread. Raises `ConfigurationError`."""
    try:
        return await asyncio.to_thread(_hash, path)
    except OSError as error:
        raise ConfigurationError("node.file", f"{path}: {error.strerror}") from None


def _hash(path: Path) -> str:
    state = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(READ_BYTES):
            state.update(piece)
    return state.hexdigest()


async def make_evidence(
    keys: NodeKeys,
    collect: Collect,
    configuration: NodeConfiguration,
    *,
    federation: str,
    domain: str,
    node_id: str,
    key_epoch: int,
    challenges: Mapping[str, bytes],
    now: float,
) -> NodeEvidence:
    """One quote that answers every challenge. A new epoch makes a new seal key; the same one keeps it.

    now: the node's monotonic clock. Raises `Refused` (`node.key_epoch`, `node.not_own_challenge`,
    `binding.*`) or what the collector raises; then an epoch's key may exist that nobody will name.
    """
    if domain not in challenges:
        raise Refused("node.not_own_challenge", "the challenges do not include our own domain's")
    tree = await asyncio.to_thread(binding.ChallengeTree.over, challenges)
    seal = keys.at_epoch(key_epoch, now)
    unsigned = NodeEvidence(
        federation=federation,
        domain=domain,
        node_id=node_id,
        boot_id=keys.boot_id,
        key_epoch=key_epoch,
        sign_spki=keys.sign.public.spki,
        seal_key=seal.key.public,
        challenge_root=tree.root.hex(),
        challenges=[_proof(name, path) for name, path in sorted(tree.paths.items())],
        configuration=configuration,
        cpu=CpuEvidence(tee="snp", report=b"", endorsements=[]),  # not part of what is quoted
    )
    cpu = await asyncio.to_thread(collect, unsigned.expected_report_data())
    evidence = unsigned.model_copy(update={"cpu": cpu})
    if len(evidence.write()) > MAX_DOCUMENT_BYTES:
        raise Refused("node.evidence_size", f"the evidence exceeds {MAX_DOCUMENT_BYTES} bytes")
    return evidence


def _proof(domain: str, path: binding.ChallengePath) -> ChallengeProof:
    return ChallengeProof(
        domain=domain, index=path.index, size=path.size, path=[part.hex() for part in path.path]
    )
