"""What the node says of itself to the hardware: its configuration, and one quote over all challenges.

Every digest here is computed by the node from the bytes that it is about to run (session.md 4).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from domain_agent.node.keys import NodeKeys
from domain_agent.node.proving.collect import Collect
from domain_agent.node.proving.devices import COLLECT_TIMEOUT_S, CollectDevices
from schemas.errors import ConfigurationError, Refused, Undecided
from schemas.proof import binding
from schemas.proof.evidence import (
    MAX_EVIDENCE_BYTES,
    MAX_PACKED_BYTES,
    ChallengeProof,
    CpuEvidence,
    NodeConfiguration,
    NodeEvidence,
    pack,
)

READ_BYTES: Final = 1024 * 1024  # per read while hashing


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
    devices: CollectDevices | None = None,
    collateral: Sequence[bytes] = (),
    event_log: Callable[[], bytes] | None = None,
) -> NodeEvidence:
    """One quote that answers every challenge. A new epoch makes a new seal key; the same one keeps it.

    now: the node's monotonic clock. devices: they answer a nonce of this session, and the CPU's report covers
    what they answered. collateral: documents to send along, which the report does not cover.
    event_log: reads what explains a trust domain's registers.
    Raises `Refused` (`node.key_epoch`, `node.not_own_challenge`, `binding.*`) or what the collector raises;
    then an epoch's key may exist that nobody will name.
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
    whole = unsigned if devices is None else await _with_devices(unsigned, devices, tree.root)
    cpu = await asyncio.to_thread(collect, whole.expected_report_data())
    endorsements = list(dict.fromkeys((*cpu.endorsements, *collateral)))
    cpu = cpu.model_copy(update={"endorsements": endorsements})
    log = await asyncio.to_thread(event_log) if event_log is not None and cpu.tee == "tdx" else None
    evidence = whole.model_copy(update={"cpu": cpu, "event_log": log})
    document = evidence.write()
    if len(document) > MAX_EVIDENCE_BYTES or len(pack(document)) > MAX_PACKED_BYTES:
        seen = f"{len(document)} bytes of evidence, {len(pack(document))} packed"
        raise Refused("node.evidence_size", f"{seen}; {MAX_PACKED_BYTES} fit into one message")
    return evidence


async def _with_devices(unsigned: NodeEvidence, collect: CollectDevices, root: bytes) -> NodeEvidence:
    """The evidence with every device's report on this session's nonce (session.md 1)."""
    nonce = binding.device_nonce(unsigned.identity, device_challenge_root=root)
    try:
        found = await asyncio.wait_for(asyncio.to_thread(collect, nonce), COLLECT_TIMEOUT_S)
    except TimeoutError:
        raise Undecided("devices.timeout", f"no reports within {COLLECT_TIMEOUT_S:.0f} s") from None
    return unsigned.model_copy(update={"devices": found, "device_challenge_root": root.hex()})


def _proof(domain: str, path: binding.ChallengePath) -> ChallengeProof:
    return ChallengeProof(
        domain=domain, index=path.index, size=path.size, path=[part.hex() for part in path.path]
    )
