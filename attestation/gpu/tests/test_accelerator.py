"""A node with simulated hardware, from the folders that its program loads to our own verdict."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path

import pytest

from attestation.appraise import appraise_nvidia
from attestation.expected import Expectations
from attestation.gpu.forms import Devices
from attestation.gpu.node.devices import DeviceInput
from attestation.result import AttestationResult
from attestation.testing.accelerator import SimulatedAccelerators, SimulatedBoard
from schemas.errors import ConfigurationError
from schemas.proof.evidence import DeviceEvidence

MADE = datetime(2027, 5, 4, tzinfo=UTC)
NONCE = bytes(range(32))


@lru_cache
def maker() -> SimulatedAccelerators:
    return SimulatedAccelerators.create(at=MADE, days=30)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two GPUs of one node."""
    for name in ("0", "1"):
        maker().make_gpu().save(tmp_path / name)
    return tmp_path


def judged(found: list[DeviceEvidence], at: datetime = MADE, nonce: bytes = NONCE) -> AttestationResult:
    roots = "".join(
        f'[[nvidia.simulated_root]]\nname = "demo"\nanchor = "{anchor}"\nspki_sha256 = "{digest}"\n'
        for anchor, digest in maker().roots.items()
    )
    keys = ("driver_min", "vbios", "modes")
    text = "\n".join(["[nvidia]", *(f'{key} = "any"' for key in keys), roots])
    inputs = tuple(
        DeviceInput(each.report, tuple(each.endorsements), each.kind, each.state) for each in found
    )
    expectations = Expectations.parse(text.encode())
    return appraise_nvidia(Devices(inputs, together=True), expectations=expectations, nonce=nonce, at=at)


def test_what_was_saved_reports_and_verifies_as_simulated(folder: Path) -> None:
    found = SimulatedBoard.load(folder)(NONCE)
    assert len(found) == 2
    result = judged(found)
    assert (result.verdict, result.simulated) == ("affirming", True)
    assert result.platform == "simulated-nvidia-gh100"
    ueids = [int(gpu.ueid) for gpu in SimulatedBoard.load(folder).gpus]
    assert len(set(ueids)) == 2


@pytest.mark.parametrize(
    ("days", "verdict"),
    [(-1, "contraindicated"), (0, "affirming"), (29, "affirming"), (31, "contraindicated")],
)
def test_its_collateral_serves_for_as_long_as_was_said(folder: Path, days: int, verdict: str) -> None:
    assert judged(SimulatedBoard.load(folder)(NONCE), MADE + timedelta(days=days)).verdict == verdict


def test_another_challenge_is_not_answered(folder: Path) -> None:
    result = judged(SimulatedBoard.load(folder)(bytes(32)))
    assert (result.verdict, result.reason) == ("contraindicated", "gpu.nonce_mismatch")


def test_a_folder_without_a_device_says_so(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"simulated\.gpu"):
        SimulatedBoard.load(tmp_path / "none")
    (folder / "0" / "chain.pem").unlink()
    with pytest.raises(ConfigurationError, match=r"simulated\.file"):
        SimulatedBoard.load(folder)
    shutil.rmtree(folder / "0")
    (folder / "1" / "device.json").write_bytes(b"{}")
    with pytest.raises(ConfigurationError, match=r"simulated\.gpu"):
        SimulatedBoard.load(folder)
