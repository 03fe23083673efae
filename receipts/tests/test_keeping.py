"""`comity log admit | accuse | convict | erase | expire`: what a domain does to its own log, by command."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from receipts.audit.tests.conftest import Auditor, auditor, codes
from receipts.commands.keeping import Opener
from receipts.commands.log import main
from receipts.log import TransparencyLog
from receipts.retention import retention
from receipts.statements.fields import Retention
from receipts.statements.notice import Accusation, Gap, check_accusation, read_notice
from receipts.tests.conftest import federation
from receipts.tests.world import CLINIC, CLOUD, Run
from schemas.errors import ComityError, ConfigurationError

__all__ = ["auditor", "federation"]

YEARS_AGO = datetime.now(UTC) - timedelta(days=7 * 366)
HELD = Retention(class_="none", not_before="2020-01-01T00:00:00Z", hold=True)


def opener(auditor: Auditor) -> Opener:
    """Opens clinic.de's log, whatever the settings."""

    @asynccontextmanager
    async def opened(_: Path) -> AsyncIterator[TransparencyLog]:
        log = await auditor.federation.clinic.open(auditor.folder, lambda: datetime.now(UTC))
        try:
            yield log
        finally:
            await log.close()

    return opened


async def run(auditor: Auditor, *arguments: str) -> dict[str, Any]:
    """What the command prints; it runs in a loop of its own, hence in a thread."""

    def call() -> int:
        return main([*arguments, "--config", "broker.toml"], opener=opener(auditor))

    assert await asyncio.to_thread(call) == 0
    printed: dict[str, Any] = json.loads(auditor.capture.readouterr().out)
    return printed


async def test_a_loss_is_admitted(auditor: Auditor, tmp_path: Path) -> None:
    await auditor.play(Run(), Run(), Run())
    auditor.change(CLINIC, "DELETE FROM statement WHERE seq = 1")
    out = tmp_path / "gap.json"
    words = ("--peer", CLOUD, "--first", "1", "--last", "1", "--reason", "disk-lost", "--out", str(out))
    assert (await run(auditor, "admit", *words))["stated"] == "gap"
    assert codes(auditor.log()[1]) == [(CLINIC, "audit.gap_admitted")]
    assert read_notice(out.read_bytes(), Gap, [auditor.federation.clinic.keys.receipt.public]).body.last == 1


async def test_a_withheld_receipt_is_accused(auditor: Auditor, tmp_path: Path) -> None:
    first, second = Run(), Run()
    await auditor.play(first, second, acknowledged=True)
    out = tmp_path / "accusation.json"
    await run(auditor, "accuse", "--peer", CLOUD, "--number", "0", "--out", str(out))
    body = read_notice(out.read_bytes(), Accusation, [auditor.federation.clinic.keys.receipt.public]).body
    assert first.executed is not None
    assert body.named == first.executed.digest.hex()
    assert check_accusation(body, [auditor.federation.cloud.keys.receipt.public]).seq == 1
    assert codes(auditor.pair()[1]) == [(CLOUD, "audit.accusation_answered")]
    with pytest.raises(ComityError, match=r"log\.no_copy"):
        await run(auditor, "accuse", "--peer", CLOUD, "--number", "7")


async def test_a_request_is_erased_by_order(auditor: Auditor) -> None:
    await auditor.play(Run(), Run())
    request = auditor.runs[0].request.id
    words = ("--request", request, "--reason", "gdpr-17", "--authority", "dpo")
    assert await run(auditor, "erase", *words) == {"erased": [request]}
    code, report = auditor.log()
    assert (code, report["counts"]["erased"], report["counts"]["notices"]["tombstones"]) == (0, 1, 1)


async def test_what_need_not_be_kept_any_longer_goes(auditor: Auditor) -> None:
    """Over: its class's time. Not over, held, or without a class: they stay."""
    over, young = retention(["hipaa"], YEARS_AGO), retention(["hipaa"], datetime.now(UTC))
    runs = [Run(placement={"retention": each}) for each in (over, young, HELD, None)]
    await auditor.play(*runs)
    wanted = [runs[0].request.id]
    assert await run(auditor, "expire", "--dry-run") == {"due": wanted}
    assert auditor.log()[1]["counts"]["erased"] == 0, "a dry run erases nothing"
    assert await run(auditor, "expire") == {"erased": wanted}
    assert await run(auditor, "expire") == {"erased": []}
    code, report = auditor.log()
    assert (code, report["counts"]["erased"]) == (0, 1)


@pytest.mark.parametrize(
    "words",
    [
        ("admit", "--peer", CLOUD, "--first", "2", "--last", "1", "--reason", "r"),
        ("admit", "--peer", "No Domain", "--first", "1", "--last", "1", "--reason", "r"),
        ("admit", "--peer", CLOUD, "--first", "1", "--last", "1", "--reason", "two words"),
        ("erase", "--request", "unknown", "--reason", "r", "--authority", "a"),
    ],
)
async def test_a_mistake_changes_nothing(auditor: Auditor, words: tuple[str, ...]) -> None:
    await auditor.play(Run())
    with pytest.raises(ComityError):
        await run(auditor, *words)
    assert auditor.log()[1]["counts"]["notices"] == {
        "tombstones": 0,
        "gaps": 0,
        "accusations": 0,
        "convictions": 0,
    }


def test_without_the_broker_s_keys_nothing_is_written() -> None:
    with pytest.raises(ConfigurationError, match=r"log\.opener"):
        main(["expire", "--config", "broker.toml"])
