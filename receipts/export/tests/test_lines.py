"""A log as lines: complete, in order, verifiable from the line alone, and harmless in a spreadsheet."""

from __future__ import annotations

import base64
import csv
import io
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from receipts import leaf, spreadsheet
from receipts.commands.log import main
from receipts.export.lines import COLUMNS
from receipts.log import Draft
from receipts.merkle import leaf_hash, root
from receipts.statements.fields import Price, RequestRef
from receipts.statements.notice import Gap
from receipts.tests.world import (
    CLINIC,
    CLOUD,
    FEDERATION,
    NOW,
    Federation,
    acknowledgement,
    digest,
    execution,
    placement,
)
from schemas import envelope
from schemas.errors import ComityError
from schemas.primitives import format_time

ORDERED = RequestRef(id="to-be-erased", commitment=digest())


@pytest.fixture
async def database(tmp_path: Path) -> Path:
    """Every kind of leaf: receipts of all three kinds, a gap, an erased receipt and its tombstone."""
    federation = Federation.found()
    log = await federation.clinic.open(tmp_path)
    price = Price(micro=42, currency="EUR")
    await log.issue(
        [Draft(placement()), Draft(execution(CLOUD, price=price)), Draft(placement(request=ORDERED))]
    )
    await log.state(Gap(federation=FEDERATION, issuer=CLINIC, peer="else.us", first=0, last=0, reason="lost",
                        time=format_time(NOW)))  # fmt: skip
    await log.erase("to-be-erased", reason="gdpr-17", authority="dpo", at=NOW)
    await log.issue([Draft(acknowledgement())])
    await log.close()
    (tmp_path / "keys").write_text(federation.clinic.keys.receipt.thumbprint)
    return tmp_path / f"{CLINIC}.db"


def exported(database: Path, capsysbinary: pytest.CaptureFixture[bytes], *more: str) -> bytes:
    assert main(["export", str(database), *more]) == 0
    return capsysbinary.readouterr().out


async def test_what_was_said_last_is_the_last_line(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    log = await Federation.found().clinic.open(tmp_path)
    await log.issue([Draft(placement(request=ORDERED))])
    await log.erase("to-be-erased", reason="gdpr-17", authority="dpo", at=NOW)
    await log.close()
    lines = exported(tmp_path / f"{CLINIC}.db", capsysbinary).splitlines()
    assert [json.loads(each)["kind"] for each in lines] == ["placement", "tombstone"]


async def test_every_leaf_is_a_line_that_proves_itself(
    database: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    lines: list[dict[str, Any]] = [json.loads(each) for each in exported(database, capsysbinary).splitlines()]
    kinds = ["placement", "execution", "placement", "gap", "tombstone", "acknowledgement"]
    assert [(each["index"], each["kind"]) for each in lines] == list(enumerate(kinds))
    assert [each["envelope"] is None for each in lines] == [False, False, True, False, False, False]
    thumbprint = (database.parent / "keys").read_text()
    for each in lines:
        if each["envelope"] is None:
            assert (each["salt"], each["statement"]) == (None, None)
            continue
        read = envelope.read(each["envelope"].encode())
        assert read.digest.hex() == each["digest"]
        assert json.loads(read.payload) == each["statement"]
        made = leaf.make(
            leaf.Kind[each["kind"].upper()], bytes.fromhex(each["salt"]), read.digest, thumbprint
        )
        assert made.write().hex() == each["record"]
    stated = root([leaf_hash(bytes.fromhex(each["record"])) for each in lines])
    with closing(sqlite3.connect(database)) as connection:
        (note,) = connection.execute("SELECT note FROM checkpoint ORDER BY size DESC LIMIT 1").fetchone()
    assert base64.b64encode(stated) in note


async def test_figures_for_a_spreadsheet(
    database: Path, capsysbinary: pytest.CaptureFixture[bytes], tmp_path: Path
) -> None:
    out = tmp_path / "figures.csv"
    exported(database, capsysbinary, "--format", "csv", "--out", str(out))
    rows = list(csv.DictReader(io.StringIO(out.read_text())))
    assert tuple(rows[0]) == COLUMNS
    assert [(row["kind"], row["outcome"]) for row in rows] == [
        ("placement", "allow"), ("execution", "ok"), ("placement", "erased"), ("acknowledgement", "agreed"),
    ]  # fmt: skip
    ran = rows[1]
    assert (ran["priceMicro"], ran["currency"], ran["inputTokens"], ran["outputTokens"]) == (
        "42",
        "EUR",
        "12",
        "34",
    )
    assert rows[3]["outputTokens"] == "34"
    assert rows[2]["request"] == ""


async def test_a_cell_runs_nothing(database: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE statement SET peer = '=1+1', receipt_id = '@x' WHERE idx = 0")
    text = exported(database, capsysbinary, "--format", "csv").decode()
    first = next(csv.DictReader(io.StringIO(text)))
    assert (first["peer"], first["receiptId"]) == ("'=1+1", "'@x")


@pytest.mark.parametrize("begin", "=+-@＝＋－＠\t\r\n")  # what makes a formula, wide ones too
def test_a_formula_is_shown_however_it_begins(begin: str) -> None:
    assert rows_of(spreadsheet.line([f"{begin}1", "x"])) == [[f"'{begin}1", "x"]]


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
def test_a_cell_begins_no_line_of_its_own(end: str) -> None:
    """A spreadsheet ends a row at a bare carriage return: what follows would be its first cell."""
    assert rows_of(spreadsheet.line([f"x{end}=1+1", "y"])) == [[f"x{end}=1+1", "y"]]


def rows_of(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


@pytest.mark.parametrize("form", ["jsonl", "csv"])
@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("UPDATE statement SET envelope = x'ff'", "json|envelope"),
        ("UPDATE statement SET envelope = CAST('no envelope' AS BLOB)", "json"),
        ("UPDATE statement SET kind = 99", r"leaf\.kind"),
        ("UPDATE statement SET seq = 'x'", r"log\.damaged"),
    ],
)
async def test_a_damaged_log_is_one_clear_error(database: Path, form: str, sql: str, code: str) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(sql)
    with pytest.raises(ComityError, match=code):
        main(["export", str(database), "--format", form])


def test_what_is_no_log_is_said(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(b"no database")
    with pytest.raises(ComityError):
        main(["export", str(tmp_path / "x.db")])
