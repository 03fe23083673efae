"""A domain's secret keys, each for one role, and the files that keep them."""

from __future__ import annotations

import base64
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self, get_args

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, mldsa

from schemas.canonical import sha256
from schemas.keys import SigningKey, write_secret
from schemas.papers.manifest import Role

ED25519_NOTE: Final = 0x01  # C2SP signed-note's type byte
ED25519_COSIGNATURE: Final = 0x04  # C2SP tlog-cosignature's type byte
ML_DSA_SUBTREE: Final = 0x06  # C2SP tlog-cosignature's type byte for ML-DSA-44
BESIDE_FILE: Final = "log-ml-dsa.pem"
API_KEY_BYTES: Final = 32
API_KEY_PREFIX: Final = "cmt_"  # so that scanners for leaked secrets can know one


@dataclass(frozen=True, slots=True)
class DomainKeys:
    """Everything secret that founding makes for one domain, but for its logins on the bus."""

    root: SigningKey
    roles: dict[Role, SigningKey]
    log: ed25519.Ed25519PrivateKey = field(repr=False)
    witness: ed25519.Ed25519PrivateKey = field(repr=False)
    api: dict[str, str] = field(repr=False)
    """Tenant → its API key."""
    beside: mldsa.MLDSA44PrivateKey | None = field(default=None, repr=False)
    """Signs the log's checkpoints as well, where the plan asks for it."""

    @classmethod
    def generate(cls, tenants: list[str], *, ml_dsa: bool = False) -> Self:
        """Fresh keys. The policy role has none: its owner signs elsewhere."""
        roles: dict[Role, SigningKey] = {
            role: SigningKey.generate() for role in get_args(Role) if role != "policy"
        }
        api = {name: API_KEY_PREFIX + secrets.token_urlsafe(API_KEY_BYTES) for name in tenants}
        log, witness = ed25519.Ed25519PrivateKey.generate(), ed25519.Ed25519PrivateKey.generate()
        beside = mldsa.MLDSA44PrivateKey.generate() if ml_dsa else None
        return cls(SigningKey.generate(), roles, log, witness, api, beside)

    def vkey(self, origin: str) -> str:
        """The log's verifier key text."""
        return _vkey(origin, ED25519_NOTE, self.log)

    def beside_vkey(self, origin: str) -> str | None:
        """The verifier key text of what signs beside the log's key."""
        return None if self.beside is None else _vkey(origin, ML_DSA_SUBTREE, self.beside)

    def witness_vkey(self, name: str) -> str:
        """The witness's verifier key text."""
        return _vkey(name, ED25519_COSIGNATURE, self.witness)

    def save(self, folder: Path) -> None:
        """Write each key to a file with mode 0600. Raises `ConfigurationError` when one exists."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.root.save(folder / "root.pem")
        for role, key in self.roles.items():
            key.save(folder / f"{role}.pem")
        write_secret(folder / "log.pem", _pem(self.log))
        write_secret(folder / "witness.pem", _pem(self.witness))
        if self.beside is not None:
            write_secret(folder / BESIDE_FILE, _pem(self.beside))
        for tenant, key_text in self.api.items():
            write_secret(folder / f"api-{tenant}.txt", key_text.encode() + b"\n")


def _vkey(name: str, kind: int, key: ed25519.Ed25519PrivateKey | mldsa.MLDSA44PrivateKey) -> str:
    """Verifier key text (C2SP signed-note): name+key id+base64(type ‖ key)."""
    public = bytes([kind]) + key.public_key().public_bytes_raw()
    identifier = sha256(name.encode(), b"\n", public)[:4].hex()
    return f"{name}+{identifier}+{base64.b64encode(public).decode('ascii')}"


def _pem(key: ed25519.Ed25519PrivateKey | mldsa.MLDSA44PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
