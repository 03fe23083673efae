"""An id that begins with a dash is an id."""

from __future__ import annotations

from pathlib import Path

import pytest

from receipts.audit.tests.conftest import Auditor, auditor
from receipts.commands import log as log_command
from receipts.commands.ids import told_apart
from receipts.commands.receipt import main
from receipts.tests.conftest import federation
from receipts.tests.world import CLINIC, Run
from schemas.errors import ConfigurationError, Refused

__all__ = ["auditor", "federation"]

SHORT, LONG = "-" + "a" * 21, "-_" + "b" * 41


@pytest.mark.parametrize(
    ("argv", "wanted"),
    [
        (["export", "log", "id", "--out", "x"], ["export", "log", "id", "--out", "x"]),
        (["export", "log", SHORT, "--out", "x"], ["export", "log", "--out", "x", "--", SHORT]),
        (["export", "--out", "x", "--", "log", LONG], ["export", "--out", "x", "--", "log", LONG]),
        (["erase", "--request", LONG, "--reason", "r"], ["erase", f"--request={LONG}", "--reason", "r"]),
        (["verify", "--json", "-h"], ["verify", "--json", "-h"]),
    ],
)
def test_words_stay_what_they_are(argv: list[str], wanted: list[str]) -> None:
    assert told_apart(argv) == wanted


@pytest.mark.parametrize("name", [SHORT, LONG])
async def test_it_is_looked_up(auditor: Auditor, tmp_path: Path, name: str) -> None:
    await auditor.play(Run())
    words = ["--papers", str(auditor.folder / "papers"), "--out", str(tmp_path / "x")]
    with pytest.raises(Refused, match=rf"no receipt or request {name}"):
        main(["export", str(auditor.database(CLINIC)), name, *words])
    with pytest.raises(ConfigurationError, match=r"log\.opener"):  # past the parser: no usage error
        log_command.main(["erase", "--config", "f", "--request", name, "--reason", "r", "--authority", "a"])
