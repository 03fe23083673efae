"""A whole request, verified offline: every claim, and every lie with its reason."""

from __future__ import annotations

from pathlib import Path

from receipts.tests.world import Federation, Run
from receipts.verify import Report


async def play(federation: Federation, folder: Path, run: Run | None = None) -> bytes:
    clinic, cloud = await federation.clinic.open(folder), await federation.cloud.open(folder)
    try:
        return await (run or Run()).play(clinic, cloud)
    finally:
        await clinic.close()
        await cloud.close()


def verdicts(report: Report, kind: str) -> dict[str, str]:
    (found,) = [receipt for receipt in report.receipts if receipt.kind == kind]
    return {claim.name: claim.label for claim in found.claims}


async def test_a_good_request_holds(federation: Federation, tmp_path: Path) -> None:
    report = federation.verify(await play(federation, tmp_path))
    for receipt in report.receipts:
        for claim in receipt.claims:
            print(receipt.kind, claim.name, claim.label, claim.text, claim.code)
    assert report.exit_code == 0
