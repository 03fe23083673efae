"""Where raw GPU evidence comes from: NVIDIA's driver through NVML (gpu.md 12).

Optional: `pip install 'comity[nvidia]'`. What this machine cannot give is said plainly: no library, no
driver, no GPU, no permission and no confidential mode are told apart. Switches are not collected: their
library (NSCQ) has no Python package.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, NoReturn, TypeAlias

from attestation.endorsements import recognise
from attestation.pki.x509 import read_certificate
from schemas.errors import ConfigurationError, Undecided, Unreadable
from schemas.proof.evidence import DeviceEvidence, DeviceState

NONCE_BYTES: Final = 32
NONCE_AT: Final = 4  # where the report repeats it (DMTF DSP0274 1.1, GET_MEASUREMENTS)
MAX_GPUS: Final = 16  # of one machine; an HGX board has 8
COLLECT_TIMEOUT_S: Final = 60.0  # for all devices; the firmware takes about a second each

CollectDevices: TypeAlias = Callable[[bytes], list[DeviceEvidence]]
"""The device nonce (32 bytes) → evidence of every GPU. Blocks: call it in a thread."""

_ENVIRONMENTS: Final[dict[int, Literal["unavailable", "simulation", "production"]]] = {
    0: "unavailable",
    1: "simulation",
    2: "production",
}
_PROTECTED_PCIE: Final = 1  # multiGpuMode


@dataclass(frozen=True, slots=True)
class NvmlCollector:
    """The driver of this machine. Calls on devices are made one after the other."""

    library: Any = None
    """The module `pynvml`; None = import it when it is needed."""

    def __call__(self, nonce: bytes) -> list[DeviceEvidence]:
        """A report of every GPU, by ueid. Raises `ConfigurationError` or `Undecided`, saying why."""
        if len(nonce) != NONCE_BYTES:
            raise ValueError("a device nonce is 32 bytes")
        library = self.library or _library()
        with _session(library):
            state = _state(library)
            count = library.nvmlDeviceGetCount()
            if not 1 <= count <= MAX_GPUS:
                raise ConfigurationError("devices.none", f"the driver knows {count} GPUs")
            found = [_device(library, index, nonce, state) for index in range(count)]
        return [device for _, device in sorted(found, key=lambda each: each[0])]


def _library() -> Any:
    try:
        return importlib.import_module("pynvml")
    except ModuleNotFoundError:
        raise ConfigurationError(
            "devices.library",
            "[devices] kind = \"nvml\" needs NVIDIA's Python package: pip install 'comity[nvidia]'",
        ) from None


@contextmanager
def _session(library: Any) -> Iterator[None]:
    """Between initialising and shutting down; every error of the library becomes one of ours."""
    try:
        library.nvmlInit()
    except library.NVMLError as error:
        _explain(library, error)
    try:
        yield
    except library.NVMLError as error:
        _explain(library, error)
    finally:
        library.nvmlShutdown()


def _explain(library: Any, error: Any) -> NoReturn:
    match error.value:
        case library.NVML_ERROR_LIBRARY_NOT_FOUND | library.NVML_ERROR_DRIVER_NOT_LOADED:
            raise ConfigurationError("devices.driver", "this machine has no running NVIDIA driver") from None
        case library.NVML_ERROR_NOT_SUPPORTED | library.NVML_ERROR_FUNCTION_NOT_FOUND:
            raise ConfigurationError(
                "devices.unsupported", "this GPU, driver or mode makes no attestation reports"
            ) from None
        case library.NVML_ERROR_NO_PERMISSION:
            raise ConfigurationError(
                "devices.permission", "the driver does not let this user ask for attestation reports"
            ) from None
    raise Undecided("devices.nvml", f"the driver answered: {error}") from None


def _state(library: Any) -> DeviceState:
    """What the driver says of mode and devtools. Raises `ConfigurationError` where the mode is off."""
    said = library.nvmlSystemGetConfComputeState()
    on = said.ccFeature == library.NVML_CC_SYSTEM_FEATURE_ENABLED or _is_protected(library)
    if not on:
        raise ConfigurationError(
            "devices.mode_off",
            "confidential computing is off on this machine's GPUs: they make no attestation reports until it "
            "is switched on (nvidia-smi conf-compute -q shows the mode)",
        )
    environment = _ENVIRONMENTS.get(said.environment, "unavailable")
    devtools = said.devToolsMode != library.NVML_CC_SYSTEM_DEVTOOLS_MODE_OFF
    return DeviceState(confidential=True, environment=environment, devtools=devtools)


def _is_protected(library: Any) -> bool:
    """Protected PCIe, which older drivers do not know. This call returns a status and does not raise."""
    settings = library.c_nvmlSystemConfComputeSettings_v1_t()
    try:
        status = library.nvmlSystemGetConfComputeSettings(settings)
    except library.NVMLError:
        return False
    return bool(status == library.NVML_SUCCESS and settings.multiGpuMode == _PROTECTED_PCIE)


def _device(library: Any, index: int, nonce: bytes, state: DeviceState) -> tuple[int, DeviceEvidence]:
    """(ueid, evidence) of one GPU."""
    handle = library.nvmlDeviceGetHandleByIndex(index)
    certificate = library.nvmlDeviceGetConfComputeGpuCertificate(handle)
    chain = _cut(certificate.attestationCertChain, certificate.attestationCertChainSize)
    told = library.nvmlDeviceGetConfComputeGpuAttestationReport(handle, nonce)
    report = _cut(told.attestationReport, told.attestationReportSize)
    if report[NONCE_AT : NONCE_AT + NONCE_BYTES] != nonce:
        raise Undecided("devices.nonce", f"GPU {index} did not answer our nonce")
    return _ueid(chain, index), DeviceEvidence(kind="gpu", report=report, endorsements=[chain], state=state)


def _cut(buffer: Sequence[int], size: int) -> bytes:
    """What the driver filled of its fixed buffer."""
    if not 0 < size <= len(buffer):
        raise Undecided("devices.nvml", f"the driver states {size} bytes of {len(buffer)}")
    return bytes(buffer[:size])


def _ueid(chain: bytes, index: int) -> int:
    try:
        return read_certificate(recognise(chain).certificates[0]).serial
    except (Unreadable, IndexError):
        raise Undecided("devices.chain", f"GPU {index} gave no certificate chain") from None


def simulated_board(folder: Path) -> CollectDevices:
    """Made-up GPUs from a folder. Raises `ConfigurationError` where the product is installed alone."""
    try:
        module = importlib.import_module("attestation.testing.accelerator")
    except ModuleNotFoundError:
        raise ConfigurationError(
            "devices.simulated",
            'devices.kind = "simulated" needs a source checkout: the product does not contain simulated '
            'GPUs; on a machine with confidential GPUs write kind = "nvml"',
        ) from None
    board: CollectDevices = module.SimulatedBoard.load(folder)
    return board
