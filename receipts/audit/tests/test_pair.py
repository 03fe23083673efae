"""Two logs against each other: what one side has and the other hides, each with a proof for a court."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from receipts import bundle as bundles
from receipts.audit.tests.conftest import Auditor, codes
from receipts.log import Draft, Keep
from receipts.statements.fields import Commitment, Link, SeenCheckpoint
from receipts.tests.world import CLINIC, CLOUD, NOW, Run, acknowledgement, digest, execution, placement, usage
from receipts.verify.report import Report


async def test_two_logs_that_agree(auditor: Auditor) -> None:
    await auditor.play(Run(), Run(), acknowledged=True)
    code, report = auditor.pair()
    assert (code, report["findings"]) == (0, [])
    assert report["counts"][CLINIC] == {"receipts": 4, "copies": 2}


def shown(auditor: Auditor, report: dict[str, Any], folder: Path) -> Report:
    """What the bundle behind the first finding proves, to one who holds the charter alone."""
    data = (folder / report["findings"][0]["proof"]).read_bytes()
    return auditor.federation.verify(data, NOW, profile='"minimal"')


async def test_a_request_that_was_placed_and_never_executed(auditor: Auditor) -> None:
    """clinic.de logged a Placement; cloud.fr's log knows nothing of it. Until it is due, that is no fault."""
    clinic = await auditor.federation.clinic.open(auditor.folder)
    await clinic.issue([Draft(placement())])
    await clinic.close()
    await auditor.play(Run(), acknowledged=True)
    folder = auditor.folder / "proofs"
    early, pending = auditor.pair(at="2026-06-01T12:10:00Z")
    assert (early, codes(pending)) == (0, [(CLOUD, "audit.execution_pending")])
    code, report = auditor.pair("--proofs", str(folder))
    assert (code, codes(report)) == (1, [(CLOUD, "audit.execution_missing")])
    assert shown(auditor, report, folder).exit_code == 0


async def test_an_execution_that_nobody_placed(auditor: Auditor) -> None:
    await auditor.play(Run(), acknowledged=True)
    cloud = await auditor.federation.cloud.open(auditor.folder)
    await cloud.issue([Draft(execution(links=[Link(rel="placement", digest=digest())], outcome="failed"))])
    await cloud.close()
    folder = auditor.folder / "proofs"
    code, report = auditor.pair("--proofs", str(folder))
    assert (code, codes(report)) == (1, [(CLINIC, "audit.placement_missing")])
    assert shown(auditor, report, folder).exit_code == 0


async def test_a_receipt_dropped_from_the_log_is_shown_by_its_copy(auditor: Auditor) -> None:
    """cloud.fr gave clinic.de an Execution with its proof, and later pretends that it never was."""
    await auditor.play(Run(), Run(), acknowledged=True)
    auditor.change(CLOUD, "DELETE FROM statement WHERE seq = 1")
    auditor.change(CLOUD, "DELETE FROM leaf WHERE idx = 1")
    folder = auditor.folder / "proofs"
    code, report = auditor.pair("--proofs", str(folder))
    assert code == 1
    assert (CLOUD, "audit.not_in_log") in codes(report)
    report["findings"] = [each for each in report["findings"] if each["code"] == "audit.not_in_log"]
    verified = shown(auditor, report, folder)
    assert verified.exit_code == 0, "the copy brings its own proof of inclusion"


async def test_two_receipts_under_one_number(auditor: Auditor) -> None:
    """cloud.fr restored an old database and went on: what it had handed out contradicts what it has now."""
    await auditor.play(Run())
    backup = auditor.folder / "backup.db"
    shutil.copy(auditor.database(CLOUD), backup)
    await auditor.play(Run())
    for name in ("-wal", "-shm"):
        auditor.remove(f"{CLOUD}.db{name}")
    shutil.copy(backup, auditor.database(CLOUD))
    await auditor.play(Run())
    folder = auditor.folder / "proofs"
    code, report = auditor.pair("--proofs", str(folder))
    assert code == 1
    assert (CLOUD, "audit.two_receipts") in codes(report)
    (twin,) = [each for each in report["findings"] if each["code"] == "audit.two_receipts"]
    assert len(bundles.read((folder / twin["proof"]).read_bytes()).envelopes) == 2
    verified = auditor.federation.verify((folder / twin["proof"]).read_bytes(), NOW, profile='"minimal"')
    assert verified.exit_code == 1
    assert {claim.code for claim in verified.claims} >= {"verify.equivocation"}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, None),
        ({"usage_agreed": usage(output_tokens=9)}, "audit.usage_differs"),
        ({"response": Commitment(commitment="3" * 64)}, "audit.response_differs"),
        ({"links": []}, "audit.acknowledged_nothing"),
        ({"status": "disputed", "response": None, "usage_agreed": None}, None),
    ],
)
async def test_an_acknowledgement_is_about_what_was_executed(
    auditor: Auditor, changes: dict[str, Any], code: str | None
) -> None:
    await auditor.play(Run())
    clinic = await auditor.federation.clinic.open(auditor.folder)
    await clinic.issue([Draft(acknowledgement(**({"links": auditor.runs[0].both} | changes)))])
    await clinic.close()
    found = {each for _, each in codes(auditor.pair()[1])}
    unsaid = {"audit.not_acknowledged"} if "links" in changes else set()
    assert found == ({code, *unsaid} if code else set())


@pytest.mark.parametrize(
    ("size", "root", "text"),
    [(1, None, None), (1, "5" * 64, "other leaves"), (9, "5" * 64, "fewer leaves")],
    ids=["as it was", "another history", "set back"],
)
async def test_the_other_s_log_begins_with_what_was_seen_of_it(
    auditor: Auditor, size: int, root: str | None, text: str | None
) -> None:
    """clinic.de's witness had cosigned it, as its Acknowledgement says: cloud.fr may show no other log."""
    await auditor.play(Run())
    cloud = await auditor.federation.cloud.open(auditor.folder)
    true = (await cloud.root_at(1)).hex()
    origin = cloud.identity.origin
    await cloud.close()
    seen = [SeenCheckpoint(origin=origin, size=size, root=root or true),
            SeenCheckpoint(origin="another.log", size=7, root="6" * 64)]  # fmt: skip
    clinic = await auditor.federation.clinic.open(auditor.folder)
    await clinic.issue([Draft(acknowledgement(links=auditor.runs[0].both, seen=seen))])
    await clinic.close()
    code, report = auditor.pair()
    assert (code, codes(report)) == ((1, [(CLOUD, "audit.split_view")]) if text else (0, []))
    assert all(text in each["text"] for each in report["findings"] if text)


async def test_an_execution_that_the_consumer_passes_over_in_silence(auditor: Auditor) -> None:
    """A dropped acknowledgement: clinic.de keeps what cloud.fr ran for it, and will not say that it came."""
    await auditor.play(Run(), acknowledged=True)
    await auditor.play(Run())
    folder = auditor.folder / "proofs"
    code, report = auditor.pair("--proofs", str(folder))
    assert (code, codes(report)) == (1, [(CLINIC, "audit.not_acknowledged")])
    assert shown(auditor, report, folder).exit_code == 0


async def test_an_execution_that_was_never_handed_over_is_noted(auditor: Auditor) -> None:
    await auditor.play(Run())
    auditor.change(CLINIC, "DELETE FROM foreign_statement")
    code, report = auditor.pair()
    assert (code, codes(report)) == (0, [(CLOUD, "audit.not_delivered")])


async def test_a_copy_that_the_other_never_signed_counts_for_nothing(auditor: Auditor) -> None:
    await auditor.play(Run(), acknowledged=True)
    clinic = await auditor.federation.clinic.open(auditor.folder)
    (own,) = await clinic.issue([Draft(placement(peer="else.where"))])
    await clinic.keep(Keep("r", envelopes=[own.envelope]))
    await clinic.close()
    assert auditor.pair()[0] == 0


async def test_a_log_is_not_its_own_pair(auditor: Auditor) -> None:
    await auditor.play(Run())
    database = str(auditor.database(CLINIC))
    code, report = auditor.run("--pair", database, database)
    assert (code, codes(report)) == (1, [(CLINIC, "audit.no_manifest")])
