"""A receipt by a registered key is still no receipt of another federation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from receipts.log import TransparencyLog
from receipts.tests.conftest import verdict
from receipts.tests.world import NOW, Federation, Run


async def test_what_a_member_signs_for_another_federation_counts_there(
    federation: Federation, tmp_path: Path
) -> None:
    """One domain, one receipt key, two federations: nothing crosses over."""
    clinic, cloud = federation.clinic, await federation.cloud.open(tmp_path)
    elsewhere = await TransparencyLog.open(
        tmp_path / "elsewhere.db",
        identity=replace(clinic.identity, federation="other"),
        keys=clinic.keys,
        clock=lambda: NOW,
    )
    report = federation.verify(await Run().play(elsewhere, cloud))
    await elsewhere.close()
    await cloud.close()
    assert verdict(report, "placement", "signature") == ("proved", None)
    assert verdict(report, "placement", "issuer-key") == ("failed", "receipt.federation")
    assert report.exit_code == 1
