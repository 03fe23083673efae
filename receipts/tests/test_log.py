"""The log: numbers, chains, proofs; what it refuses; what stays after a restart."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from receipts import checkpoint, proof
from receipts.leaf import Kind
from receipts.log import Documents, Draft, Keep, Recorded, TransparencyLog
from receipts.log import fsck as checker
from receipts.log.writing import batch
from receipts.merkle import verify_consistency
from receipts.statements.promise import read_promise
from receipts.statements.receipt import FIRST, PlacementReceipt
from receipts.statements.statement import Statement, read_receipt
from receipts.tests.conftest import refusal
from receipts.tests.world import (
    CLINIC,
    CLOUD,
    FEDERATION,
    NOW,
    Domain,
    Federation,
    Node,
    Run,
    drafts,
    placement,
)
from schemas import envelope
from schemas.errors import Refused, Undecided
from schemas.keys import SigningKey


def read(domain: Domain, data: bytes) -> Statement[PlacementReceipt]:
    return read_receipt(
        data,
        PlacementReceipt,
        keys=[domain.keys.receipt.public],
        issuer=domain.name,
        federation=FEDERATION,
        audience=CLOUD,
    )


async def test_a_receipt_is_whole(log: TransparencyLog, clinic: Domain) -> None:
    (issued,) = await log.issue([Draft(placement())])
    found = read(clinic, issued.envelope)
    body = found.body
    assert (body.receipt_id, found.digest) == (issued.receipt_id, issued.digest)
    assert (body.issuer, body.role, body.seq, body.prev) == (CLINIC, "broker", 0, FIRST)
    assert (body.log.origin, body.manifest) == (clinic.origin, clinic.identity.manifest)
    promised = read_promise(
        issued.promise,
        keys=[clinic.keys.promise.public],
        issuer=CLINIC,
        federation=FEDERATION,
        receipt_digest=issued.digest,
    ).body
    assert (promised.index, promised.origin, promised.receipt_id) == (0, clinic.origin, issued.receipt_id)


async def test_a_promise_is_signed_when_it_is_asked_for(
    log: TransparencyLog, clinic: Domain, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed: list[bytes] = []
    sign = SigningKey.sign_digest

    def counting(key: SigningKey, digest: bytes) -> bytes:
        signed.extend([digest] if key is clinic.keys.promise else [])
        return sign(key, digest)

    monkeypatch.setattr(SigningKey, "sign_digest", counting)
    one, other = await log.issue([Draft(placement()), Draft(placement())])
    assert signed == []
    first = one.promise
    again = await log.issued(one.receipt_id)
    assert again
    assert (one.promise, again.promise) == (first, first)
    assert other.promise != first
    assert len(set(signed)) == 2


async def test_each_peer_has_its_own_chain(log: TransparencyLog, clinic: Domain) -> None:
    peers = [CLOUD, "hyper.us", CLOUD, CLOUD, "hyper.us"]
    issued = await log.issue([Draft(placement(peer)) for peer in peers])
    issued += await log.issue([Draft(placement(CLOUD))])
    last: dict[str, tuple[int, str]] = {}
    for one in issued:
        body = read(clinic, one.envelope).body
        assert (body.seq - 1, body.prev) == last.get(body.peer, (-1, FIRST))
        last[body.peer] = (body.seq, one.digest.hex())
    assert {peer: seq for peer, (seq, _) in last.items()} == {CLOUD: 3, "hyper.us": 1}
    assert [one.index for one in issued] == list(range(6))


async def test_many_at_once_leave_no_hole(log: TransparencyLog, clinic: Domain, tmp_path: Path) -> None:
    issued = [
        one for batch_ in await asyncio.gather(*(log.issue(drafts(1)) for _ in range(300))) for one in batch_
    ]
    assert sorted(one.index for one in issued) == list(range(300))
    bodies = [read(clinic, one.envelope).body for one in sorted(issued, key=lambda one: one.index)]
    assert [body.seq for body in bodies] == list(range(300))
    await log.checkpoint()
    proofs = [await log.proof(one.receipt_id) for one in issued[::37]]
    for one, text in zip(issued[::37], proofs, strict=True):
        assert text is not None
        assert logged(clinic, one.digest, text).index == one.index
    assert checker.check(tmp_path / f"{CLINIC}.db", keys=[clinic.keys.note.key]).wrong == []


def logged(domain: Domain, digest: bytes, text: bytes) -> proof.Logged:
    return proof.verify(
        text,
        kind=Kind.PLACEMENT,
        receipt_digest=digest,
        issuer_thumbprint=domain.keys.receipt.thumbprint,
        origin=domain.origin,
        keys=[domain.keys.note.key],
    )


async def test_the_proof_comes_within_a_second(log: TransparencyLog, clinic: Domain) -> None:
    (issued,) = await log.issue(drafts(1))
    assert await log.proof(issued.receipt_id) is None
    async with asyncio.timeout(1):
        while (text := await log.proof(issued.receipt_id)) is None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert logged(clinic, issued.digest, text).index == 0


async def test_checkpoints_continue_each_other(log: TransparencyLog, clinic: Domain) -> None:
    notes = [log.latest_checkpoint]
    for count in (1, 3, 300):
        await log.issue(drafts(count))
        notes.append(await log.checkpoint())
    stated = [
        checkpoint.verify(note, [clinic.keys.note.key], origin=clinic.origin).checkpoint for note in notes
    ]
    assert [each.size for each in stated] == [0, 1, 4, 304]
    for old, new in itertools.pairwise(stated[1:]):
        hashes = await log.consistency(old.size, new.size)
        assert verify_consistency(old.size, new.size, old.root, new.root, hashes) == new.root


async def test_nothing_new_is_signed_without_an_append(log: TransparencyLog) -> None:
    await log.issue(drafts(1))
    assert await log.checkpoint() == await log.checkpoint()


async def test_a_receipt_is_given_out_again_byte_for_byte(clinic: Domain, tmp_path: Path) -> None:
    log = await clinic.open(tmp_path)
    (issued,) = await log.issue(drafts(1))
    await log.close()
    log = await clinic.open(tmp_path)
    again = await log.issued(issued.receipt_id)
    assert again
    assert (again, again.promise) == (issued, issued.promise)
    assert await log.issued("stranger") is None
    assert await refusal(log.proof("stranger")) == "log.unknown_receipt"
    assert await refusal(log.bundle("stranger")) == "log.unknown_receipt"
    await log.close()


@pytest.mark.parametrize("count", [1, 255, 256, 257, 600])
async def test_a_reopened_log_goes_on_where_it_stood(clinic: Domain, tmp_path: Path, count: int) -> None:
    log = await clinic.open(tmp_path)
    first = await log.issue(drafts(count))
    await log.close()
    log = await clinic.open(tmp_path)
    assert log.size == count
    (issued,) = await log.issue(drafts(1))
    body = read(clinic, issued.envelope).body
    assert (issued.index, body.seq, body.prev) == (count, count, first[-1].digest.hex())
    await log.checkpoint()
    for one in (first[0], first[-1], issued):
        text = await log.proof(one.receipt_id)
        assert text is not None
        assert logged(clinic, one.digest, text).index == one.index
    await log.close()
    assert checker.check(tmp_path / f"{CLINIC}.db").wrong == []


async def test_a_clock_that_jumps_back_is_refused_with_a_reason(clinic: Domain, tmp_path: Path) -> None:
    now = [NOW]
    log = await clinic.open(tmp_path, clock=lambda: now[0])
    await log.issue(drafts(1))
    now[0] = NOW - timedelta(seconds=batch.MAX_STEP_BACK_S + 1)
    assert await refusal(log.issue(drafts(1), record=[Recorded("intent", "1", b"")])) == "log.clock"
    assert await log.unsettled("intent") == []
    now[0] = NOW - timedelta(seconds=5)
    assert len(await log.issue(drafts(1))) == 1
    await log.close()


async def test_a_point_of_no_return_is_passed_once(clinic: Domain, tmp_path: Path) -> None:
    log = await clinic.open(tmp_path)
    await log.record("intent", "header-1", b"digests")
    await log.record("commitment", "header-1", b"other kind")
    assert await refusal(log.record("intent", "header-1", b"digests")) == "log.recorded"
    await log.issue(drafts(1), record=[Recorded("intent", "header-2", b"two")])
    await log.settle("intent", "header-1")
    assert await log.unsettled("intent") == [Recorded("intent", "header-2", b"two")]
    await log.close()
    log = await clinic.open(tmp_path)
    assert await log.unsettled("intent") == [Recorded("intent", "header-2", b"two")]
    assert await refusal(log.record("intent", "header-1", b"digests")) == "log.recorded"
    await log.close()


async def test_a_refused_call_leaves_nothing(log: TransparencyLog) -> None:
    await log.record("intent", "1", b"")
    refused = log.issue(drafts(2), record=[Recorded("intent", "2", b""), Recorded("intent", "1", b"")])
    fine = log.issue(drafts(1))
    codes = await asyncio.gather(refusal(refused), fine)
    assert codes[0] == "log.recorded"
    assert (log.size, codes[1][0].index) == (1, 0)
    assert [row.key for row in await log.unsettled("intent")] == ["1"]


async def test_settled_points_are_forgotten_after_a_day(clinic: Domain, tmp_path: Path) -> None:
    log = await clinic.open(tmp_path)
    await log.record("intent", "old", b"")
    await log.record("intent", "open", b"")
    await log.settle("intent", "old")
    await log.close()
    log = await clinic.open(tmp_path, clock=lambda: NOW + timedelta(days=2))
    await log.record("intent", "old", b"again")
    assert await refusal(log.record("intent", "open", b"")) == "log.recorded"
    await log.close()


async def test_what_others_say_is_kept_once(log: TransparencyLog, tmp_path: Path) -> None:
    node = Node()
    kept = Keep("r1", envelopes=[node.statement()], evidence=[b"evidence", b"evidence"])
    await log.keep(kept)
    await log.keep(kept)
    await log.keep_commitment_keys([(b"c" * 32, b"k" * 32)] * 2)
    assert await refusal(log.keep(Keep("r1", envelopes=[b"junk"]))) == "json.syntax"
    counts = count_rows(tmp_path / f"{CLINIC}.db")
    assert (counts["foreign_statement"], counts["blob"], counts["commitment_key"]) == (1, 1, 1)


def count_rows(database: Path) -> Counter[str]:
    connection = sqlite3.connect(database)
    names = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    counts = Counter(
        {name: connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in names}
    )
    connection.close()
    return counts


async def test_a_full_disk_fails_with_a_reason_and_loses_nothing(clinic: Domain, tmp_path: Path) -> None:
    log = await clinic.open(tmp_path)
    issued = await log.issue(drafts(5))
    connection = log._writer.connection
    connection.execute("VACUUM")
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")
    assert await refusal(log.issue(drafts(200))) == "log.cannot_commit"
    failure = await log.failed()
    assert isinstance(failure, Undecided)
    assert "full" in failure.text
    assert await refusal(log.issue(drafts(1))) == "log.cannot_commit"
    await log.close()
    log = await clinic.open(tmp_path)
    assert log.size == 5
    assert [await log.issued(one.receipt_id) for one in issued] == issued
    await log.close()


async def test_a_bundle_holds_both_sides(federation: Federation, tmp_path: Path) -> None:
    run = Run()
    async with federation.opened(tmp_path) as (clinic, cloud):
        data = await run.play(clinic, cloud)
        assert run.placed is not None
        assert await clinic.bundle(run.placed.receipt_id) == data


async def test_cancelled_callers_do_not_hurt_others(log: TransparencyLog) -> None:
    tasks = [asyncio.create_task(log.issue(drafts(1))) for _ in range(20)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    kept = [one for result in done if not isinstance(result, BaseException) for one in result]
    assert len(kept) >= 10
    assert len({one.index for one in kept}) == len(kept)
    assert len(await log.issue(drafts(1))) == 1


async def test_a_new_manifest_is_in_force_at_once(log: TransparencyLog, clinic: Domain) -> None:
    reference = clinic.identity.manifest.model_copy(update={"version": 2})
    log.update_manifest(reference, Documents())
    (issued,) = await log.issue(drafts(1))
    assert read(clinic, issued.envelope).body.manifest.version == 2


def test_times_survive_storage_exactly() -> None:
    for micro in (0, 1, 999, 1000, 123_456, 999_999):
        at = datetime.fromisoformat("2026-06-01T12:00:00+00:00") + timedelta(microseconds=micro)
        assert batch.moment(batch.milliseconds(at)) == at - timedelta(microseconds=micro % 1000)


async def test_a_drafted_statement_is_named_by_the_log_alone(log: TransparencyLog) -> None:
    draft = Draft(placement())
    first, second = await log.issue([draft, draft])
    assert first.receipt_id != second.receipt_id
    with pytest.raises(Refused):
        await log.proof("x")
    assert envelope.read(first.envelope).digest == first.digest
