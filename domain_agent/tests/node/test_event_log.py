"""Firmware's event log goes along with a trust domain's quote, as long as it is and no longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from attestation.tdx.log.ccel import read_ccel
from attestation.tdx.log.tests.logs import ccel, record
from domain_agent.node.config import Tee
from domain_agent.node.proving.event_log import KEPT_FILL_BYTES, MAX_LOG_BYTES, read_firmware_log
from domain_agent.node.start import event_log_reader
from domain_agent.tests.node.proving import evidence_of
from schemas.errors import ConfigurationError, Undecided
from schemas.proof.evidence import CpuEvidence, NodeEvidence

AREA = 64 * 1024
RECORDS = (record(1, 0x80000001, b"kernel"), record(2, 0x80000001, b"\xff" * 40))


def area(tmp_path: Path, fill: bytes, size: int = AREA) -> Path:
    """What ACPI shows: the log at the start of an area of fixed size."""
    file = tmp_path / "CCEL"
    file.write_bytes(ccel(*RECORDS, fill=b"").ljust(size, fill))
    return file


@pytest.mark.parametrize("fill", [b"\xff", b"\0"])
def test_the_log_is_read_without_its_fill(fill: bytes, tmp_path: Path) -> None:
    log = read_firmware_log(area(tmp_path, fill))
    assert len(log) < 2 * KEPT_FILL_BYTES + 600
    assert read_ccel(log) == read_ccel(ccel(*RECORDS))


def test_a_log_that_fills_its_area_is_read_whole(tmp_path: Path) -> None:
    log = ccel(*RECORDS, fill=b"")
    assert read_firmware_log(area(tmp_path, b"\0", 0)) == log


def test_a_machine_without_a_log_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="event_log"):
        read_firmware_log(tmp_path / "none")


@pytest.mark.parametrize("data", [b"", b"log" * MAX_LOG_BYTES])
def test_nothing_and_too_much_are_not_sent(data: bytes, tmp_path: Path) -> None:
    file = tmp_path / "CCEL"
    file.write_bytes(data)
    with pytest.raises(Undecided, match="event_log"):
        read_firmware_log(file)


@pytest.mark.parametrize(("tee", "sent"), [("tdx", b"the log"), ("snp", None)])
async def test_it_goes_along_with_a_trust_domains_quote(tee: str, sent: bytes | None) -> None:
    evidence = await evidence_of(
        lambda _: CpuEvidence.model_validate({"tee": tee, "report": b"quote", "endorsements": []}),
        event_log=lambda: b"the log",
    )
    assert evidence.event_log == sent
    assert NodeEvidence.read(evidence.write()).event_log == sent


def test_it_is_asked_for_in_the_nodes_settings() -> None:
    assert event_log_reader(Tee("configfs-tsm", None, None)) is None
    assert event_log_reader(Tee("configfs-tsm", None, None, event_log=True)) is read_firmware_log
