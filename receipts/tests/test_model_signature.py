"""Signatures that the model-signing library makes, read by us: they hold, or every touch shows."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import model_signing
import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

from receipts import bundle as bundles
from receipts.makers.tests import pki
from receipts.makers.tests.pki import Holder
from receipts.model_signature import SignedModel, read_signer, verify_model
from receipts.statements.receipt import EXECUTION
from receipts.tests.conftest import claim_of, code_of, verdict
from receipts.tests.touching import without
from receipts.tests.world import MODEL, NOW, Federation, Run, capability
from receipts.verify import Report
from schemas import envelope
from schemas.canonical import sha256
from schemas.errors import ConfigurationError, Refused, Unreadable
from schemas.keys import SigningKey

KEY = SigningKey.generate()
FILE = b"weights"
DIGEST = sha256(FILE).hex()


def pem(key: SigningKey) -> bytes:
    return key.public.public.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def made(folder: Path, files: dict[str, bytes] | None = None) -> bytes:
    """The library signs a folder of files, or a single one."""
    key = folder / "maker.pem"
    KEY.save(key)
    model = folder / "model"
    if files is None:
        model.write_bytes(FILE)
    else:
        model.mkdir()
        for name, data in files.items():
            (model / name).write_bytes(data)
    signature = folder / "model.sig"
    signing: Any = model_signing.signing.Config
    signing().use_elliptic_key_signer(private_key=key).sign(model, signature)
    return signature.read_bytes()


def test_what_the_library_signs_holds(tmp_path: Path) -> None:
    data = made(tmp_path)
    signed = verify_model(data, [read_signer(pem(KEY))])
    assert signed == SignedModel(sha256(data).hex(), "model", KEY.thumbprint, frozenset({DIGEST}))
    assert signed.holds(DIGEST) is signed
    assert code_of(lambda: signed.holds("1" * 64)) == "model.file"


def test_every_file_of_a_model_counts(tmp_path: Path) -> None:
    data = made(tmp_path, {"a.gguf": FILE, "tokenizer.json": b"{}"})
    signed = verify_model(data, [KEY.public])
    assert signed.files == {DIGEST, sha256(b"{}").hex()}


def test_another_signer_is_nobody(tmp_path: Path) -> None:
    data, other = made(tmp_path), SigningKey.generate().public
    assert code_of(lambda: verify_model(data, [other])) == "envelope.signature_invalid"
    assert code_of(lambda: verify_model(data, [])) == "envelope.key_unknown"


def stated(data: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(base64.b64decode(json.loads(data)["dsseEnvelope"]["payload"]))
    return found


def resigned(data: bytes, change: Callable[[dict[str, Any]], Any]) -> bytes:
    """The same file with another statement, signed by the maker's own key."""
    statement, outer = stated(data), json.loads(data)
    change(statement)
    signed = envelope.sign(envelope.STATEMENT, json.dumps(statement).encode(), KEY)
    return json.dumps(outer | {"dsseEnvelope": json.loads(signed)}).encode()


def resource(statement: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = statement["predicate"]["resources"][0]
    return found


LIES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "a-file-more": (
        lambda each: each["predicate"]["resources"].append(
            {"name": "x", "algorithm": "sha256", "digest": "1" * 64}
        ),
        "model.root",
    ),
    "another-file": (lambda each: resource(each).update(digest="1" * 64), "model.root"),
    "no-file": (lambda each: each["predicate"].update(resources=[]), "model.serialization"),
    "another-hash": (lambda each: resource(each).update(algorithm="blake2b"), "model.file"),
    "no-digest": (lambda each: resource(each).update(digest="xyz"), "model.file"),
    "in-shards": (lambda each: each["predicate"].update(serialization={"method": "shards"}),
                  "model.serialization"),
    "another-predicate": (lambda each: each.update(predicateType="https://x.invalid/v1"), "model.predicate"),
    "another-type": (lambda each: each.update(_type="x"), "model.predicate"),
    "two-subjects": (lambda each: each.update(subject=each["subject"] * 2), "model.statement"),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_a_statement_that_is_none(tmp_path: Path, lie: str) -> None:
    change, code = LIES[lie]
    data = resigned(made(tmp_path), change)
    assert code_of(lambda: verify_model(data, [KEY.public])) == code


def test_signatures_by_other_makers_are_none_by_a_key(tmp_path: Path) -> None:
    data = json.loads(made(tmp_path))
    by_certificate = data | {"verificationMaterial": {"certificate": {"rawBytes": ""}}}
    assert code_of(lambda: verify_model(json.dumps(by_certificate).encode(), [KEY.public])) == "model.bundle"
    older = data | {"mediaType": "application/vnd.dev.sigstore.bundle+json;version=0.1"}
    assert code_of(lambda: verify_model(json.dumps(older).encode(), [KEY.public])) == "model.media_type"


@pytest.mark.parametrize(
    "data", [b"", b"no key", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"]
)
def test_what_is_no_signer_s_key(data: bytes) -> None:
    assert code_of(lambda: read_signer(data)) == "model.signer"


@given(st.binary(max_size=200))
def test_noise_is_refused(data: bytes) -> None:
    with suppress(Unreadable, Refused):
        verify_model(data, [KEY.public])


# What an auditor who holds the signature can prove of a run.


def claim(report: Report) -> tuple[str, str | None]:
    return verdict(report, "execution", "capability")


async def judged(
    federation: Federation,
    folder: Path,
    signature: bytes,
    signer: SigningKey | bytes,
    kept: Callable[[bytes], bytes] = bytes,
    **names: Any,
) -> Report:
    ran = capability().model_copy(update=names)
    run = Run(statement={"capability": ran}, execution={"capability": ran})
    data = await federation.play(folder, run)
    made_by = signer if isinstance(signer, bytes) else pem(signer)
    federation.files = {"model.sig": signature, "maker.pem": made_by, "own": b'requires = ["capability"]'}
    by = '{ roots = ["maker.pem"], name = "CN=maker", at = "2026-06-01T00:00:00Z" }'
    by = by if isinstance(signer, bytes) else '"maker.pem"'
    models = f'[{{ signature = "model.sig", signer = {by} }}]'
    return federation.verify(kept(data), NOW, models=models, profile='"own"')


def over(digest: str) -> bytes:
    """A signature over a model whose one file has this digest, in the library's form."""
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "m", "digest": {"sha256": sha256(bytes.fromhex(digest)).hex()}}],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {
            "serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": False},
            "resources": [{"name": ".", "algorithm": "sha256", "digest": digest}],
        },
    }
    signed = envelope.sign(envelope.STATEMENT, json.dumps(statement).encode(), KEY)
    outer = {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {"publicKey": {"hint": ""}, "tlogEntries": []},
        "dsseEnvelope": json.loads(signed),
    }
    return json.dumps(outer).encode()


async def test_a_run_of_a_signed_model_is_proved(federation: Federation, tmp_path: Path) -> None:
    """Evidence → node → model file → its maker: `capability` is proved, and a profile may ask for it."""
    good, other = over(MODEL), over("1" * 64)
    named: dict[str, Any] = {"model_signing_digest": sha256(good).hex()}
    report = await judged(federation, tmp_path, good, KEY, **named)
    assert (claim(report), report.exit_code) == (("proved", None), 0)
    unnamed = tmp_path / "unnamed"
    unnamed.mkdir()
    report = await judged(federation, unnamed, good, KEY)
    assert (claim(report), report.exit_code) == (("asserted-by(node)", None), 3)
    false = tmp_path / "false"
    false.mkdir()
    named = {"model_signing_digest": sha256(other).hex()}
    assert claim(await judged(federation, false, other, KEY, **named)) == ("failed", "model.file")


async def test_what_was_asked_for_does_not_stand_for_what_ran(federation: Federation, tmp_path: Path) -> None:
    """The Placement alone: its Execution is withheld, and with it the model."""

    def without_execution(data: bytes) -> bytes:
        return bundles.write(without(bundles.read(data), EXECUTION))

    report = await judged(federation, tmp_path, over(MODEL), KEY, without_execution)
    assert (report.exit_code, report.missing) == (3, ("capability",))


async def test_a_trust_file_with_a_signature_that_does_not_hold_is_none(
    federation: Federation, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=r"trust_file\.models"):
        await judged(federation, tmp_path, over(MODEL), SigningKey.generate())


async def test_a_run_of_a_model_signed_by_certificate_is_proved(
    federation: Federation, tmp_path: Path
) -> None:
    root = Holder("root")
    good = pki.made(pki.signer(root), digest=MODEL)
    named: dict[str, Any] = {"model_signing_digest": sha256(good).hex()}
    report = await judged(federation, tmp_path, good, root.pem, **named)
    assert claim(report) == ("proved", None)
    text = claim_of(report, "execution", "capability").text
    assert "certificate CN=maker under root" in text
    away = tmp_path / "away"
    away.mkdir()
    with pytest.raises(ConfigurationError, match=r"trust_file\.models.*no path to a pinned root"):
        await judged(federation, away, good, Holder("root").pem, **named)


@pytest.mark.parametrize(
    ("models", "says"),
    [
        ('[{ signature = "model.sig" }]', "signer is not set"),
        ('[{ signer = "maker.pem" }]', "signature is not set"),
        ('[{ signature = "model.sig", signer = { roots = ["maker.pem"] } }]', "name is not set"),
        ('[{ signature = "model.sig", signer = "maker.pem", more = 1 }]', "more is not a key"),
        ('["model.sig"]', "wrong form"),
        ('"model.sig"', "no list"),
    ],
)
def test_what_an_auditor_leaves_unsaid_is_an_error(federation: Federation, models: str, says: str) -> None:
    federation.files = {"model.sig": over(MODEL), "maker.pem": pem(KEY)}
    with pytest.raises(ConfigurationError, match=says):
        federation.trust(models=models)
