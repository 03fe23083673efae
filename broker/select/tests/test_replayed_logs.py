"""Every decision of a whole log made again by `comity audit LOG --policies FOLDER`."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import Any, TypeAlias

import pytest

from broker.select.replayed import SELECTION
from broker.select.tests.deciding import RANKING, TEXTS, Case
from receipts.audit.commands import main as audit
from receipts.tests.world import CLINIC, CLOUD
from schemas.canonical import sha256

Printed: TypeAlias = pytest.CaptureFixture[str]


def audited(
    case: Case, of: str, capsys: pytest.CaptureFixture[str], *more: str
) -> tuple[int, dict[str, Any]]:
    """`comity audit LOG` over what `judged` left on disk."""
    folder, federation = case.folder / "auditor", case.federation
    for name in ("papers", "policies"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name, data in federation.clinic.documents.manifests.items():
        (folder / "papers" / f"{name}.json").write_bytes(data)
    (folder / "papers" / "charter.json").write_bytes(federation.charter)
    (folder / "trust.toml").write_text(federation.trust_toml.replace('"expected.toml"', '"any"'))
    for digest, text in TEXTS.items():
        (folder / "policies" / f"{digest[:8]}.cedar").write_bytes(text)
    log, papers = str(case.folder / f"{of}.db"), str(folder / "papers")
    named = ["--trust", str(folder / "trust.toml"), "--papers", papers, "--at", "2026-06-01T14:00:00Z"]
    code = audit([log, *named, "--json", *more], selection=SELECTION)
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    return code, report


def with_policies(case: Case) -> tuple[str, str]:
    return "--policies", str(case.folder / "auditor" / "policies")


async def test_a_whole_log_is_decided_again_on_request(
    case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    await case.judged()
    assert "policy replay" not in audited(case, CLINIC, capsys)[1]["counts"]
    code, report = audited(case, CLINIC, capsys, *with_policies(case))
    assert (code, report["findings"]) == (0, [])
    assert report["counts"]["policy replay"] == {"again": 1}
    assert report["counts"]["ranking replay"] == {"again, best": 1}
    code, report = audited(case, CLOUD, capsys, *with_policies(case))
    assert (code, report["counts"]["policy replay"]) == (0, {"again": 1})


async def test_lies_in_a_log_are_findings(case: Case, capsys: Printed) -> None:
    case.sign("policy", obligations=["log"])
    case.sign("objective", score="1.5")
    case.execution["policy"] = case.execution["policy"].model_copy(update={"errors": ["none"]})
    await case.judged()
    assert audited(case, CLINIC, capsys)[0] == 0, "signed, logged and in sequence all the same"
    code, report = audited(case, CLINIC, capsys, *with_policies(case))
    assert (code, [each["code"] for each in report["findings"]]) == (
        1, ["verify.policy_replay", "verify.score"],
    )  # fmt: skip
    code, report = audited(case, CLOUD, capsys, *with_policies(case))
    assert (code, [each["code"] for each in report["findings"]]) == (1, ["verify.policy_replay"])


async def test_what_cannot_be_decided_again_is_counted(
    case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the record, or with another one under its name, nothing is shown; nothing is wrong either."""
    await case.judged()
    with closing(sqlite3.connect(case.folder / f"{CLINIC}.db")) as connection, connection:
        connection.execute("UPDATE blob SET data = x'7b7d' WHERE digest = ?", (sha256(case.consumer.record),))
        connection.execute("DELETE FROM blob WHERE digest = ?", (sha256(RANKING.write()),))
    code, report = audited(case, CLINIC, capsys, *with_policies(case))
    assert (code, report["counts"]["policy replay"]) == (0, {"verify.record_absent": 1})
    assert report["counts"]["ranking replay"] == {"verify.inputs_absent": 1}
