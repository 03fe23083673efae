"""Showing a part, erasing the rest: what is gone stays gone, and every proof still holds."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import secrets
import shutil
import sqlite3
import stat
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receipts import checkpoint, disclosure, merkle
from receipts.bundle import Disclosures
from receipts.disclosure import commit, conceal, open_commitment, reveal
from receipts.leaf import Kind
from receipts.log import Draft, Keep, Recorded, TransparencyLog, erasure, fsck, static
from receipts.log.erasure import erase_again, ledger_of, remembered
from receipts.log.reader import Reader
from receipts.retention import check_erasable, classes, retention
from receipts.statements.fields import RECORD, Retention
from receipts.statements.notice import Tombstone, read_notice
from receipts.statements.receipt import Inputs
from receipts.tests import disks
from receipts.tests.conftest import code_of
from receipts.tests.world import CLINIC, CLOUD, NOW, Domain, execution, placement, policy
from schemas import envelope
from schemas.canonical import sha256
from schemas.errors import ConfigurationError, Refused, Unreadable
from schemas.primitives import parse_time

# Commitments and salted fields.


def test_a_commitment_opens_to_one_value_under_its_own_key() -> None:
    key, prompt = bytes(range(32)), b"yes"
    stated = commit(key, prompt)
    assert open_commitment(stated, key, prompt) == prompt
    assert code_of(lambda: open_commitment(stated, key, b"no")) == "disclosure.commitment"
    assert code_of(lambda: open_commitment(stated, bytes(32), prompt)) == "disclosure.commitment"
    assert code_of(lambda: commit(b"short", prompt)) == "disclosure.key"


def test_a_short_prompt_cannot_be_guessed_without_the_key() -> None:
    """Every candidate under every key that a guesser might try first: none comes out."""
    stated = commit(secrets.token_bytes(32), b"yes")
    keys = [bytes(32), b"\xff" * 32, stated, *(bytes([number]) * 32 for number in range(256))]
    assert not any(commit(key, guess) == stated for key in keys for guess in (b"yes", b"no", b""))


def test_one_field_is_shown_and_the_others_are_not() -> None:
    sd, shown = conceal({"tenant": "radiology", "price": 12}, decoys=3)
    assert len(sd) == 5
    assert sd == sorted(sd)
    assert reveal(shown["tenant"], sd) == ("tenant", "radiology")
    again, _ = conceal({"tenant": "radiology", "price": 12})
    assert not set(again) & set(sd), "a salt is never used twice"
    _, forged = conceal({"tenant": "cardiology"})
    assert code_of(lambda: reveal(forged["tenant"], sd)) == "disclosure.unknown"
    assert code_of(lambda: reveal(shown["tenant"] + "=", sd)) == "disclosure.unknown"
    assert code_of(lambda: conceal({}, decoys=2000)) == "disclosure.count"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("A" * (disclosure.MAX_DISCLOSURE + 1), "disclosure.too_long"),
        (base64.urlsafe_b64encode(b'["c2hvcnQtYnktb25lMTU","a",1]').decode().rstrip("="), "disclosure.shape"),
        ("QR", "disclosure.base64"),  # one letter, and a bit behind it
    ],
    ids=["too-long", "salt-of-15-bytes", "stray-bits"],
)
def test_what_is_shown_has_its_one_form(text: str, code: str) -> None:
    assert code_of(lambda: reveal(text, [disclosure.digest_of(text)])) == code


@given(st.text(max_size=60))
def test_noise_discloses_nothing(text: str) -> None:
    for sd in ([], [disclosure.digest_of(text)]):
        with contextlib.suppress(Unreadable, Refused):
            reveal(text, sd)


# Retention.


def test_retention_classes_are_data() -> None:
    assert classes()["ai-act-deployer"].days >= 183
    assert classes()["hipaa"].days >= 6 * 365
    block = retention(["ai-act-deployer", "hipaa"], NOW)
    assert block.class_ == "hipaa"
    assert code_of(lambda: retention(["nonsense"], NOW)) == "retention.unknown"
    assert code_of(lambda: check_erasable(block, NOW + timedelta(days=365))) == "retention.early"
    assert check_erasable(block, parse_time(block.not_before)) == block
    early = parse_time(block.not_before) - timedelta(milliseconds=1)
    assert code_of(lambda: check_erasable(block, early)) == "retention.early"
    held = Retention(class_="none", not_before=block.not_before, hold=True)
    assert code_of(lambda: check_erasable(held, NOW + timedelta(days=9000))) == "retention.hold"


# Erasure.


async def issue(log: TransparencyLog, **changes: Any) -> tuple[str, str]:
    """(request id, receipt id) of one receipt with a commitment key, candidates, and a peer's statement."""
    body = placement(**changes)
    listing = f"candidates {body.request.id}".encode()
    (issued,) = await log.issue([Draft(body, Disclosures(considered=sha256(listing).hex()))])
    await log.keep_commitment_keys([(bytes.fromhex(body.request.commitment), b"k" * 32)])
    await log.keep(Keep(body.request.id, envelopes=[issued.promise], evidence=[listing]))
    return body.request.id, issued.receipt_id


async def erase(log: TransparencyLog, request: str) -> None:
    await log.erase(request, reason="gdpr-17", authority="dpo@clinic.de", at=NOW)


def on_disk(folder: Path, part: bytes) -> bool:
    """Whether database or write-ahead log hold these bytes anywhere."""
    return any(part in path.read_bytes() for path in folder.iterdir() if path.name.startswith(f"{CLINIC}.db"))


async def emptied(log: TransparencyLog) -> None:
    """What was erased has left the write-ahead log."""
    async with asyncio.timeout(10):
        while not log.wal_emptied:  # noqa: ASYNC110 - nobody announces it
            await asyncio.sleep(0.005)


async def test_what_is_erased_is_gone_and_the_proofs_hold(clinic: Domain, tmp_path: Path) -> None:
    log = await clinic.open(tmp_path)
    request, receipt_id = await issue(log)
    _, other_id = await issue(log)
    before = await log.checkpoint()
    said_then = envelope.read((await log.of_request(request))[0]).payload[200:600]
    assert on_disk(tmp_path, said_then)
    await erase(log, request)
    await emptied(log)
    for part in (said_then, f"candidates {request}".encode()):
        assert not on_disk(tmp_path, part), "overwritten on disk as well"
    (stone,) = await log.tombstones(request)
    said = read_notice(stone, Tombstone, [clinic.keys.receipt.public]).body
    assert (said.leaf, said.receipt_id, said.reason) == (0, receipt_id, "gdpr-17")
    assert await log.issued(receipt_id) is None
    for ask, code in ((log.bundle(request), "log.erased"), (log.proof(receipt_id), "log.unknown_receipt")):
        with pytest.raises(Refused) as refused:
            await ask
        assert refused.value.code == code
    text = await log.proof(other_id)
    assert text is not None, "others are untouched"
    await log.checkpoint()
    await log.close()
    database = tmp_path / f"{CLINIC}.db"
    assert fsck.check(database, keys=[clinic.keys.note.key]).wrong == []
    connection = sqlite3.connect(database)
    assert connection.execute("SELECT count(*) FROM commitment_key").fetchone() == (1,)
    assert connection.execute("SELECT count(*) FROM foreign_statement").fetchone() == (1,)
    # The leaf that nobody can tie to anything is still proven under the checkpoint from before.
    (first, _, _) = static.read_entry_bundle(static.resource(connection, "tile/entries/000.p/3"))
    stated = checkpoint.read(before).checkpoint
    reader = Reader(connection, None)
    path = merkle.inclusion_proof(0, stated.size, reader.tiles.node)
    assert merkle.verify_inclusion(merkle.leaf_hash(first), 0, stated.size, path, stated.root)
    connection.close()
    again = await clinic.open(tmp_path)
    await issue(again)
    await again.close()
    assert fsck.check(database, keys=[clinic.keys.note.key]).wrong == []


async def test_all_that_a_request_was_decided_from_is_gone(clinic: Domain, tmp_path: Path) -> None:
    """Costs and facts behind the decisions, both commitments' keys, and what was disclosed."""
    log = await clinic.open(tmp_path)
    costs, placed_on, ran_on = b"what it costs", b"facts of a tenant", b"facts of another"
    body = placement(
        inputs=Inputs(registry=sha256(b"").hex(), costs=sha256(costs).hex()),
        policy=policy(properties=[RECORD + sha256(placed_on).hex()]),
    )
    ran = execution(
        CLOUD, request=body.request, policy=policy(properties=[RECORD + sha256(ran_on).hex(), "shown"])
    )
    assert ran.response is not None
    await log.issue([Draft(body, Disclosures(considered=sha256(b"list").hex())), Draft(ran)])
    keys = [bytes.fromhex(each) for each in (body.request.commitment, ran.response.commitment)]
    await log.keep_commitment_keys([(each, b"k" * 32) for each in keys])
    await log.keep(Keep(body.request.id, evidence=[costs, placed_on, ran_on, b"list", b"of an epoch"]))
    await erase(log, body.request.id)
    await log.close()
    with closing(sqlite3.connect(tmp_path / f"{CLINIC}.db")) as connection:
        assert connection.execute("SELECT data FROM blob").fetchall() == [(b"of an epoch",)]
        assert connection.execute("SELECT count(*) FROM commitment_key").fetchone() == (0,)
        assert connection.execute("SELECT disclosures FROM statement").fetchall() == [(None,), (None,)]


async def test_a_restored_backup_is_erased_again(clinic: Domain, tmp_path: Path) -> None:
    log = await clinic.open(tmp_path)
    request, receipt_id = await issue(log)
    await log.close()
    database = tmp_path / f"{CLINIC}.db"
    with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(tmp_path / "backup")) as copy:
        source.backup(copy)
    log = await clinic.open(tmp_path)
    await erase(log, request)
    await log.close()
    shutil.copy(tmp_path / "backup", database)
    for name in ("-wal", "-shm"):
        database.with_name(database.name + name).unlink(missing_ok=True)
    log = await clinic.open(tmp_path)
    assert await log.issued(receipt_id) is None
    assert log.size == 1, "nothing new is logged before the witnesses were asked"
    assert (await log.tell_of_erasures(), await log.tell_of_erasures()) == (1, 0)
    await log.close()
    connection = sqlite3.connect(database)
    assert connection.execute("SELECT envelope FROM statement").fetchone() == (b"",)
    assert connection.execute("SELECT salt FROM leaf").fetchone() == (None,)
    assert erase_again(connection, ledger_of(database), clinic.keys.receipt, NOW) == 0
    kinds = [record[1] for (record,) in connection.execute("SELECT record FROM leaf ORDER BY idx")]
    assert kinds == [Kind.PLACEMENT, Kind.TOMBSTONE], "the tombstone stands in the log again"
    (stone,) = connection.execute("SELECT envelope FROM tombstone").fetchone()
    said = read_notice(stone, Tombstone, [clinic.keys.receipt.public]).body
    assert (said.reason, said.authority) == ("gdpr-17", "dpo@clinic.de")
    connection.close()


async def test_what_was_waited_for_is_erased_as_well(clinic: Domain, tmp_path: Path) -> None:
    """Whose the request was, and what was still to come: that would bring back what is erased."""
    log = await clinic.open(tmp_path)
    body = placement()
    request, attempt = body.request.id, body.request.commitment
    points = [
        Recorded("request", request, b"tenant radiology"),
        Recorded("intent", attempt, b"provider"),
        Recorded("commitment", "n1", f'{{"id":"{request}"}}'.encode()),
    ]
    (issued,) = await log.issue([Draft(body)], record=points, settle=[("commitment", "n1")])
    await issue(log)
    await log.record("intent", "of another", b"provider")
    await log.close()
    log = await clinic.open(tmp_path)
    await erase(log, request)
    await emptied(log)
    assert await log.recorded("commitment", "n1") == b""
    assert await log.recorded("request", request) == b""
    assert [row.key for row in await log.unsettled("intent")] == ["of another"]
    for part in (b"radiology", f'"{request}"'.encode()):
        assert not on_disk(tmp_path, part)
    with pytest.raises(Refused, match=r"log\.recorded"):
        await log.issue([Draft(body)], record=points[:1])
    assert await log.issued(issued.receipt_id) is None
    await log.close()


@pytest.mark.parametrize(
    "piece", ["torn", "torn gdpr-17", "torn gdpr-17 dp", "t" * 300, "\0\0\0 \0"], ids=len
)
async def test_an_order_that_a_crash_broke_off_joins_no_other(
    clinic: Domain, tmp_path: Path, piece: str
) -> None:
    log = await clinic.open(tmp_path)
    request, _ = await issue(log)
    other, _ = await issue(log)
    ledger = ledger_of(tmp_path / f"{CLINIC}.db")
    ledger.write_text(f"earlier gdpr-17 dpo\n{piece}")
    await erase(log, request)
    await erase(log, other)
    await log.close()
    orders = {each.request_id: each.authority for each in remembered(ledger, NOW)}
    torn = {"torn": "dp"} if piece.endswith("dp") else {}
    assert orders == {"earlier": "dpo", request: "dpo@clinic.de", other: "dpo@clinic.de"} | torn
    ledger.write_text(f"earlier gdpr-17 dpo\n{piece}")
    await (await clinic.open(tmp_path)).close()


async def test_the_ledger_is_private_and_no_longer_than_it_can_be(
    clinic: Domain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = await clinic.open(tmp_path)
    request, _ = await issue(log)
    await erase(log, request)
    await log.close()
    ledger = ledger_of(tmp_path / f"{CLINIC}.db")
    assert stat.S_IMODE(ledger.stat().st_mode) == 0o600
    size = ledger.stat().st_size
    monkeypatch.setattr(erasure, "MAX_LEDGER_BYTES", size)
    assert [each.request_id for each in remembered(ledger, NOW)] == [request]
    monkeypatch.setattr(erasure, "MAX_LEDGER_BYTES", size - 1)
    assert code_of(lambda: remembered(ledger, NOW)) == "log.erasures"


async def test_an_order_that_may_not_be_on_disk_erases_nothing(clinic: Domain, tmp_path: Path) -> None:
    """A disk that takes the line and then cannot say that it holds it."""
    log = await clinic.open(tmp_path)
    request, receipt_id = await issue(log)
    await erase(log, (await issue(log))[0])  # the ledger is there: its folder need not be synced
    with disks.never_synced(), pytest.raises(ConfigurationError, match=r"log\.erasures"):
        await erase(log, request)
    assert await log.issued(receipt_id) is not None
    await log.close()


@pytest.mark.parametrize("data", [b"one two\n", b"a b c d\n", b"\xff\n", b"a b c\n\n", b"\n"])
async def test_a_ledger_that_is_none_opens_no_log(clinic: Domain, tmp_path: Path, data: bytes) -> None:
    """Whoever cannot read what must not come back serves nothing."""
    await (await clinic.open(tmp_path)).close()
    ledger_of(tmp_path / f"{CLINIC}.db").write_bytes(data)
    with pytest.raises(Unreadable, match=r"log\.erasures"):
        await clinic.open(tmp_path)


async def test_an_order_that_is_not_on_disk_erases_nothing(clinic: Domain, tmp_path: Path) -> None:
    """No file, and then a disk that is full in the middle of the line."""
    log = await clinic.open(tmp_path)
    request, receipt_id = await issue(log)
    ledger = ledger_of(tmp_path / f"{CLINIC}.db")
    ledger.mkdir()
    with pytest.raises(ConfigurationError, match=r"log\.erasures"):
        await erase(log, request)
    ledger.rmdir()
    # Longer than the database: the limit is for it alone.
    ledger.write_text("earlier gdpr-17 dpo\n" * 200_000)
    with (
        disks.full_at(ledger.stat().st_size + 10),
        pytest.raises(ConfigurationError, match=r"log\.erasures.*No space"),
    ):
        await erase(log, request)
    assert await log.issued(receipt_id) is not None
    await erase(log, request)
    assert ledger.read_text().endswith(f"dpo\n{request} gdpr-17 dpo@clinic.de\n")
    await log.close()


@pytest.mark.parametrize(
    ("block", "code"),
    [
        (retention(["hipaa"], NOW), "retention.early"),
        (Retention(class_="none", not_before="2026-01-01T00:00:00Z", hold=True), "retention.hold"),
    ],
)
async def test_what_must_be_kept_is_not_erased(
    log: TransparencyLog, block: Retention, code: str, tmp_path: Path
) -> None:
    request, receipt_id = await issue(log, retention=block)
    with pytest.raises(Refused) as refused:
        await erase(log, request)
    assert refused.value.code == code
    assert await log.issued(receipt_id) is not None
    assert not ledger_of(tmp_path / f"{CLINIC}.db").exists()
    with pytest.raises(Refused):
        await erase(log, "nobody-s-request")
