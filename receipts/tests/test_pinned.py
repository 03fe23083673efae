"""Trust: what the auditor pins decides, whatever the bundle brings."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from receipts import bundle as bundles
from receipts.commands import render
from receipts.statements.fields import ManifestRef, Times
from receipts.tests.conftest import verdict
from receipts.tests.world import CLINIC, CLOUD, END, NOW, START, Domain, Federation, Run
from receipts.verify import Report
from schemas.keys import SigningKey
from schemas.papers.manifest import RevokedKey, sign_manifest
from schemas.primitives import format_time


def test_another_charter_is_refused(federation: Federation, good: bytes) -> None:
    other = Federation.found()
    data = bundles.read(good)
    swapped = replace(data, charter=other.charter, manifests=(other.clinic.signed_manifest,))
    report = federation.verify(bundles.write(swapped))
    assert verdict(report, "placement", "issuer-key") == ("failed", "charter.pin")
    assert {claim.verdict for claim in report.claims} == {"failed", "not-checked"}


def test_pinned_roots_serve_as_well(federation: Federation, good: bytes) -> None:
    data = good
    report = federation.verify(data, charter=None, roots=roots_toml(federation.clinic, federation.cloud))
    assert report.exit_code == 0
    assert versions(report) == {"clinic.de": 1, CLOUD: 1}
    assert report.as_json()["charter"] is None
    partly = federation.verify(data, charter=None, roots=roots_toml(federation.clinic))
    assert verdict(partly, "execution", "signature") == ("failed", "envelope.signature_invalid")
    stranger = federation.verify(data, charter=None, roots=roots_toml(Domain.make("clinic.de")))
    assert verdict(stranger, "placement", "issuer-key") == ("not-checked", "verify.manifest_missing")


def roots_toml(*domains: Domain) -> str:
    entries = []
    for domain in domains:
        jwk = domain.root.public.jwk
        entries.append(
            f'"{domain.name}" = {{threshold = 1, keys = [{{kty = "EC", crv = "P-256", '
            f'x = "{jwk.x}", y = "{jwk.y}"}}]}}'
        )
    return "{" + ", ".join(entries) + "}"


def test_of_two_manifests_the_newer_counts(federation: Federation, good: bytes) -> None:
    """Under pinned roots an older manifest never replaces a newer one."""
    bundle, clinic = bundles.read(good), federation.clinic
    stranger = SigningKey.generate()
    keys = [
        key.model_copy(update={"jwk": stranger.public.jwk, "thumbprint": stranger.thumbprint})
        if key.role == "receipt"
        else key
        for key in clinic.manifest.keys
    ]
    newer = sign_manifest(clinic.manifest.model_copy(update={"version": 2, "keys": keys}), clinic.root)
    roots = roots_toml(federation.clinic, federation.cloud)
    for manifests in ((*bundle.manifests, newer), (newer, *bundle.manifests)):
        both = bundles.write(replace(bundle, manifests=manifests))
        report = federation.verify(both, charter=None, roots=roots)
        assert versions(report)["clinic.de"] == 2
        assert verdict(report, "placement", "signature") == ("failed", "envelope.signature_invalid")


@pytest.mark.parametrize("first", [True, False])
def test_who_registers_another_s_key_takes_nothing_from_its_owner(
    federation: Federation, good: bytes, first: bool
) -> None:
    bundle, cloud = bundles.read(good), federation.cloud
    stolen = next(key for key in federation.clinic.manifest.keys if key.role == "receipt")
    greedy = cloud.manifest.model_copy(update={"version": 2, "keys": [*cloud.manifest.keys, stolen]})
    signed = sign_manifest(greedy, cloud.root)
    manifests = (signed, *bundle.manifests) if first else (*bundle.manifests, signed)
    roots = roots_toml(*((cloud, federation.clinic) if first else (federation.clinic, cloud)))
    report = federation.verify(bundles.write(replace(bundle, manifests=manifests)), charter=None, roots=roots)
    assert verdict(report, "placement", "issuer-key") == ("proved", None)
    assert report.exit_code == 0


async def test_a_manifest_older_than_a_receipt_names_proves_no_key(tmp_path: Path) -> None:
    """As where the one that revoked the key is withheld: what was in force is not here."""
    federation = Federation.found()
    clinic, older = federation.clinic, federation.clinic.signed_manifest
    federation.clinic = replace(clinic, version=2)
    federation.__dict__.pop("charter", None)
    federation.publish()
    bundle = bundles.read(await federation.play(tmp_path))
    manifests = (older, federation.cloud.signed_manifest)
    roots = roots_toml(federation.clinic, federation.cloud)
    withheld = bundles.write(replace(bundle, manifests=manifests))
    report = federation.verify(withheld, charter=None, roots=roots)
    assert verdict(report, "placement", "issuer-key") == ("not-checked", "verify.manifest_old")
    assert report.exit_code == 3
    assert federation.verify(bundles.write(bundle), charter=None, roots=roots).exit_code == 0


async def test_a_revoked_key_needs_more_than_its_owner_s_clock(tmp_path: Path) -> None:
    federation = Federation.found()
    revoked = RevokedKey(
        thumbprint=federation.clinic.keys.receipt.thumbprint, reason="stolen",
        compromised_since=int(NOW.timestamp()) + 60,
    )  # fmt: skip
    clinic = federation.clinic
    federation.clinic = Domain(clinic.name, clinic.root, clinic.keys, revoked=(revoked,))
    federation.__dict__.pop("charter")
    federation.publish()
    report = federation.verify(await federation.play(tmp_path))
    assert verdict(report, "placement", "issuer-key") == ("failed", "verify.key_revoked")


def versions(report: Report) -> dict[str, int]:
    return {each.domain: each.version for each in report.manifests}


def test_a_report_says_how_old_its_trust_is(federation: Federation, good: bytes) -> None:
    report = federation.verify(good, at=NOW + timedelta(days=30))
    said = report.as_json()
    assert said["charter"] == {
        "issued": "2026-05-31T12:00:00.000Z", "ageDays": 31, "expires": "2027-06-01T12:00:00.000Z",
    }  # fmt: skip
    until = "2027-06-01T12:00:00.000Z"
    assert said["manifests"] == [{"domain": name, "version": 1, "expires": until} for name in (CLINIC, CLOUD)]
    out = io.StringIO()
    render.report(report, out)
    for text in ("charter of 2026-05-31, 31 days old until 2027-06-01", "clinic.de v1 until 2027-06-01"):
        assert text in out.getvalue()
        assert text in render.page(report)
    assert federation.verify(good).papers[0] == "charter of 2026-05-31, 1 day old until 2027-06-01"


@pytest.mark.parametrize(
    ("at", "code"), [(NOW + timedelta(days=400), "verify.stale"), (NOW + timedelta(days=1), None)]
)
def test_stale_trust_decides_nothing(
    federation: Federation, good: bytes, at: datetime, code: str | None
) -> None:
    report = federation.verify(good, at=at)
    assert verdict(report, "placement", "issuer-key")[1] == code
    assert report.exit_code == (3 if code else 0)


@pytest.mark.parametrize(
    ("issued", "code"),
    [(START - 1, "verify.key_time"), (START, None), (END - 1, None), (END, "verify.key_time")],
)
async def test_a_receipt_is_issued_in_its_key_s_time(
    federation: Federation, tmp_path: Path, issued: int, code: str | None
) -> None:
    times = Times(issued=format_time(datetime.fromtimestamp(issued, UTC)))
    report = federation.verify(await federation.play(tmp_path, Run(placement={"times": times})))
    assert verdict(report, "placement", "issuer-key") == ("failed" if code else "proved", code)


async def test_two_manifests_of_one_version_are_a_fork(federation: Federation, tmp_path: Path) -> None:
    async with federation.opened(tmp_path) as (clinic, cloud):
        clinic.update_manifest(ManifestRef(version=1, digest="0" * 64), federation.clinic.documents)
        report = federation.verify(await Run().play(clinic, cloud))
    assert verdict(report, "placement", "issuer-key") == ("failed", "verify.manifest_fork")


@pytest.mark.parametrize("change", [{"domain": CLOUD}, {"federation": "other"}])
def test_roots_speak_for_their_own_domain_in_their_federation(
    federation: Federation, good: bytes, change: dict[str, str]
) -> None:
    bundle, clinic = bundles.read(good), federation.clinic
    other = sign_manifest(clinic.manifest.model_copy(update={"version": 9, **change}), clinic.root)
    roots = roots_toml(federation.clinic, federation.cloud)
    for manifests in ((*bundle.manifests, other), (other, *bundle.manifests)):
        both = bundles.write(replace(bundle, manifests=manifests))
        report = federation.verify(both, charter=None, roots=roots)
        assert versions(report) == {"clinic.de": 1, CLOUD: 1}
        assert report.exit_code == 0


def test_a_receipt_is_for_its_audience(federation: Federation, good: bytes) -> None:
    data = good
    assert federation.verify(data, audience='"cloud.fr"').exit_code == 0
    report = federation.verify(data, audience='"hyper.us"')
    assert verdict(report, "placement", "issuer-key") == ("failed", "receipt.audience")


def test_another_federation_s_receipts(federation: Federation, good: bytes) -> None:
    data = good
    report = federation.verify(data, federation='"other"')
    assert verdict(report, "placement", "issuer-key") == ("failed", "verify.federation")
