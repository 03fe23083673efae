"""Keys change while the log goes on: old and new both hold while they overlap, neither outside its time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from receipts import bundle as bundles
from receipts import checkpoint
from receipts.audit.logfile import LogFile
from receipts.audit.whole import audit_log
from receipts.bundle import Bundle
from receipts.cosignature import SUBTREE, Cosigner
from receipts.log import LogKeys, fsck
from receipts.note import NoteSigner
from receipts.statements.fields import Times
from receipts.tests.conftest import verdict
from receipts.tests.world import CLINIC, CLOUD, NOW, OVERLAPPED, SWITCH, Domain, Federation, Run, seeded_key
from receipts.verify import Report
from receipts.verify.pinned import establish
from schemas.canonical import sha256
from schemas.primitives import format_time

ORIGIN = f"{CLINIC}/log"
BESIDE = Cosigner.of(ORIGIN, sha256(b"new beside"), SUBTREE)
NEW = LogKeys(
    seeded_key("new receipt"), seeded_key("new promise"), NoteSigner.of(ORIGIN, sha256(b"new note")), BESIDE
)
LATER = datetime.fromtimestamp(SWITCH + 60, UTC)
"""Both keys hold."""
AFTER = datetime.fromtimestamp(OVERLAPPED + 60, UTC)
"""Only the new ones do."""


@pytest.fixture(scope="module")
def federation() -> Federation:
    """clinic.de's manifest registers the keys that it has and those that it will have."""
    made = Federation(replace(Domain.make(CLINIC), coming=NEW), Domain.make(CLOUD))
    made.publish()
    return made


async def play(federation: Federation, folder: Path, at: datetime, keys: LogKeys | None = None) -> bytes:
    """A request at this time, clinic.de's receipt and checkpoint under these keys; its bundle."""
    clinic = await federation.clinic.open(folder, lambda: at, keys)
    cloud = await federation.cloud.open(folder, lambda: at)
    run = Run(placement={"times": Times(issued=format_time(at))})
    data = await run.play(clinic, cloud)
    await clinic.close()
    await cloud.close()
    return data


def claims(report: Report, *names: str) -> list[tuple[str, str | None]]:
    """(verdict, code) of clinic.de's Placement."""
    return [verdict(report, "placement", name) for name in names]


async def test_a_log_goes_on_across_a_rotation(federation: Federation, tmp_path: Path) -> None:
    before = await play(federation, tmp_path, NOW)
    after = await play(federation, tmp_path, LATER, NEW)
    for data in (before, after):
        report = federation.verify(data, LATER, profile='"minimal"')
        assert claims(report, "issuer-key", "logged") == [("proved", None), ("proved", None)]
    both = [federation.clinic.keys.note.key, NEW.note.key]
    database = tmp_path / f"{CLINIC}.db"
    assert fsck.check(database, keys=both).wrong == []
    for one in both:
        assert fsck.check(database, keys=[one]).wrong, "the other key's checkpoints are not believed"
    papers = Bundle(envelopes={}, charter=federation.charter, manifests=bundles.read(after).manifests)
    with LogFile(database) as log:
        audit = audit_log(log, establish(papers, federation.trust()))
    assert (audit.exit_code, audit.findings) == (0, [])
    assert audit.counts["peers"] == {CLOUD: {"receipts": 2, "newest": 1, "gaps": 0}}


async def test_a_receipt_from_before_is_proven_under_the_new_key_as_well(
    federation: Federation, tmp_path: Path
) -> None:
    await play(federation, tmp_path, NOW)
    clinic = await federation.clinic.open(tmp_path, lambda: LATER, NEW)
    first = await clinic.checkpoint()
    await clinic.close()
    old = [federation.clinic.keys.note.key]
    assert checkpoint.verify(first, old, origin=ORIGIN).checkpoint.size == 1, "nothing was appended"
    await play(federation, tmp_path, LATER, NEW)
    clinic = await federation.clinic.open(tmp_path, lambda: LATER, NEW)
    second = await clinic.checkpoint()
    await clinic.close()
    assert checkpoint.verify(second, [NEW.note.key], origin=ORIGIN).checkpoint.size == 2


TOO_EARLY_OR_LATE: list[tuple[str, datetime, Callable[[Federation], LogKeys]]] = [
    ("new-key-early", NOW, lambda _: NEW),
    ("old-key-late", AFTER, lambda federation: federation.clinic.keys),
]


@pytest.mark.parametrize(
    ("at", "keys"), [case[1:] for case in TOO_EARLY_OR_LATE], ids=[case[0] for case in TOO_EARLY_OR_LATE]
)
async def test_a_key_signs_nothing_outside_its_time(
    federation: Federation, tmp_path: Path, at: datetime, keys: Callable[[Federation], LogKeys]
) -> None:
    data = await play(federation, tmp_path, at, keys(federation))
    report = federation.verify(data, at + timedelta(minutes=1), profile='"minimal"')
    assert claims(report, "issuer-key") == [("failed", "verify.key_time")]


async def test_the_new_key_s_checkpoints_need_what_is_registered_beside_it(
    federation: Federation, tmp_path: Path
) -> None:
    """The old key had no ML-DSA key beside it, and needs none; the new one does."""
    data = await play(federation, tmp_path, LATER, replace(NEW, beside=None))
    report = federation.verify(data, LATER, profile='"minimal"')
    assert claims(report, "logged") == [("failed", "verify.beside")]
