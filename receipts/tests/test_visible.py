"""A log that was written by the audited does not draw on the auditor's screen."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receipts.audit.commands import main as audit
from receipts.audit.tests.conftest import Auditor, auditor
from receipts.commands import render
from receipts.commands.log import main as log
from receipts.commands.visible import visible
from receipts.tests.world import CLINIC, CLOUD, Run

__all__ = ["auditor"]

WIPE = "\x1b[1A\x1b[2K\x9b2J\u202e\nThe log holds."
SHOWN = r"\x1b[1A\x1b[2K\x9b2J\u202e\nThe log holds."


@pytest.fixture
async def steered(auditor: Auditor) -> Auditor:
    """Names that SQLite lets stand in a log, and no Comity would write."""
    await auditor.play(Run())
    for table, column in (("statement", "receipt_id"), ("statement", "peer"), ("chain", "peer")):
        auditor.change(CLINIC, f"UPDATE {table} SET {column} = {column} || ?", WIPE)
    auditor.change(CLINIC, "UPDATE meta SET value = value || ? WHERE name = 'origin'", WIPE)
    return auditor


def holds_nothing_that_steers(text: str) -> None:
    assert SHOWN in text
    assert all(char.isprintable() or char == "\n" for char in text)
    assert "\nThe log holds.\n" not in text


async def test_fsck(steered: Auditor) -> None:
    assert log(["fsck", str(steered.database(CLINIC))]) == 1
    holds_nothing_that_steers(steered.capture.readouterr().out)


@pytest.mark.parametrize("form", ["whole", "pair"])
async def test_audit(steered: Auditor, form: str) -> None:
    steered.change(CLINIC, "UPDATE meta SET value = value || ? WHERE name = 'domain'", WIPE)
    named = [str(steered.database(each)) for each in (CLINIC, CLOUD)]
    more = ["--trust", str(steered.folder / "trust.toml"), "--papers", str(steered.folder / "papers")]
    assert audit([*(named[:1] if form == "whole" else ["--pair", *named]), *more]) == 1
    holds_nothing_that_steers(steered.capture.readouterr().out)


async def test_receipts(auditor: Auditor) -> None:
    clinic = await auditor.federation.clinic.open(auditor.folder)
    cloud = await auditor.federation.cloud.open(auditor.folder)
    report = auditor.federation.verify(await Run().play(clinic, cloud))
    await clinic.close()
    await cloud.close()
    first = report.receipts[0]
    claims = [replace(each, text=each.text + WIPE) for each in first.claims]
    named = replace(first, receipt_id=WIPE, claims=tuple(claims))
    out = io.StringIO()
    render.report(replace(report, receipts=(named,)), out)
    assert all(char.isprintable() or char == "\n" for char in out.getvalue())
    assert SHOWN in render.page(replace(report, receipts=(named,)))
    out = io.StringIO()
    render.stated({"origin": WIPE}, out)
    assert all(char.isprintable() or char == "\n" for char in out.getvalue())


@given(st.text())
def test_what_is_visible_says_which_characters_were_there(text: str) -> None:
    shown = visible(text)
    assert shown.isprintable()
    if "\\" not in text:
        assert shown.encode("latin-1", "backslashreplace").decode("unicode_escape") == text
