"""The log that a broker holds, and the witness that it runs for the others' logs: opened with their keys."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from broker.config import BrokerConfig
from broker.placing.decide import Rulebook
from broker.starting.papers import TrustFiles
from broker.witnesses import open_witness
from receipts.cosignature import Cosigner
from receipts.log import LogIdentity, LogKeys, TransparencyLog
from receipts.note import NoteSigner
from receipts.statements.fields import ManifestRef
from receipts.witnessing.state import WitnessState
from schemas.errors import ConfigurationError
from schemas.keys import SigningKey, read_secret
from schemas.trust import FederationTrust


async def open_log(config: BrokerConfig, files: TrustFiles, rules: Rulebook) -> TransparencyLog:
    """Become the holder of this domain's log. Raises `ConfigurationError` or `Refused`."""
    manifest = files.trust.manifest(config.domain)
    if not manifest.logs:
        raise ConfigurationError("config.log", f"the manifest of {config.domain} registers no log")
    origin = manifest.logs[0].origin
    return await TransparencyLog.open(
        config.database,
        identity=LogIdentity(
            federation=files.trust.federation,
            domain=config.domain,
            origin=origin,
            manifest=ManifestRef(
                version=manifest.version, digest=files.trust.manifest_digests[config.domain].hex()
            ),
            documents=replace(files.documents(), policies=rules.texts()),
        ),
        keys=LogKeys(
            receipt=SigningKey.load(config.keys.receipt),
            promise=SigningKey.load(config.keys.promise),
            note=_note_signer(origin, config.keys.log),
        ),
    )


def _note_signer(origin: str, path: Path) -> NoteSigner:
    return NoteSigner.of(origin, _ed25519_seed("log", path))


def own_witness(config: BrokerConfig, trust: FederationTrust) -> WitnessState | None:
    """Our witness, under the name that our manifest gives it; None where no key is configured."""
    registered = trust.manifest(config.domain).witnesses
    if config.keys.witness is None or not registered:
        return None
    name, seed = registered[0].name, _ed25519_seed("witness", config.keys.witness)
    if Cosigner.of(name, seed).key.vkey != registered[0].vkey:
        raise ConfigurationError("config.keys.witness", f"{config.domain} has not registered this key")
    path = config.database.with_name(f"{config.database.stem}-witness.db")
    return open_witness(path, name, seed, trust, config.domain)


def _ed25519_seed(role: str, path: Path) -> bytes:
    """An Ed25519 key, from the same PKCS#8 PEM as every other key."""
    try:
        private = load_pem_private_key(read_secret(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        private = None
    if not isinstance(private, Ed25519PrivateKey):
        raise ConfigurationError(f"config.keys.{role}", f"{path}: an Ed25519 key in PKCS#8 PEM is required")
    return private.private_bytes_raw()
