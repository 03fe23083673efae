"""Gaps that were admitted, receipts that are withheld, tombstones: what each changes for an auditor."""

from __future__ import annotations

from typing import Any

import pytest

from receipts.audit.tests.conftest import Auditor, codes
from receipts.log import fsck
from receipts.statements.notice import (
    GAP,
    Accusation,
    Gap,
    check_accusation,
    read_notice,
    sign_notice,
)
from receipts.statements.statement import frame
from receipts.tests.conftest import code_of
from receipts.tests.world import CLINIC, CLOUD, FEDERATION, NOW, Domain, Run
from schemas import envelope
from schemas.canonical import sha256
from schemas.errors import ComityError
from schemas.keys import SigningKey
from schemas.primitives import format_time


def gap(**changes: Any) -> Gap:
    values: dict[str, Any] = {
        "federation": FEDERATION, "issuer": CLINIC, "peer": CLOUD, "first": 1, "last": 1,
        "reason": "disk-lost", "time": format_time(NOW),
    }  # fmt: skip
    return Gap(**(values | changes))


def accusation(run: Run, **changes: Any) -> Accusation:
    """clinic.de has cloud.fr's Execution number 1, which names number 0; number 0 it never got."""
    assert run.executed is not None
    values: dict[str, Any] = {
        "federation": FEDERATION, "issuer": CLINIC, "accused": CLOUD, "number": 0,
        "named": "0" * 64, "shown": run.executed.envelope.decode(), "time": format_time(NOW),
    }  # fmt: skip
    return Accusation(**(values | changes))


def spoiled_notices(auditor: Auditor) -> list[str]:
    """What `comity log fsck` says of clinic.de's notices."""
    wrong = fsck.check(auditor.database(CLINIC), keys=[auditor.federation.clinic.keys.note.key]).wrong
    return [text for text in wrong if text.startswith("notice")]


async def state(auditor: Auditor, body: Gap | Accusation, domain: str = CLINIC) -> None:
    who = auditor.federation.clinic if domain == CLINIC else auditor.federation.cloud
    log = await who.open(auditor.folder)
    await log.state(body)
    await log.close()
    assert not spoiled_notices(auditor)


LOST = "DELETE FROM statement WHERE seq = 1"


async def test_a_loss_that_is_admitted_is_no_fraud_and_still_said(auditor: Auditor) -> None:
    await auditor.play(Run(), Run(), Run())
    auditor.change(CLINIC, LOST)
    assert codes(auditor.log()[1]) == [(CLINIC, "audit.sequence_gap")]
    await state(auditor, gap())
    code, report = auditor.log()
    assert (code, codes(report)) == (0, [(CLINIC, "audit.gap_admitted")])
    assert report["counts"]["notices"] == {"tombstones": 0, "gaps": 1, "accusations": 0, "convictions": 0}


@pytest.mark.parametrize("changes", [{"first": 2, "last": 2}, {"peer": "else.us"}])
async def test_a_gap_statement_covers_what_it_names_alone(auditor: Auditor, changes: dict[str, Any]) -> None:
    await auditor.play(Run(), Run())
    await auditor.play(Run(), Run())
    auditor.change(CLINIC, LOST)
    await state(auditor, gap(**changes))
    assert (CLINIC, "audit.sequence_gap") in codes(auditor.log()[1])


async def test_a_false_gap_statement(auditor: Auditor) -> None:
    """Said to be lost, and it is there."""
    await auditor.play(Run(), Run())
    await state(auditor, gap())
    code, report = auditor.log()
    assert (code, codes(report)) == (1, [(CLINIC, "audit.gap_false")])


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("UPDATE notice SET envelope = CAST(replace(envelope, 'ey', 'eZ') AS BLOB)", None),
        ("UPDATE notice SET kind = 7", "receipt.predicate_type"),
        ("UPDATE notice SET kind = 1", "audit.kind"),
        ("UPDATE leaf SET salt = zeroblob(32) WHERE idx = 3", "audit.leaf"),
        ("UPDATE leaf SET salt = NULL WHERE idx = 3", "audit.leaf"),
    ],
)
async def test_a_touched_notice_counts_for_nothing(auditor: Auditor, sql: str, code: str | None) -> None:
    await auditor.play(Run(), Run(), Run())
    auditor.change(CLINIC, LOST)
    await state(auditor, gap())
    auditor.change(CLINIC, sql)
    exit_code, report = auditor.log()
    found = {each for _, each in codes(report)}
    assert exit_code == 1
    assert "audit.sequence_gap" in found
    assert code is None or code in found
    assert spoiled_notices(auditor), "and fsck sees it without any key"


async def test_another_domain_s_gap_statement_counts_for_nothing(auditor: Auditor) -> None:
    await auditor.play(Run(), Run(), Run())
    auditor.change(CLINIC, LOST)
    await state(auditor, gap(issuer=CLOUD))
    assert {each for _, each in codes(auditor.log()[1])} == {"audit.issuer", "audit.sequence_gap"}


async def test_a_withheld_receipt_is_accused_and_stands_until_it_is_shown(auditor: Auditor) -> None:
    first, second = Run(), Run()
    await auditor.play(first, second, acknowledged=True)
    assert first.executed is not None
    named = first.executed.digest.hex()
    await state(auditor, accusation(second, named=named))
    code, report = auditor.pair()
    assert (code, codes(report)) == (0, [(CLOUD, "audit.accusation_answered")])
    auditor.change(CLOUD, "DELETE FROM statement WHERE seq = 0")
    auditor.change(CLINIC, "DELETE FROM foreign_statement WHERE digest = ?", first.executed.digest)
    folder = auditor.folder / "proofs"
    code, report = auditor.pair("--proofs", str(folder))
    assert code == 1
    (stands,) = [each for each in report["findings"] if each["code"] == "audit.accusation_stands"]
    assert stands["domain"] == CLOUD
    keys = [auditor.federation.clinic.keys.receipt.public]
    said = read_notice((folder / stands["proof"]).read_bytes(), Accusation, keys).body
    assert check_accusation(said, [auditor.federation.cloud.keys.receipt.public]).seq == 1


FALSE: list[tuple[dict[str, Any], str]] = [
    ({"named": "1" * 64}, "accusation.number"),
    ({"number": 4}, "accusation.number"),
    ({"accused": "else.us"}, "accusation.parties"),
    ({"issuer": "else.us"}, "accusation.parties"),
    ({"federation": "other"}, "accusation.parties"),
    ({"shown": "{}"}, "envelope.malformed"),
]


@pytest.mark.parametrize(("changes", "code"), FALSE)
async def test_an_accusation_that_shows_something_else(
    auditor: Auditor, changes: dict[str, Any], code: str
) -> None:
    first, second = Run(), Run()
    await auditor.play(first, second)
    assert first.executed is not None
    body = accusation(second, **({"named": first.executed.digest.hex()} | changes))
    keys = [auditor.federation.cloud.keys.receipt.public]
    assert code_of(lambda: check_accusation(body, keys)) == code


async def test_an_accuser_cannot_sign_for_the_accused(auditor: Auditor) -> None:
    """The receipt shown must be under the accused's key; a promise by that key is no receipt."""
    first, second = Run(), Run()
    await auditor.play(first, second)
    assert second.executed is not None
    clinic, cloud = auditor.federation.clinic, auditor.federation.cloud
    forged = envelope.sign(
        envelope.STATEMENT, envelope.read(second.executed.envelope).payload, clinic.keys.receipt
    )
    body = accusation(second, shown=forged.decode())
    assert (
        code_of(lambda: check_accusation(body, [cloud.keys.receipt.public])) == "envelope.signature_invalid"
    )
    promised = accusation(second, shown=second.executed.promise.decode())
    keys = [cloud.keys.promise.public]
    assert code_of(lambda: check_accusation(promised, keys)) == "accusation.shown"


def test_notices_are_read_strictly() -> None:
    key = SigningKey.generate()
    signed = sign_notice(gap(), key)
    assert read_notice(signed.envelope, Gap, [key.public]).body == gap()
    assert code_of(lambda: read_notice(signed.envelope, Accusation, [key.public])) == "receipt.predicate_type"
    other = Domain.make(CLINIC).keys.receipt.public
    assert code_of(lambda: read_notice(signed.envelope, Gap, [other])) == "envelope.signature_invalid"
    backwards = sign_notice(gap(first=2, last=1), key)
    assert code_of(lambda: read_notice(backwards.envelope, Gap, [key.public])) == "notice.range"
    body = gap().write()
    payload = frame(GAP, "n", sha256(b"else").hex(), body)
    renamed = envelope.sign(envelope.STATEMENT, payload, key)
    assert code_of(lambda: read_notice(renamed, Gap, [key.public])) == "receipt.subject"


async def test_an_erasure_without_a_tombstone_is_told(auditor: Auditor) -> None:
    """Whoever blanks a receipt by hand has erased nothing by order."""
    await auditor.play(Run(), Run())
    auditor.change(CLINIC, "UPDATE statement SET envelope = x'' WHERE seq = 1")
    auditor.change(CLINIC, "UPDATE leaf SET salt = NULL WHERE idx = 1")
    assert codes(auditor.log()[1]) == [(CLINIC, "audit.no_tombstone")]


async def test_words_that_are_none_erase_nothing(auditor: Auditor) -> None:
    await auditor.play(Run())
    log = await auditor.federation.clinic.open(auditor.folder)
    with pytest.raises(ComityError, match=r"log\.erasure_words"):
        await log.erase(auditor.runs[0].request.id, reason="two words", authority="dpo", at=NOW)
    assert await log.tombstones(auditor.runs[0].request.id) == []
    await log.close()
