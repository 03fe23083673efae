"""What a node's hardware vouches for: `report_data`, and the challenges that make it fresh.

One structure for SNP, TDX and composites (session.md 1 and 2). The node computes it before it
quotes; every verifier computes it again from the evidence it was given. Keys, domain, challenge
root and the node's own configuration are all inside, so that changing any one of them changes the
64 bytes that the hardware signed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from schemas import merkle
from schemas.canonical import length_prefixed, sha256
from schemas.errors import Refused

CHALLENGE_BYTES: Final = 32
NO_DEVICES: Final = bytes(32)
"""`device_evidence_digest` of a node without attested devices."""
MAX_CHALLENGES: Final = 1024  # domains one quote can serve; beyond it regional brokers aggregate


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """Who a node says it is for one key epoch. `boot_id` changes with every start of the node."""

    federation: str
    domain: str
    node_id: str
    boot_id: str
    key_epoch: int
    sign_spki: bytes
    """DER SubjectPublicKeyInfo of the P-256 signing key."""
    seal_key: bytes
    """X-Wing public key, 1,216 bytes."""


def report_data(
    identity: NodeIdentity, *, challenge_root: bytes, node_config_digest: bytes, device_evidence_digest: bytes
) -> bytes:
    """The 64 bytes that a CPU report must carry (session.md 1)."""
    return hashlib.sha512(
        length_prefixed(
            b"comity node v1",
            identity.federation.encode(),
            identity.domain.encode(),
            identity.node_id.encode(),
            identity.boot_id.encode(),
            identity.key_epoch.to_bytes(8, "big"),
            identity.sign_spki,
            identity.seal_key,
            challenge_root,
            node_config_digest,
            device_evidence_digest,
        )
    ).digest()


def device_nonce(identity: NodeIdentity, *, device_challenge_root: bytes) -> bytes:
    """The 32 bytes that GPUs and switches are challenged with (session.md 1)."""
    return sha256(
        length_prefixed(
            b"comity device v1",
            identity.federation.encode(),
            identity.domain.encode(),
            identity.node_id.encode(),
            identity.boot_id.encode(),
            identity.sign_spki,
            device_challenge_root,
        )
    )


@dataclass(frozen=True, slots=True)
class ChallengePath:
    """Where one domain's challenge stands in the tree that a quote answers."""

    index: int
    size: int
    path: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class ChallengeTree:
    """The Merkle tree over the current challenges of a node's agent and of all its peers."""

    root: bytes
    paths: Mapping[str, ChallengePath]
    """Per domain name."""

    @staticmethod
    def over(challenges: Mapping[str, bytes]) -> ChallengeTree:
        """Build the tree, ordered by domain name. Raises `Refused` for none, too many, or a bad length."""
        if not 1 <= len(challenges) <= MAX_CHALLENGES:
            raise Refused("binding.challenge_count", f"between 1 and {MAX_CHALLENGES} challenges")
        if any(len(challenge) != CHALLENGE_BYTES for challenge in challenges.values()):
            raise Refused("binding.challenge_length", "a challenge is 32 bytes")
        domains = sorted(challenges)
        leaves = [challenge_leaf(domain, challenges[domain]) for domain in domains]
        return ChallengeTree(
            merkle.root(leaves),
            {
                domain: ChallengePath(index, len(leaves), tuple(merkle.inclusion_path(leaves, index)))
                for index, domain in enumerate(domains)
            },
        )


def challenge_leaf(domain: str, challenge: bytes) -> bytes:
    """Leaf hash of one domain's challenge. The name is inside: nobody answers with another's challenge."""
    return merkle.leaf_hash(length_prefixed(b"comity challenge v1", domain.encode(), challenge))


def verify_challenge(domain: str, challenge: bytes, path: ChallengePath, challenge_root: bytes) -> bytes:
    """Return the root when `domain`'s challenge is under it. Raises `Refused`."""
    return merkle.verify_inclusion(
        challenge_leaf(domain, challenge), path.index, path.size, path.path, challenge_root
    )
