"""The log that a broker holds, and the witness that it runs for the others' logs: opened with their keys."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from broker.placing.decide import Rulebook
from broker.starting.config import BrokerConfig
from broker.starting.papers import TrustFiles
from broker.witnesses import open_witness
from receipts.cosignature import SUBTREE, Cosigner
from receipts.log import LogIdentity, LogKeys, TransparencyLog
from receipts.note import NoteSigner
from receipts.statements.fields import ManifestRef
from receipts.witnessing.state import WitnessState
from schemas.errors import ConfigurationError
from schemas.keys import SigningKey, read_secret
from schemas.papers.manifest import DomainManifest, LogKey
from schemas.papers.trust import FederationTrust


async def open_log(config: BrokerConfig, files: TrustFiles, rules: Rulebook) -> TransparencyLog:
    """Become the holder of this domain's log. Raises `ConfigurationError` or `Refused`."""
    manifest = files.trust.manifest(config.domain)
    if not manifest.logs:
        raise ConfigurationError("config.log", f"the manifest of {config.domain} registers no log")
    registered = _registered(manifest, _note_signer(manifest.logs[0].origin, config.keys.log))
    origin = registered.origin
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
            beside=_beside(registered, config.keys.log_beside),
        ),
    )


def _note_signer(origin: str, path: Path) -> NoteSigner:
    return NoteSigner.of(origin, _ed25519_seed("log", path))


def _registered(manifest: DomainManifest, note: NoteSigner) -> LogKey:
    """The entry of the key that we have: during a rotation a log has an old and a new one.

    Raises `ConfigurationError`: what nobody could verify must not be signed.
    """
    found = next((log for log in manifest.logs if log.vkey == note.key.vkey), None)
    if found is None:
        raise ConfigurationError("config.keys.log", f"{manifest.domain} has not registered this key")
    return found


def _beside(registered: LogKey, path: Path | None) -> Cosigner | None:
    """The ML-DSA-44 key that is registered beside the log's key; both or none."""
    if path is None and registered.beside is None:
        return None
    if path is None or registered.beside is None:
        which = "configured" if registered.beside is None else "registered"
        raise ConfigurationError("config.keys.log_beside", f"an ML-DSA-44 key is {which} alone: both or none")
    signer = Cosigner.of(registered.origin, _ml_dsa_seed(path), SUBTREE)
    if signer.key.vkey != registered.beside:
        raise ConfigurationError("config.keys.log_beside", "the manifest registers another key")
    return signer


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


def _ml_dsa_seed(path: Path) -> bytes:
    """The 32 bytes that an ML-DSA-44 key grows from (FIPS 204 6.1), out of PKCS#8 PEM."""
    try:
        private = load_pem_private_key(read_secret(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        private = None
    if not isinstance(private, MLDSA44PrivateKey):
        raise ConfigurationError("config.keys.log_beside", f"{path}: an ML-DSA-44 key in PEM is required")
    return private.private_bytes_raw()


def _ed25519_seed(role: str, path: Path) -> bytes:
    """An Ed25519 key, from the same PKCS#8 PEM as every other key."""
    try:
        private = load_pem_private_key(read_secret(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        private = None
    if not isinstance(private, Ed25519PrivateKey):
        raise ConfigurationError(f"config.keys.{role}", f"{path}: an Ed25519 key in PKCS#8 PEM is required")
    return private.private_bytes_raw()
