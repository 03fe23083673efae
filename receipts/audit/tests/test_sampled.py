"""A sample of a log: drawn by a later cosigned root, each leaf under it, and how much it shows."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from fractions import Fraction
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from receipts.audit.commands import main
from receipts.audit.sampled import Seed, confidence
from receipts.checkpoint import Checkpoint, SignedCheckpoint
from receipts.log import Draft
from receipts.note import Note
from receipts.statements.notice import Gap
from receipts.tests.test_witnessed import Circle, found
from receipts.tests.world import CLINIC, FEDERATION, NOW, Federation, placement
from schemas.primitives import format_time

RECEIPTS = 600  # over two full tiles, and the edge of a third


@pytest.fixture(scope="module")
def federation() -> Federation:
    return found()


async def play(circle: Circle, *, signers: int = 3, later: int = 5) -> Path:
    """Many receipts and a notice; then a checkpoint, some more, and one that others cosign."""
    log = await circle.clinic.open(circle.folder)
    await log.state(Gap(federation=FEDERATION, issuer=CLINIC, peer="else.us", first=0, last=0, reason="lost",
                        time=format_time(NOW)))  # fmt: skip
    await log.issue([Draft(placement()) for _ in range(RECEIPTS)])
    await log.checkpoint()
    await log.issue([Draft(placement()) for _ in range(later)])
    await circle.cosign(log, circle.signers(circle.clinic)[:signers])
    await log.close()
    return circle.folder / f"{CLINIC}.db"


def audited(
    circle: Circle, capsys: pytest.CaptureFixture[str], *more: str, quorum: str = "2"
) -> tuple[int, dict[str, Any]]:
    papers = circle.folder / "papers"
    papers.mkdir(exist_ok=True)
    for name, data in circle.clinic.documents.manifests.items():
        (papers / f"{name}.json").write_bytes(data)
    (papers / "charter.json").write_bytes(circle.federation.charter)
    text = circle.federation.trust_toml.replace('"expected.toml"', '"any"')
    (circle.folder / "trust.toml").write_text(text.replace('quorum = "none"', f"quorum = {quorum}"))
    named = ["--trust", str(circle.folder / "trust.toml"), "--papers", str(papers)]
    code = main(
        [str(circle.folder / f"{CLINIC}.db"), *named, "--at", "2026-06-01T14:00:00Z", "--json", *more]
    )
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    return code, report


@pytest.fixture
def circle(federation: Federation, tmp_path: Path) -> Circle:
    return Circle(federation, tmp_path)


async def test_an_honest_log_s_sample(circle: Circle, capsys: pytest.CaptureFixture[str]) -> None:
    await play(circle)
    code, report = audited(circle, capsys, "--sample", "200", "--defects", "10")
    assert (code, report["findings"]) == (0, [])
    counts = report["counts"]
    assert (counts["leaves"], counts["sample"]) == (RECEIPTS + 1, 200)
    assert counts["seed"] == "root at 606, cosigned by cloud.fr, desk.it, forum.es"
    assert counts["confidence"] == "98.31 % sure that fewer than 10 of 601 leaves are defective"
    again = audited(circle, capsys, "--sample", "200", "--defects", "10")
    assert again[1]["counts"] == counts, "anybody draws the same"


async def test_a_sample_of_everything_is_certain(circle: Circle, capsys: pytest.CaptureFixture[str]) -> None:
    await play(circle)
    code, report = audited(circle, capsys, "--sample", "100000", "--defects", "1")
    assert (code, report["counts"]["sample"]) == (0, RECEIPTS + 1)
    assert report["counts"]["kinds"] == {"notice": 1, "placement": RECEIPTS}
    assert report["counts"]["confidence"].startswith("100.00 % sure")


LIES: dict[str, tuple[str, str]] = {
    "receipt": ("UPDATE statement SET envelope ="
                " CAST(substr(envelope, 1, 40) || '?' || substr(envelope, 42) AS BLOB)",
                "envelope.signature_invalid"),
    "leaf": ("UPDATE leaf SET record = randomblob(66) WHERE idx > 0", "merkle.inclusion"),
    "salt": ("UPDATE leaf SET salt = zeroblob(32) WHERE idx > 0", "audit.leaf"),
    "leaf-gone": ("DELETE FROM leaf WHERE idx > 0", "audit.leaf"),
    "receipt-gone": ("DELETE FROM statement", "audit.leaf_of_nothing"),
    "kind": ("UPDATE statement SET kind = 9223372036854775807", "audit.kind"),
    "erased": ("UPDATE statement SET envelope = x''", "audit.no_tombstone"),
    "tile": ("UPDATE tile SET hashes = zeroblob(8192)", "merkle.inclusion"),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
async def test_what_is_wrong_everywhere_is_found(
    circle: Circle, capsys: pytest.CaptureFixture[str], lie: str
) -> None:
    sql, code = LIES[lie]
    path = await play(circle)
    with closing(sqlite3.connect(path)) as connection, connection:
        assert connection.execute(sql).rowcount > 0
    exit_code, report = audited(circle, capsys, "--sample", "20")
    assert exit_code == 1
    assert code in {each["code"] for each in report["findings"]}
    assert report["counts"]["confidence"] == "none: the sample itself has defects"


@pytest.mark.parametrize(
    ("signers", "quorum", "later"), [(0, "2", 5), (1, "2", 5), (0, '"none"', 5), (3, "2", 0)]
)
async def test_without_a_later_cosigned_root_nobody_draws(
    circle: Circle, capsys: pytest.CaptureFixture[str], signers: int, quorum: str, later: int
) -> None:
    """No cosignature, too few for the quorum, none where none is demanded, or no root before it."""
    await play(circle, signers=signers, later=later)
    if not later:
        with closing(sqlite3.connect(circle.folder / f"{CLINIC}.db")) as connection, connection:
            connection.execute("DELETE FROM checkpoint WHERE size < (SELECT max(size) FROM checkpoint)")
    code, report = audited(circle, capsys, "--sample", "20", quorum=quorum)
    assert (code, report["reason"]) == (3, "audit.no_seed")


async def test_where_no_quorum_is_demanded_one_other_is_enough(
    circle: Circle, capsys: pytest.CaptureFixture[str]
) -> None:
    await play(circle, signers=1)
    assert audited(circle, capsys, "--sample", "20", quorum='"none"')[0] == 0


async def test_a_root_that_the_log_did_not_sign_draws_nothing(
    circle: Circle, capsys: pytest.CaptureFixture[str]
) -> None:
    path = await play(circle)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE checkpoint SET note = CAST(replace(note, '606', '605') AS BLOB)")
    code, report = audited(circle, capsys, "--sample", "20")
    assert (code, report["reason"]) == (1, "note.signature_invalid")


@pytest.mark.parametrize(
    "words",
    [("--sample", "0"), ("--sample", "100001"), ("--defects", "1"), ("--sample", "1", "--defects", "0"),
     ("--sample", "1", "--policies", ".")],
)  # fmt: skip
async def test_a_sample_is_asked_for_in_numbers_that_mean_something(
    circle: Circle, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    code = main(["log.db", "--trust", "t", "--papers", "p", *words])
    assert code == 2
    capsys.readouterr()


def test_the_confidence_is_what_counting_gives() -> None:
    for population, sample, defects in [(7, 3, 2), (6, 6, 1), (6, 0, 3), (5, 2, 5), (8, 4, 9)]:
        leaves = range(population)
        bad = set(range(min(defects, population)))
        draws = list(combinations(leaves, sample))
        hits = sum(bool(bad & set(each)) for each in draws)
        assert confidence(population, sample, defects) == Fraction(hits, len(draws))


def test_another_root_draws_others() -> None:
    def drawn(root: bytes) -> list[int]:
        return Seed(SignedCheckpoint(Checkpoint("a/log", 2000, root), Note("", ())), 1000, ()).draw(20)

    first, second = drawn(bytes(32)), drawn(b"\1" * 32)
    assert first == sorted(set(first))
    assert all(0 <= each < 1000 for each in first)
    assert first != second
