"""Two domains' logs on disk, with what an auditor holds."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from receipts.audit.commands import main
from receipts.log import Draft
from receipts.tests.conftest import federation
from receipts.tests.world import CLINIC, CLOUD, Federation, Run, acknowledgement, expected_toml

__all__ = ["federation"]


@dataclass
class Auditor:
    """A folder with logs, papers and a trust file; and the command line over it."""

    federation: Federation
    folder: Path
    capture: pytest.CaptureFixture[str]
    runs: list[Run] = field(default_factory=list)

    def __post_init__(self) -> None:
        papers = self.folder / "papers"
        papers.mkdir()
        for name, data in self.federation.clinic.documents.manifests.items():
            (papers / f"{name}.json").write_bytes(data)
        (papers / "charter.json").write_bytes(self.federation.charter)
        (papers / "noise.json").write_bytes(b"{}")
        (self.folder / "expected.toml").write_text(expected_toml())
        (self.folder / "trust.toml").write_text(self.federation.trust_toml)

    def database(self, domain: str) -> Path:
        return self.folder / f"{domain}.db"

    async def play(self, *runs: Run, acknowledged: bool = False) -> None:
        """Requests from clinic.de to cloud.fr, written to both logs."""
        clinic = await self.federation.clinic.open(self.folder)
        cloud = await self.federation.cloud.open(self.folder)
        for run in runs:
            await run.play(clinic, cloud)
            if acknowledged:
                await clinic.issue([Draft(acknowledgement(request=run.request, links=run.both))])
            self.runs.append(run)
        await clinic.close()
        await cloud.close()

    def change(self, domain: str, sql: str, *values: Any) -> None:
        """What somebody with the disk can do."""
        with closing(sqlite3.connect(self.database(domain))) as connection, connection:
            assert connection.execute(sql, values).rowcount > 0

    def remove(self, name: str) -> None:
        (self.folder / name).unlink(missing_ok=True)

    def run(self, *arguments: str, at: str = "2026-06-01T14:00:00Z") -> tuple[int, dict[str, Any]]:
        """(exit code, JSON report) of `comity audit …`."""
        trust, papers = str(self.folder / "trust.toml"), str(self.folder / "papers")
        code = main([*arguments, "--trust", trust, "--papers", papers, "--at", at, "--json"])
        report: dict[str, Any] = json.loads(self.capture.readouterr().out)
        assert report["exit"] == code
        return code, report

    def log(self, domain: str = CLINIC, *more: str) -> tuple[int, dict[str, Any]]:
        return self.run(str(self.database(domain)), *more)

    def pair(self, *more: str, at: str = "2026-06-01T14:00:00Z") -> tuple[int, dict[str, Any]]:
        return self.run("--pair", str(self.database(CLINIC)), str(self.database(CLOUD)), *more, at=at)


@pytest.fixture
def auditor(federation: Federation, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Auditor:
    return Auditor(federation, tmp_path, capsys)


def codes(report: dict[str, Any]) -> list[tuple[str, str]]:
    """(domain, code) of each finding."""
    return [(each["domain"], each["code"]) for each in report["findings"]]
