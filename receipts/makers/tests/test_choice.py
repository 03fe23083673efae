"""What a configuration says of a model's maker: complete, of one form, or refused with what to write."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from receipts.makers.choice import Judge, judge
from receipts.makers.tests.pki import DIGEST, Holder, made, signer
from receipts.makers.tests.test_keyless import IDENTITY, ISSUER, Signed, signed
from receipts.tests.conftest import code_of
from schemas.errors import ConfigurationError
from schemas.toml import Table

__all__ = ["signed"]

ROOT, OTHER = Holder("root"), Holder("other")
MAKER = signer(ROOT)
NAME = 'name = "maker@lab.example"'
AT = 'at = "2026-06-01T00:00:00Z"'
FILES = {
    "root.pem": ROOT.pem,
    "other.pem": OTHER.pem,
    "maker.crt": MAKER.pem,
    "maker.pem": MAKER.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    "empty": b"",
}


def reading(files: dict[str, bytes] | None = None) -> Callable[[str], bytes]:
    return (FILES | (files or {})).__getitem__


def chosen(text: str, files: dict[str, bytes] | None = None) -> Judge:
    return judge(Table("t.toml", "models", tomllib.loads(f"signer = {text}")), "signer", reading(files))


ROOTS = (
    '["root.pem"]',
    '["other.pem", "root.pem"]',
    f'["sha256:{ROOT.digest}"]',
    f'["other.pem", "sha256:{ROOT.digest}"]',
)


@pytest.mark.parametrize("roots", ROOTS, ids=["file", "one of two files", "digest", "file or digest"])
@pytest.mark.parametrize("name", [NAME, 'name = "CN=maker"', 'name = "any"'])
def test_roots_by_file_and_by_digest(roots: str, name: str) -> None:
    judged = chosen(f"{{ roots = {roots}, {name}, {AT} }}")
    assert judged(made(MAKER, ROOT)).files == {DIGEST}
    third = Holder("third")
    assert code_of(lambda: judged(made(signer(third), third))) == "model.chain"


def test_any_maker_or_the_one_that_is_named() -> None:
    another = made(signer(ROOT, more=()), ROOT)  # no alternative name
    assert chosen(f'{{ roots = ["root.pem"], name = "any", {AT} }}')(another).files == {DIGEST}
    named = chosen(f'{{ roots = ["root.pem"], {NAME}, {AT} }}')
    assert code_of(lambda: named(another)) == "model.maker"


def test_an_identity_under_a_sigstore_root(signed: Signed) -> None:
    form = f'{{ sigstore = "trust.json", identity = "{IDENTITY}", issuer = "{ISSUER}" }}'
    judged = chosen(form, {"trust.json": signed.trust})
    assert judged(signed.data).files == {DIGEST}
    assert code_of(lambda: judged(made(MAKER, ROOT))) == "model.bundle"


def test_the_forms_do_not_read_each_other_s_files(signed: Signed) -> None:
    by_key, by_root = chosen('"maker.pem"'), chosen(f'{{ roots = ["root.pem"], {NAME}, {AT} }}')
    for data, judges in ((made(MAKER, ROOT), (by_key,)), (signed.data, (by_key, by_root))):
        for each in judges:
            assert code_of(lambda each=each, data=data: each(data)) == "model.bundle"  # type: ignore[misc]


WRONG: dict[str, str] = {
    f'{{ roots = ["root.pem"], {NAME} }}': r"at is not set; write at = ",
    f'{{ roots = ["root.pem"], {AT} }}': r'name is not set; write name = .* or name = "any"',
    f"{{ {NAME}, {AT} }}": "neither or both",
    f'{{ roots = ["root.pem"], sigstore = "t", {NAME}, {AT} }}': "neither or both",
    f"{{ roots = [], {NAME}, {AT} }}": "roots is no list of roots",
    f'{{ roots = "root.pem", {NAME}, {AT} }}': "roots is no list of roots",
    f"{{ roots = [1], {NAME}, {AT} }}": "roots is no list of roots",
    f'{{ roots = ["sha256:00"], {NAME}, {AT} }}': "no SHA-256",
    f'{{ roots = ["sha256:{"A" * 64}"], {NAME}, {AT} }}': "no SHA-256",
    f'{{ roots = ["root.pem"], {NAME}, {AT}, identity = "x" }}': "identity is not a key here",
    f'{{ roots = ["root.pem"], {NAME}, at = "now" }}': "at is not what is expected",
    f'{{ roots = ["root.pem"], {NAME}, at = "2026-06-31T00:00:00Z" }}': "at is no moment",
    f'{{ roots = ["root.pem"], name = "", {AT} }}': "name is not what is expected",
    '{ sigstore = "trust.json", identity = "x" }': "issuer is not set",
    '{ sigstore = "trust.json", issuer = "x" }': "identity is not set",
    '{ sigstore = "trust.json", identity = "x", issuer = "y", name = "z" }': "name is not a key here",
    "7": "has the wrong form",
    '""': "has the wrong form",
    "[]": "has the wrong form",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_unset_or_mixed_is_an_error(signed: Signed, text: str) -> None:
    with pytest.raises(ConfigurationError, match=WRONG[text]):
        chosen(text, {"trust.json": signed.trust})


def test_a_signer_must_be_named() -> None:
    table: Any = Table("t.toml", "models", {})
    with pytest.raises(ConfigurationError, match="signer is not set; write signer = "):
        judge(table, "signer", reading())


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (f'{{ roots = ["maker.crt"], {NAME}, {AT} }}', "model.root_ca"),
        (f'{{ roots = ["empty"], {NAME}, {AT} }}', "model.roots"),
        (f'{{ roots = ["maker.pem"], {NAME}, {AT} }}', "model.roots"),
        ('"root.pem"', "model.signer"),
        ('{ sigstore = "root.pem", identity = "x", issuer = "y" }', "json.syntax"),
    ],
)
def test_a_file_that_is_not_what_it_should_be(text: str, code: str) -> None:
    assert code_of(lambda: chosen(text)) == code
