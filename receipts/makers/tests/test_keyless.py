"""Model signatures by identity, under a private Sigstore root: the one that exports of receipts make."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import model_signing
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from receipts.export.authority import Authority
from receipts.export.sigstore import export, trust_config
from receipts.makers.certificate import Certified, verify_certified
from receipts.makers.keyless import Keyless, read_root, verify_keyless
from receipts.makers.tests.pki import DIGEST, FILE, STATEMENT
from receipts.model_signature import verify_model
from receipts.tests.conftest import code_of
from schemas import envelope
from schemas.canonical import Json, sha256, write_json
from schemas.errors import ComityError
from schemas.keys import SigningKey

MAKER = SigningKey.generate()
IDENTITY, ISSUER = "https://lab.example/receipts", "https://lab.example/export"


@dataclass(frozen=True)
class Signed:
    """A signature, and who must have made it."""

    data: bytes
    trust: bytes
    authority: Authority

    def demanded(self, **changes: Any) -> Keyless:
        values = {"root": read_root(self.trust), "identity": IDENTITY, "issuer": ISSUER} | changes
        return Keyless(**values)


def made(authority: Authority, statement: Any = STATEMENT) -> bytes:
    """What an identity's signer leaves: our export wraps any statement."""
    signed = envelope.sign(envelope.STATEMENT, json.dumps(statement).encode(), MAKER)
    return export(signed, MAKER.public, authority, at=datetime.now(UTC)).bundle


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Signed:
    authority = Authority.open(tmp_path_factory.mktemp("root") / "a", "lab.example", datetime.now(UTC))
    return Signed(made(authority), write_json(trust_config(authority)), authority)


def test_the_demanded_identity_s_signature_holds(signed: Signed) -> None:
    found = verify_keyless(signed.data, signed.demanded())
    assert (found.digest, found.files) == (sha256(signed.data).hex(), frozenset({DIGEST}))
    assert found.signer == f"{IDENTITY} of {ISSUER}"


def test_model_signing_agrees(signed: Signed, tmp_path: Path) -> None:
    """Its own verifier accepts the same file for the same model, under the same root."""
    statement = json.loads(json.dumps(STATEMENT))
    statement["subject"][0]["name"] = "model.gguf"
    (tmp_path / "model.gguf").write_bytes(FILE)
    (tmp_path / "model.sig").write_bytes(made(signed.authority, statement))
    (tmp_path / "trust.json").write_bytes(signed.trust)
    verifying: Any = model_signing.verifying.Config
    theirs = verifying().use_sigstore_verifier(
        identity=IDENTITY, oidc_issuer=ISSUER, trust_config=tmp_path / "trust.json"
    )
    theirs.verify(tmp_path / "model.gguf", tmp_path / "model.sig")
    assert verify_keyless((tmp_path / "model.sig").read_bytes(), signed.demanded()).files == {DIGEST}


def test_a_trusted_root_alone_is_enough(signed: Signed) -> None:
    alone = read_root(write_json(json.loads(signed.trust)["trustedRoot"]))
    assert verify_keyless(signed.data, signed.demanded(root=alone)).files == {DIGEST}


@pytest.mark.parametrize(
    "changes", [{"identity": "https://lab.example/other"}, {"issuer": "https://accounts.example"}]
)
def test_nobody_else_s_signature_does(signed: Signed, changes: dict[str, str]) -> None:
    assert code_of(lambda: verify_keyless(signed.data, signed.demanded(**changes))) == "model.sigstore"


def test_another_root_vouches_for_nothing(signed: Signed, tmp_path: Path) -> None:
    other = Authority.open(tmp_path / "other", "lab.example", datetime.now(UTC))
    under = signed.demanded(root=read_root(write_json(trust_config(other))))
    assert code_of(lambda: verify_keyless(signed.data, under)) == "model.sigstore"


def test_a_file_by_identity_is_none_by_key_or_chain(signed: Signed) -> None:
    """Nor is one that brings two kinds of signer."""
    assert code_of(lambda: verify_model(signed.data, [MAKER.public])) == "model.bundle"
    chain = Certified(datetime.now(UTC), None, digests=frozenset({bytes(32)}))
    assert code_of(lambda: verify_certified(signed.data, chain)) == "model.bundle"
    both = json.loads(signed.data)
    both["verificationMaterial"]["publicKey"] = {"hint": ""}
    assert code_of(lambda: verify_keyless(json.dumps(both).encode(), signed.demanded())) == "model.bundle"


def edited(data: bytes, *path: str | int, to: Any) -> bytes:
    outer = json.loads(data)
    at: Any = outer
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = to
    return json.dumps(outer).encode()


MATERIAL = "verificationMaterial"
ENTRY: tuple[str | int, ...] = (MATERIAL, "tlogEntries", 0)
EDITS: dict[str, tuple[tuple[str | int, ...], Any]] = {
    "no entry in the log": ((MATERIAL, "tlogEntries"), []),
    "no time": ((MATERIAL, "timestampVerificationData", "rfc3161Timestamps"), []),
    "another tree": ((*ENTRY, "inclusionProof", "rootHash"), "A" * 43 + "="),
    "another body": ((*ENTRY, "canonicalizedBody"), "e30="),
    "another signature": (("dsseEnvelope", "signatures"), [{"sig": "AAAA"}]),
    "no certificate": ((MATERIAL, "certificate", "rawBytes"), "AAAA"),
}


@pytest.mark.parametrize(("path", "to"), EDITS.values(), ids=EDITS)
def test_every_part_is_needed(signed: Signed, path: tuple[str | int, ...], to: Any) -> None:
    data = edited(signed.data, *path, to=to)
    assert code_of(lambda: verify_keyless(data, signed.demanded())) == "model.sigstore"


LIES: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
    (lambda each: each["predicate"]["resources"][0].update(digest="1" * 64), "model.root"),
    (lambda each: each.update(predicateType="https://slsa.dev/provenance/v1"), "model.predicate"),
]


@pytest.mark.parametrize(("change", "code"), LIES)
def test_what_the_identity_signed_must_be_a_model(
    signed: Signed, change: Callable[[dict[str, Any]], Any], code: str
) -> None:
    statement = json.loads(json.dumps(STATEMENT))
    change(statement)
    data = made(signed.authority, statement)
    assert code_of(lambda: verify_keyless(data, signed.demanded())) == code


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b'{"mediaType":"x"}', b'{"mediaType":"a","mediaType":"b"}']
)
def test_what_is_no_root(data: bytes) -> None:
    with pytest.raises(ComityError):
        read_root(data)


def test_a_root_without_content_vouches_for_nothing(signed: Signed) -> None:
    names: dict[str, Json] = {"mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1"}
    empty = signed.demanded(root=read_root(write_json(names)))
    assert code_of(lambda: verify_keyless(signed.data, empty)) == "model.sigstore"


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 8191), st.binary(min_size=1, max_size=2))
def test_any_touch_is_refused_or_changes_nothing_that_was_signed(
    signed: Signed, at: int, junk: bytes
) -> None:
    cut = at % len(signed.data)
    data = signed.data[:cut] + junk + signed.data[cut + 1 :]
    try:
        found = verify_keyless(data, signed.demanded())
    except ComityError:
        return
    assert found.files == {DIGEST}
