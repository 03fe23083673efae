"""What a broker's settings change in its receipts and checkpoints: retention, and a second kind of key."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, mldsa

from broker.placing.placements import _retention
from broker.starting.ledger import _beside, _registered
from broker.tests.test_journey import journey
from receipts.cosignature import SUBTREE, Cosigner
from receipts.note import NoteSigner
from schemas.errors import ConfigurationError
from schemas.keys import SigningKey, write_secret
from schemas.papers.manifest import DomainManifest, LogKey, RoleKey, Roots

ORIGIN = "clinic.de/log"


def test_a_tenant_s_receipts_are_kept_as_long_as_its_longest_class() -> None:
    plain = journey()
    assert _retention(plain) is None
    tenant = replace(plain.accepted.tenant, retention=("ai-act-deployer", "de-medical"))
    kept = _retention(replace(plain, accepted=replace(plain.accepted, tenant=tenant)))
    assert kept is not None
    assert kept.class_ == "de-medical"


def manifest(*logs: LogKey) -> DomainManifest:
    root, now = SigningKey.generate(), int(time.time())
    key, end = SigningKey.generate().public, now + 60
    return DomainManifest(
        federation="care", domain="clinic.de", version=1, expires=now + 60,
        roots=Roots(threshold=1, keys=[root.public.jwk]),
        keys=[RoleKey(thumbprint=key.thumbprint, jwk=key.jwk, role="receipt", not_before=now, not_after=end)],
        logs=list(logs), platforms=[],
    )  # fmt: skip


def entry(seed: int, beside: str | None = None) -> LogKey:
    note = NoteSigner.of(ORIGIN, bytes([seed]) * 32)
    return LogKey(origin=ORIGIN, vkey=note.key.vkey, max_merge_delay_s=10, beside=beside)


def test_the_log_s_key_must_be_one_of_those_registered() -> None:
    """During a rotation a log has an old and a new one; with any other nothing is signed."""
    both = manifest(entry(1), entry(2))
    for seed in (1, 2):
        assert _registered(both, NoteSigner.of(ORIGIN, bytes([seed]) * 32)) == entry(seed)
    with pytest.raises(ConfigurationError, match=r"config\.keys\.log\b"):
        _registered(both, NoteSigner.of(ORIGIN, bytes([3]) * 32))


def saved(folder: Path, key: mldsa.MLDSA44PrivateKey | ed25519.Ed25519PrivateKey) -> Path:
    path = folder / "beside.pem"
    form = serialization.PrivateFormat.PKCS8
    write_secret(path, key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    return path


def test_an_ml_dsa_key_signs_beside_it_where_both_sides_say_so(tmp_path: Path) -> None:
    key = mldsa.MLDSA44PrivateKey.generate()
    path = saved(tmp_path, key)
    vkey = Cosigner.of(ORIGIN, key.private_bytes_raw(), SUBTREE).key.vkey
    signer = _beside(entry(1, vkey), path)
    assert signer is not None
    assert signer.key.vkey == vkey
    assert _beside(entry(1), None) is None
    other = Cosigner.of(ORIGIN, bytes(32), SUBTREE).key.vkey
    for registered, configured in ((entry(1), path), (entry(1, vkey), None), (entry(1, other), path)):
        with pytest.raises(ConfigurationError, match=r"config\.keys\.log_beside"):
            _beside(registered, configured)


def test_another_kind_of_key_does_not_pass_for_ml_dsa(tmp_path: Path) -> None:
    path = saved(tmp_path, ed25519.Ed25519PrivateKey.generate())
    vkey = Cosigner.of(ORIGIN, bytes(32), SUBTREE).key.vkey
    with pytest.raises(ConfigurationError, match="ML-DSA-44"):
        _beside(entry(1, vkey), path)
