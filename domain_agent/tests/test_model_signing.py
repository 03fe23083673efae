"""A capability with a model signature is offered when that signature holds for its model, or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import model_signing
import pytest
from cryptography.hazmat.primitives import serialization

from domain_agent.tests.founding import Founded
from domain_agent.tests.test_config import CAPABILITIES, agent_text, load_agent, seed
from receipts.makers.tests.pki import Holder, by_the_library, signer
from schemas.canonical import sha256
from schemas.errors import ConfigurationError
from schemas.keys import SigningKey

__all__ = ["seed"]

MODEL = b"weights"
MAKER, STRANGER = SigningKey.generate(), SigningKey.generate()


def pem(key: SigningKey) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public.public.public_bytes(serialization.Encoding.PEM, form)


@pytest.fixture
def signed(tmp_path: Path) -> Path:
    """A folder with a model, its signature by the library, and its maker's public key."""
    MAKER.save(tmp_path / "maker.key")
    (tmp_path / "model.gguf").write_bytes(MODEL)
    (tmp_path / "maker.pem").write_bytes(pem(MAKER))
    signing: Any = model_signing.signing.Config
    signing().use_elliptic_key_signer(private_key=tmp_path / "maker.key").sign(
        tmp_path / "model.gguf", tmp_path / "model.sig"
    )
    return tmp_path


NAMED = 'model_signature = "model.sig"\nmodel_signer = "maker.pem"\n'


def capabilities(more: str = NAMED, digest: str = sha256(MODEL).hex()) -> str:
    return CAPABILITIES.replace("0" * 64, digest).replace("rates =", f"{more}rates =")


def test_a_signed_model_is_offered_with_its_signature_s_digest(
    founded: Founded, seed: Path, signed: Path
) -> None:
    entry = load_agent(signed, agent_text(founded, seed, capabilities=capabilities())).catalogue.entries[0]
    assert entry.model_signing == sha256((signed / "model.sig").read_bytes()).hex()
    plain = load_agent(signed, agent_text(founded, seed, capabilities=capabilities("")))
    assert plain.catalogue.entries[0].model_signing is None


@pytest.mark.parametrize(
    ("touch", "says"),
    [
        (("maker.pem", pem(STRANGER)), "does not hold: no registered key made this signature"),
        (("maker.pem", b"no key"), "does not hold: not a public key"),
        (("model.sig", b"{}"), "does not hold: not a model signature"),
        (("model.sig", None), "cannot be read"),
        (("maker.pem", None), "cannot be read"),
    ],
)
def test_one_that_does_not_hold_stops_the_agent(
    founded: Founded, seed: Path, signed: Path, touch: tuple[str, bytes | None], says: str
) -> None:
    name, data = touch
    (signed / name).unlink()
    if data is not None:
        (signed / name).write_bytes(data)
    with pytest.raises(ConfigurationError, match=f"model_signature {says}"):
        load_agent(signed, agent_text(founded, seed, capabilities=capabilities()))


def test_a_signature_over_another_model_stops_the_agent(founded: Founded, seed: Path, signed: Path) -> None:
    with pytest.raises(ConfigurationError, match="was signed without"):
        load_agent(signed, agent_text(founded, seed, capabilities=capabilities(digest="1" * 64)))


@pytest.mark.parametrize("line", NAMED.splitlines(keepends=True))
def test_a_signature_and_its_signer_come_together(
    founded: Founded, seed: Path, signed: Path, line: str
) -> None:
    with pytest.raises(ConfigurationError, match=r"is not set; write model_sign"):
        load_agent(signed, agent_text(founded, seed, capabilities=capabilities(line)))


CERTIFIED = (
    'model_signature = "model.sig"\n'
    'model_signer = { roots = ["root.crt"], name = "maker@lab.example", at = "2026-06-01T00:00:00Z" }\n'
)


@pytest.fixture
def certified(tmp_path: Path) -> Path:
    """A folder with a model, its signature by certificate as the library makes it, and the root."""
    root = Holder("root")
    (tmp_path / "root.crt").write_bytes(root.pem)
    by_the_library(tmp_path, signer(root), root)
    return tmp_path


def test_a_model_signed_by_certificate_is_offered(founded: Founded, seed: Path, certified: Path) -> None:
    text = agent_text(founded, seed, capabilities=capabilities(CERTIFIED))
    entry = load_agent(certified, text).catalogue.entries[0]
    assert entry.model_signing == sha256((certified / "model.sig").read_bytes()).hex()


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("2026-06-01", "2036-06-01", "does not hold: no path to a pinned root"),
        ("maker@lab.example", "other@lab.example", "does not hold: signed by"),
        ('"root.crt"', '"gone.crt"', "cannot be read"),
        ('{ roots = ["root.crt"], ', "{ ", "names neither or both of roots and sigstore"),
        (', name = "maker@lab.example"', "", "name is not set"),
        (', at = "2026-06-01T00:00:00Z"', "", "at is not set"),
    ],
)
def test_a_chain_that_does_not_hold_or_is_not_demanded_stops_the_agent(
    founded: Founded, seed: Path, certified: Path, old: str, new: str, says: str
) -> None:
    text = capabilities(CERTIFIED.replace(old, new))
    with pytest.raises(ConfigurationError, match=says):
        load_agent(certified, agent_text(founded, seed, capabilities=text))
