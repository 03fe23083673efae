"""A document that convicts somebody: stated in the log of whoever holds it, and heard by auditors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from receipts import bundle as bundles
from receipts.audit.tests.conftest import Auditor, codes
from receipts.checkpoint import Checkpoint
from receipts.log import fsck
from receipts.note import NoteSigner
from receipts.statements.notice import Convicted
from receipts.tests.test_keeping import run
from receipts.tests.world import CLINIC, CLOUD, FEDERATION, NOW, Run
from receipts.verify.pinned import establish
from receipts.witnessing.equivocation import Equivocation
from receipts.witnessing.remembered import MAX_OF_ONE, remember
from schemas.canonical import sha256
from schemas.errors import ComityError
from schemas.primitives import format_time


def two_histories(auditor: Auditor) -> bytes:
    """cloud.fr's log key signed two trees of one size."""
    return two_histories_of(auditor.federation.cloud.keys.note)


def two_histories_of(signer: NoteSigner, size: int = 1, other: int = 1) -> bytes:
    first, second = (
        signer.sign(Checkpoint("cloud.fr/log", size, root).text) for root in (bytes(32), bytes([other]) * 32)
    )
    return Equivocation(kind="log-same-size", first=first, second=second).write()


async def convict(auditor: Auditor, folder: Path, document: bytes) -> dict[str, Any]:
    (folder / "document.json").write_bytes(document)
    return await run(auditor, "convict", "--document", str(folder / "document.json"))


async def test_a_conviction_stands_in_the_log_and_is_heard(auditor: Auditor, tmp_path: Path) -> None:
    await auditor.play(Run(), acknowledged=True)
    assert (await convict(auditor, tmp_path, two_histories(auditor)))["stated"] == "equivocation"
    assert fsck.check(auditor.database(CLINIC), keys=[auditor.federation.clinic.keys.note.key]).wrong == []
    code, report = auditor.log()
    assert (code, codes(report)) == (0, [("cloud.fr/log", "audit.convicted")]), (
        "it says nothing against clinic.de"
    )
    assert report["counts"]["notices"]["convictions"] == 1
    proofs = tmp_path / "proofs"
    code, report = auditor.pair("--proofs", str(proofs))
    assert (code, codes(report)) == (1, [(CLOUD, "audit.convicted")])
    (kept,) = proofs.iterdir()
    assert kept.read_bytes() == two_histories(auditor)


async def test_it_goes_along_with_every_bundle(auditor: Auditor, tmp_path: Path) -> None:
    """What was proven under a tree of the smaller size or more is believed no more."""
    await auditor.play(Run())
    await convict(auditor, tmp_path, two_histories(auditor))
    log = await auditor.federation.clinic.open(auditor.folder)
    bundle = await log.bundle(auditor.runs[0].request.id)
    await log.close()
    assert bundles.read(bundle).equivocations == (two_histories(auditor),)
    report = auditor.federation.verify(bundle)
    found = {each.kind: {claim.name: claim for claim in each.claims} for each in report.receipts}
    assert found["execution"]["not-equivocated"].code == "verify.equivocation"
    assert found["placement"]["not-equivocated"].verdict == "not-checked"
    assert report.exit_code == 1


async def test_the_same_twice_is_said_once(auditor: Auditor, tmp_path: Path) -> None:
    await auditor.play(Run())
    await convict(auditor, tmp_path, two_histories(auditor))
    with pytest.raises(ComityError, match=r"log\.convicted"):
        await convict(auditor, tmp_path, two_histories(auditor))


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda data: data.replace(b'"log-same-size"', b'"witness"'), r"equivocation\.nobody"),
        (lambda _: two_histories_of(NoteSigner.of("cloud.fr/log", bytes(32))), r"equivocation\.nobody"),
        (lambda _: b"{}", r"schema\.Equivocation"),
        (lambda data: data + b" " * 3_000_000, r"json\.too_long"),
    ],
    ids=["kind", "nobody-s", "shape", "oversize"],
)
async def test_what_convicts_nobody_is_not_said(
    auditor: Auditor, tmp_path: Path, change: Any, code: str
) -> None:
    await auditor.play(Run())
    document = change(two_histories(auditor))
    with pytest.raises(ComityError, match=code):
        await convict(auditor, tmp_path, document)
    assert auditor.log()[1]["counts"]["notices"]["convictions"] == 0


def convicted(**changes: Any) -> Convicted:
    values: dict[str, Any] = {
        "federation": FEDERATION, "issuer": CLINIC, "accused": "cloud.fr/log", "document": "8" * 64,
        "time": format_time(NOW),
    }  # fmt: skip
    return Convicted(**(values | changes))


@pytest.mark.parametrize(
    ("changes", "document", "code"),
    [
        ({}, None, "audit.document_absent"),
        ({"accused": "clinic.de/log"}, two_histories, "audit.accused"),
        ({"issuer": CLOUD}, two_histories, "audit.issuer"),
        ({}, lambda _: b"{}", "schema.Equivocation"),
    ],
    ids=["no-document", "somebody-else", "another-s-word", "no-equivocation"],
)
async def test_a_false_conviction_is_a_finding_against_who_says_it(
    auditor: Auditor, changes: dict[str, Any], document: Any, code: str
) -> None:
    await auditor.play(Run())
    data = document(auditor) if document else None
    named = {"document": sha256(data).hex()} if data else {}
    log = await auditor.federation.clinic.open(auditor.folder)
    await log.state(convicted(**named, **changes), kept=data)
    await log.close()
    exit_code, report = auditor.log()
    assert (exit_code, codes(report)) == (1, [(CLINIC, code)])
    assert report["counts"]["notices"]["convictions"] == 0


async def test_remembering_asks_the_log_itself(auditor: Auditor) -> None:
    """After a crash between catching and saying, it is said at the next start, and only once."""
    federation = auditor.federation
    log = await federation.clinic.open(auditor.folder)
    papers = bundles.Bundle({}, charter=federation.charter,
                            manifests=tuple(federation.clinic.documents.manifests.values()))  # fmt: skip
    held = establish(papers, federation.trust())
    document = two_histories(auditor)
    assert await remember(log, held, document, NOW) is not None
    assert await remember(log, held, document, NOW) is None
    assert await log.convictions() == [document]
    await log.close()


async def test_who_equivocates_without_end_does_not_fill_our_log(auditor: Auditor) -> None:
    """Documents against oneself are free to make: what says nothing new is not said."""
    federation = auditor.federation
    signer = federation.cloud.keys.note
    log = await federation.clinic.open(auditor.folder)
    papers = bundles.Bundle({}, charter=federation.charter,
                            manifests=tuple(federation.clinic.documents.manifests.values()))  # fmt: skip
    held = establish(papers, federation.trust())
    assert await remember(log, held, two_histories_of(signer, 90), NOW) is not None
    for other in range(2, 6):
        assert await remember(log, held, two_histories_of(signer, 90, other), NOW) is None
        assert await remember(log, held, two_histories_of(signer, 90 + other), NOW) is None
    said = [await remember(log, held, two_histories_of(signer, size), NOW) for size in range(80, 0, -5)]
    assert sum(each is not None for each in said) == MAX_OF_ONE - 1
    assert len(await log.convictions()) == MAX_OF_ONE
    await log.close()
