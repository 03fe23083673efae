"""An export is of the domain's own receipts, under the domain's own keys, or there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from receipts import bundle as bundles
from receipts.bundle import Bundle
from receipts.export import files
from receipts.export.authority import Authority
from receipts.export.cose import Signers
from receipts.log import Draft
from receipts.tests.conftest import code_of, federation
from receipts.tests.touching import resigned
from receipts.tests.world import CLINIC, CLOUD, NOW, Federation, placement
from receipts.verify.pinned import PinnedTrust, establish

__all__ = ["federation"]


@pytest.fixture
async def placed(federation: Federation, tmp_path: Path) -> Bundle:
    """One receipt of clinic.de."""
    log = await federation.clinic.open(tmp_path)
    (issued,) = await log.issue([Draft(placement())])
    await log.checkpoint()
    data = await log.bundle(issued.receipt_id)
    await log.close()
    return bundles.read(data)


@pytest.fixture
def held(federation: Federation, placed: Bundle) -> PinnedTrust:
    return establish(placed, federation.trust())


def test_another_s_receipts_are_no_export(
    placed: Bundle, held: PinnedTrust, federation: Federation, tmp_path: Path
) -> None:
    authority, folder = Authority.open(tmp_path / "a", CLOUD, NOW), tmp_path / "out"
    keys = federation.cloud.keys
    signers = Signers(keys.receipt, keys.note)
    assert code_of(lambda: files.write(placed, CLOUD, held, authority, folder, at=NOW)) == "export.nothing"
    assert code_of(lambda: files.write_cose(placed, CLOUD, held, signers, folder)) == "export.nothing"
    assert list(folder.iterdir()) == []


def test_another_s_key_signs_none_of_ours(
    placed: Bundle, held: PinnedTrust, federation: Federation, tmp_path: Path
) -> None:
    authority, folder = Authority.open(tmp_path / "a", CLINIC, NOW), tmp_path / "out"
    forged = resigned(placed, "placement", federation.cloud.keys.receipt)
    signers = Signers(federation.cloud.keys.receipt, federation.clinic.keys.note)
    refused = code_of(lambda: files.write(forged, CLINIC, held, authority, folder, at=NOW))
    assert refused == "envelope.signature_invalid"
    assert code_of(lambda: files.write_cose(forged, CLINIC, held, signers, folder)) == "export.receipt_key"
    assert list(folder.iterdir()) == []
