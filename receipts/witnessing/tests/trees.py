"""Two histories of one log, and who signs them."""

from __future__ import annotations

from receipts import merkle
from receipts.checkpoint import Checkpoint
from receipts.cosignature import Cosigner
from receipts.note import NoteSigner

ORIGIN = "cloud.fr/log"
LOG = NoteSigner.of(ORIGIN, bytes(range(32)))
SIGNER = Cosigner.of("clinic.de/witness", bytes(31) + b"\1")
TIME = 1_780_000_000
LEAVES = [merkle.leaf_hash(bytes([number])) for number in range(40)]
OTHER = [merkle.leaf_hash(bytes([number, 1])) for number in range(40)]


def tree(size: int, leaves: list[bytes] = LEAVES) -> Checkpoint:
    return Checkpoint(ORIGIN, size, merkle.root(leaves[:size]))


def signed(size: int, leaves: list[bytes] = LEAVES) -> bytes:
    return LOG.sign(tree(size, leaves).text)


def proof(first: int, second: int, leaves: list[bytes] = LEAVES) -> list[bytes]:
    def node(level: int, index: int) -> bytes:
        return merkle.root(leaves[index << level : (index + 1) << level])

    return merkle.consistency_proof(first, second, node)
