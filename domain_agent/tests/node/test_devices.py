"""GPU evidence through a driver that is played: what it gives, and how plainly it says what it cannot."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from attestation.appraise import appraise_nvidia
from attestation.expected import Expectations
from attestation.gpu.forms import Devices
from attestation.gpu.node.binding import OWN_MODE, binding_of
from attestation.gpu.node.devices import DeviceInput
from attestation.gpu.spdm.report import read_report
from attestation.gpu.tests.judging import manifests_of
from attestation.testing.accelerator import SimulatedAccelerators
from attestation.testing.nvidia import NOW, GpuForge, root_toml
from attestation.testing.nvidia_manifest import manifests_for
from attestation.testing.nvidia_node import VBIOS, BoardForge, board_manifests
from attestation.testing.nvidia_status import answers
from domain_agent.node import config as node_config
from domain_agent.node.proving.devices import NvmlCollector, simulated_board
from domain_agent.node.start import device_collector
from domain_agent.tests.founding import Founded
from domain_agent.tests.node.proving import chip_of, evidence_of
from schemas.errors import ComityError, ConfigurationError, Undecided
from schemas.proof.binding import device_nonce
from schemas.proof.evidence import MAX_PACKED_BYTES, DeviceEvidence, pack, unpack

NONCE = bytes(range(32, 64))
KEYS = ("driver_min", "vbios", "modes", "revocation")


class Error(Exception):
    """As pynvml's: a number."""

    def __init__(self, value: int) -> None:
        super().__init__(f"error {value}")
        self.value = value


@dataclass
class Driver:
    """pynvml as far as the collector knows it."""

    gpus: int = 2
    state: tuple[int, int, int] = (2, 1, 0)
    """environment, ccFeature, devToolsMode"""
    multi: int = 0
    fails: Mapping[str, int] = field(default_factory=dict)
    """Call → error number."""
    forgets_nonce: bool = False
    size: int | None = None
    closed: int = 0

    NVMLError = Error
    NVML_SUCCESS = 0
    NVML_ERROR_NOT_SUPPORTED = 3
    NVML_ERROR_NO_PERMISSION = 4
    NVML_ERROR_DRIVER_NOT_LOADED = 9
    NVML_ERROR_LIBRARY_NOT_FOUND = 12
    NVML_ERROR_FUNCTION_NOT_FOUND = 13
    NVML_CC_SYSTEM_FEATURE_ENABLED = 1
    NVML_CC_SYSTEM_DEVTOOLS_MODE_OFF = 0

    def _call(self, name: str) -> None:
        if name in self.fails:
            raise Error(self.fails[name])

    def nvmlInit(self) -> None:
        self._call("init")

    def nvmlShutdown(self) -> None:
        self.closed += 1

    def nvmlDeviceGetCount(self) -> int:
        return self.gpus

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlSystemGetConfComputeState(self) -> Any:
        self._call("state")
        return SimpleNamespace(
            **dict(zip(("environment", "ccFeature", "devToolsMode"), self.state, strict=True))
        )

    def c_nvmlSystemConfComputeSettings_v1_t(self) -> Any:
        return SimpleNamespace(multiGpuMode=0)

    def nvmlSystemGetConfComputeSettings(self, settings: Any) -> int:
        self._call("settings")
        settings.multiGpuMode = self.multi
        return 0

    def nvmlDeviceGetConfComputeGpuCertificate(self, handle: int) -> Any:
        self._call("certificate")
        chain = GpuForge(number=handle).chain()
        size = len(chain) if self.size is None else self.size
        return SimpleNamespace(attestationCertChain=chain.ljust(5120, b"\0"), attestationCertChainSize=size)

    def nvmlDeviceGetConfComputeGpuAttestationReport(self, handle: int, nonce: bytes) -> Any:
        self._call("report")
        report = GpuForge(number=handle, nonce=bytes(32) if self.forgets_nonce else nonce).report()
        return SimpleNamespace(attestationReport=report.ljust(8192, b"\0"), attestationReportSize=len(report))


def test_what_is_collected_verifies() -> None:
    driver = Driver(gpus=4)
    found = NvmlCollector(driver)(NONCE)
    assert driver.closed == 1
    table = ["[nvidia]", *(f'{key} = "any"' for key in KEYS), root_toml()]
    inputs = [DeviceInput(each.report, tuple(each.endorsements), each.kind, each.state) for each in found]
    result = appraise_nvidia(
        Devices(tuple(inputs), together=True),
        endorsements=manifests_for("GH100", "550.90.07", VBIOS),
        expectations=Expectations.parse("\n".join(table).encode()),
        nonce=NONCE,
        at=NOW,
    )
    assert result.verdict == "affirming"
    devices = result.stated()["devices"]
    assert isinstance(devices, list)
    ueids = [int(str(each["ueid"])) for each in devices if isinstance(each, dict)]
    assert ueids == sorted(ueids)


@pytest.mark.parametrize(
    ("driver", "code"),
    [
        (Driver(fails={"init": 12}), "devices.driver"),
        (Driver(fails={"init": 9}), "devices.driver"),
        (Driver(gpus=0), "devices.none"),
        (Driver(gpus=17), "devices.none"),
        (Driver(state=(2, 0, 0)), "devices.mode_off"),
        (Driver(state=(2, 0, 0), fails={"settings": 13}), "devices.mode_off"),
        (Driver(fails={"state": 3}), "devices.unsupported"),
        (Driver(fails={"report": 13}), "devices.unsupported"),
        (Driver(fails={"report": 4}), "devices.permission"),
        (Driver(fails={"certificate": 999}), "devices.nvml"),
        (Driver(forgets_nonce=True), "devices.nonce"),
        (Driver(size=0), "devices.nvml"),
        (Driver(size=9999), "devices.nvml"),
        (Driver(size=20), "devices.chain"),
    ],
)
def test_what_is_not_there_is_said_plainly(driver: Driver, code: str) -> None:
    with pytest.raises(ComityError) as error:
        NvmlCollector(driver)(NONCE)
    assert error.value.code == code
    assert driver.closed == (0 if "init" in driver.fails else 1)


def test_protected_pcie_and_devtools_are_stated() -> None:
    (first, *_) = NvmlCollector(Driver(state=(1, 0, 1), multi=1))(NONCE)
    assert first.state is not None
    assert first.state.model_dump() == {"confidential": True, "environment": "simulation", "devtools": True}


def test_without_the_package_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("importlib.import_module", absent)
    with pytest.raises(ConfigurationError, match=r"pip install 'comity\[nvidia\]'"):
        NvmlCollector()(NONCE)


def test_a_nonce_has_one_length() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        NvmlCollector(Driver())(b"short")


async def test_the_node_binds_what_the_devices_answer(founded: Founded) -> None:
    """They answer a nonce of the node's keys and challenges, and the CPU's report covers their answers."""
    evidence = await evidence_of(chip_of(founded), devices=NvmlCollector(Driver()))
    root = bytes.fromhex(evidence.challenge_root)
    assert evidence.device_challenge_root == evidence.challenge_root
    wanted = device_nonce(evidence.identity, device_challenge_root=root)
    assert [read_report(each.report).nonce for each in evidence.devices] == [wanted] * 2
    assert evidence.expected_report_data() in evidence.cpu.report
    assert evidence.model_copy(update={"devices": []}).expected_report_data() not in evidence.cpu.report


async def test_a_driver_that_never_answers_ends_in_a_timeout(
    founded: Founded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("domain_agent.node.proving.quote.COLLECT_TIMEOUT_S", 0.05)
    answered = threading.Event()

    def stuck(nonce: bytes) -> list[DeviceEvidence]:
        answered.wait(10)
        return []

    try:
        with pytest.raises(Undecided, match=r"devices\.timeout"):
            await evidence_of(chip_of(founded), devices=stuck)
    finally:
        answered.set()


def test_a_product_without_simulated_gpus_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def absent(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("importlib.import_module", absent)
    with pytest.raises(ConfigurationError, match="source checkout"):
        simulated_board(tmp_path)


async def test_a_node_of_simulated_hardware_proves_cpu_and_gpu(founded: Founded, tmp_path: Path) -> None:
    gpu = SimulatedAccelerators.create().make_gpu()
    gpu.save(tmp_path / "0")
    devices = device_collector(node_config.Devices("simulated", tmp_path))
    evidence = await evidence_of(chip_of(founded), devices=devices)
    nonces = [read_report(each.report).nonce for each in evidence.devices]
    assert binding_of(evidence, nonces, report_data_holds=True) == OWN_MODE
    assert evidence.expected_report_data() in evidence.cpu.report


async def test_the_evidence_of_a_whole_board_fits_into_one_message(founded: Founded) -> None:
    """Eight GPUs and four switches, each with its chain; manifests and answers once, beside the CPU's."""
    board = BoardForge()
    devices = list(board.devices().values())
    status = [answer for each in devices for answer in answers(each, manifests_of(each))]

    def collect(nonce: bytes) -> list[DeviceEvidence]:
        return BoardForge(nonce=nonce).evidence()

    evidence = await evidence_of(
        chip_of(founded), devices=collect, collateral=[*board_manifests(), *dict.fromkeys(status)]
    )
    document = evidence.write()
    assert len(evidence.devices) == 12
    assert len(document) > MAX_PACKED_BYTES > len(pack(document))
    assert unpack(pack(document)) == document
