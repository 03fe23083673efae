"""`--bundle`: one signed folder serves SNP, TDX and GPUs, and nobody touches it unseen."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path

import pytest

from attestation.collateral.bundle import INDEX, load_bundle, write_bundle
from attestation.commands import main
from attestation.expected import Expectations
from attestation.gpu.tests import test_composite as composite
from attestation.gpu.tests.judging import GOOD, collateral
from attestation.testing.intel import IntelForge
from attestation.testing.nvidia import NOW
from schemas.errors import ConfigurationError, Refused
from schemas.keys import SigningKey

AT = "2026-03-01T12:00:00Z"


@lru_cache
def key() -> SigningKey:
    return SigningKey.generate()


def signer_toml(signing: SigningKey, domain: str = "cloud.fr") -> str:
    spki = base64.b64encode(signing.public.spki).decode()
    return f'[[collateral.signer]]\ndomain = "{domain}"\nkey = "{spki}"\n'


def documents() -> list[bytes]:
    """What an SNP report, a TDX quote and a GPU's report need."""
    return [*composite.chip().endorsements, IntelForge().collateral(), *collateral(GOOD)]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    write_bundle(tmp_path / "bundle", documents(), issuer="cloud.fr", key=key(), at=datetime.now(UTC))
    return tmp_path / "bundle"


def run(tmp_path: Path, tee: str, evidence: bytes, bundle: Path, expected: str | None = None) -> int:
    (tmp_path / "evidence").write_bytes(evidence)
    text = composite.text() + signer_toml(key()) if expected is None else expected
    (tmp_path / "expected.toml").write_text(text)
    arguments = [
        "verify",
        "--tee",
        tee,
        str(tmp_path / "evidence"),
        "--bundle",
        str(bundle),
        "--at",
        AT,
        "--json",
    ]
    return main([*arguments, "--expect", str(tmp_path / "expected.toml")])


def test_one_bundle_serves_every_kind_of_evidence(
    tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    snp = composite.chip().quote(bytes(64)).report
    for tee, evidence in (("snp", snp), ("tdx", IntelForge().quote()), ("nvidia", GOOD.report())):
        run(tmp_path, tee, evidence, bundle)
        said = json.loads(capsys.readouterr().out)
        lacking = [each for each in said["checks"] if "missing" in (each.get("code") or "")]
        assert (tee, lacking) == (tee, [])
    # The GPU's mode is the guest's to say; everything that a bundle can give was there.
    assert said["reason"] == "gpu.cc_mode_unproven"
    assert run(tmp_path, "snp", snp, bundle) == 0


Touch = Callable[[Path], object]


def _first(bundle: Path) -> Path:
    return min(file for file in bundle.iterdir() if file.name != INDEX)


def _swapped(bundle: Path) -> None:
    """Two pieces in each other's place: all digests are there, none where it belongs."""
    one, other = sorted(file for file in bundle.iterdir() if file.name != INDEX)[:2]
    data = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(data)


TOUCHED: dict[str, tuple[Touch, str]] = {
    "altered": (lambda bundle: _first(bundle).write_bytes(b"another"), "collateral.piece_altered"),
    "swapped": (_swapped, "collateral.piece_altered"),
    "missing": (lambda bundle: _first(bundle).unlink(), "collateral.piece_missing"),
    "surplus": (lambda bundle: (bundle / ("0" * 64)).write_bytes(b"more"), "collateral.piece_surplus"),
    "a folder": (lambda bundle: (bundle / "more").mkdir(), "collateral.piece_surplus"),
    "another signer": (
        lambda bundle: write_bundle(
            bundle, documents(), issuer="cloud.fr", key=SigningKey.generate(), at=datetime.now(UTC)
        ),
        "envelope.signature_invalid",
    ),
    "a stranger": (
        lambda bundle: write_bundle(bundle, documents(), issuer="hyper.us", key=key(), at=datetime.now(UTC)),
        "collateral.signer",
    ),
    "of tomorrow": (
        lambda bundle: write_bundle(
            bundle, documents(), issuer="cloud.fr", key=key(), at=datetime.now(UTC) + timedelta(days=1)
        ),
        "collateral.future",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", TOUCHED)
def test_a_bundle_that_does_not_hold_is_one_clear_refusal(
    tmp_path: Path, bundle: Path, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    touch, code = TOUCHED[what]
    touch(bundle)
    assert run(tmp_path, "nvidia", GOOD.report(), bundle) == 1
    said = json.loads(capsys.readouterr().out)
    assert (said["verdict"], said["reason"]) == (None, code)


def test_whose_bundles_count_must_be_stated(
    tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "nvidia", GOOD.report(), bundle, composite.text()) == 2
    assert "[[collateral.signer]]" in json.loads(capsys.readouterr().out)["error"]
    (bundle / INDEX).unlink()
    assert run(tmp_path, "nvidia", GOOD.report(), bundle) == 2
    assert "fetch --bundle" in json.loads(capsys.readouterr().out)["error"]


@pytest.mark.parametrize("spoilt", ['key = "AAAA"', 'key = "?"', 'domain = "cloud.fr"', 'key = ""\nmore = 1'])
def test_a_signer_is_a_domain_with_a_key(spoilt: str) -> None:
    text = f'[[collateral.signer]]\ndomain = "cloud.fr"\n{spoilt}\n'
    with pytest.raises(ConfigurationError):
        Expectations.parse(text.encode())


def test_a_new_bundle_leaves_nothing_of_the_old_one(bundle: Path) -> None:
    before = {file.name for file in bundle.iterdir()}
    (bundle / "half.new").write_bytes(b"what a crash left")
    now = datetime.now(UTC)
    files = write_bundle(bundle, [b"a new one"], issuer="cloud.fr", key=key(), at=now)
    assert {file.name for file in bundle.iterdir()} == {file.name for file in files}
    assert len(files) == 2 < len(before)
    expectations = Expectations.parse(signer_toml(key()).encode())
    index, pieces = load_bundle(bundle, expectations.signers_of, now)
    assert (pieces, index.made) == ((b"a new one",), int(now.timestamp()))


def test_documents_that_make_no_bundle_replace_none(bundle: Path) -> None:
    before = {file: file.read_bytes() for file in bundle.iterdir()}
    with pytest.raises(Refused, match=r"collateral\.piece_count"):
        write_bundle(bundle, [], issuer="cloud.fr", key=key(), at=NOW)
    assert {file: file.read_bytes() for file in bundle.iterdir()} == before
