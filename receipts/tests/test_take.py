"""The folder that an auditor takes away, and the page that it gives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from receipts.audit.tests.conftest import Auditor, auditor
from receipts.bundle import Bundle
from receipts.commands.receipt import main
from receipts.commands.take import write_folder
from receipts.tests.world import CLINIC, NOW, Federation, Run
from schemas.errors import ConfigurationError, Refused
from schemas.primitives import format_time

__all__ = ["auditor"]


def export(auditor: Auditor, name: str, *more: str) -> int:
    papers = str(auditor.folder / "papers")
    code = main(["export", str(auditor.database(CLINIC)), name, "--papers", papers, *more])
    auditor.capture.readouterr()
    return code


async def test_one_command_makes_a_folder_that_verifies_by_itself(auditor: Auditor) -> None:
    await auditor.play(Run(), Run())
    folder = auditor.folder / "taken"
    trust = ["--trust", str(auditor.folder / "trust.toml")]
    assert export(auditor, auditor.runs[1].request.id, "--folder", str(folder), *trust) == 0
    names = {path.name for path in folder.iterdir()}
    assert names == {"request.receipt", "trust.toml", "expected.toml", "VERIFY.txt"}
    page = folder / "report.html"
    code = main(
        ["verify", str(folder / "request.receipt"), "--trust", str(folder / "trust.toml"),
         "--at", format_time(NOW), "--json", "--html", str(page)]
    )  # fmt: skip
    report = json.loads(auditor.capture.readouterr().out)
    assert (code, report["exit"]) == (0, 0)
    html = page.read_text()
    assert "holds" in html
    assert "SIMULATED" in html
    assert "<script" not in html
    with pytest.raises(ConfigurationError):
        export(auditor, auditor.runs[1].request.id, "--folder", str(folder), *trust)


async def test_a_bundle_alone(auditor: Auditor, tmp_path: Path) -> None:
    await auditor.play(Run())
    out = tmp_path / "one.receipt"
    placed = auditor.runs[0].placed
    assert placed is not None
    assert export(auditor, placed.receipt_id, "--out", str(out)) == 0
    assert auditor.federation.verify(out.read_bytes()).exit_code == 0
    with pytest.raises(Refused):
        export(auditor, "nobody", "--out", str(out))
    with pytest.raises(ConfigurationError):
        export(auditor, placed.receipt_id, "--folder", str(tmp_path / "x"))
    assert export(auditor, placed.receipt_id) == 2


@pytest.mark.parametrize("option", ["--policies", "--papers"])
@pytest.mark.parametrize("place", ["gone", "trust.toml", "round"])
async def test_a_folder_that_is_none_is_named(auditor: Auditor, option: str, place: str) -> None:
    """A misspelt folder of policies is not one without policies: what was asked for would be left out."""
    await auditor.play(Run())
    (auditor.folder / "round").symlink_to("round")
    wrong, out = str(auditor.folder / place), auditor.folder / "one.receipt"
    with pytest.raises(ConfigurationError, match="no such folder"):
        export(auditor, auditor.runs[0].request.id, "--out", str(out), option, wrong)
    assert not out.exists()
    code, report = auditor.log(CLINIC, "--policies", wrong)
    assert (code, report["error"]) == (2, f"{wrong}: no such folder")


async def test_of_two_charters_none_is_guessed(auditor: Auditor) -> None:
    """Which one a folder's order brings last is nothing that a verdict may rest on."""
    await auditor.play(Run())
    papers, out = auditor.folder / "papers", auditor.folder / "one.receipt"
    (papers / "again.json").write_bytes(auditor.federation.charter)
    request = auditor.runs[0].request.id
    assert export(auditor, request, "--out", str(out)) == 0
    out.unlink()
    (papers / "another.json").write_bytes(Federation.found().charter)
    with pytest.raises(ConfigurationError, match="2 charters"):
        export(auditor, request, "--out", str(out))
    assert not out.exists()
    code, report = auditor.log(CLINIC)
    assert (code, report["reason"]) == (2, "audit.papers")


@pytest.mark.parametrize("name", ["/etc/hostname", "../expected.toml"])
async def test_a_trust_file_takes_nothing_from_elsewhere_along(auditor: Auditor, name: str) -> None:
    await auditor.play(Run())
    text = auditor.federation.trust_toml.replace("expected.toml", name)
    trust = auditor.folder / "far.toml"
    trust.write_text(text)
    with pytest.raises(ConfigurationError, match="beside it"):
        export(
            auditor, auditor.runs[0].request.id, "--folder", str(auditor.folder / "y"), "--trust", str(trust)
        )


@pytest.mark.parametrize("name", ["request.receipt", "./trust.toml", "VERIFY.txt", "trust.toml/x.toml"])
async def test_what_is_taken_along_replaces_nothing_of_the_folder(auditor: Auditor, name: str) -> None:
    """Expectations that are called as the bundle would be taken away in its place."""
    await auditor.play(Run())
    trust, taken = auditor.folder / "mine.toml", auditor.folder / "taken"
    trust.write_text(auditor.federation.trust_toml.replace("expected.toml", name))
    with pytest.raises(ConfigurationError, match="rename yours"):
        export(auditor, auditor.runs[0].request.id, "--folder", str(taken), "--trust", str(trust))
    assert not taken.exists()


async def test_no_folder_is_left_half_full(auditor: Auditor) -> None:
    await auditor.play(Run())
    taken, named = auditor.folder / "taken", {"expected.toml": b"", "expected.toml/more": b""}
    with pytest.raises(ConfigurationError, match=r"take\.folder"):
        write_folder(taken, Bundle({}), b"", named)
    assert not taken.exists()


@pytest.mark.parametrize("over", ["one.receipt", "trust.toml", "again"])
async def test_a_report_is_not_written_over_what_it_is_about(auditor: Auditor, over: str) -> None:
    await auditor.play(Run())
    taken, trust = auditor.folder / "one.receipt", auditor.folder / "trust.toml"
    assert export(auditor, auditor.runs[0].request.id, "--out", str(taken)) == 0
    (auditor.folder / "again").symlink_to(taken)
    before = taken.read_bytes(), trust.read_bytes()
    with pytest.raises(ConfigurationError, match="write elsewhere"):
        main(["verify", str(taken), "--trust", str(trust), "--html", str(auditor.folder / over)])
    assert (taken.read_bytes(), trust.read_bytes()) == before
