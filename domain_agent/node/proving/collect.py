"""Where raw CPU evidence comes from: the kernel's TSM reports, or a simulated chip that says so.

A machine that has neither is told so plainly; there is no evidence without hardware or an
explicitly listed simulation (DESIGN 15).
"""

from __future__ import annotations

import errno
import importlib
import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol, TypeAlias

from attestation.endorsements import recognise
from schemas.errors import ConfigurationError, Undecided, Unreadable
from schemas.proof.evidence import CpuEvidence

TSM_ROOT: Final = Path("/sys/kernel/config/tsm/report")
REPORT_DATA_BYTES: Final = 64
MAX_ATTEMPTS: Final = 8  # tries while another process uses the provider
RETRY_S: Final = 0.05  # seconds between them; the firmware answers within a few milliseconds
MAX_FILES: Final = 32  # of one endorsements folder; evidence holds 64 documents
MAX_BLOB_BYTES: Final = 128 * 1024  # a TDX quote with its chain is 5 to 8 KiB
PROVIDERS: Final[dict[str, Literal["snp", "tdx"]]] = {"sev_guest": "snp", "tdx_guest": "tdx"}

Collect: TypeAlias = Callable[[bytes], CpuEvidence]
"""64 bytes of report data → evidence. Blocks: call it in a thread."""


class Entries(Protocol):
    """Making and removing a report entry: the kernel fills a new folder with its attribute files."""

    def make(self, path: Path) -> None: ...

    def remove(self, path: Path) -> None: ...


class ConfigFs:
    """The real thing."""

    def make(self, path: Path) -> None:
        path.mkdir()

    def remove(self, path: Path) -> None:
        path.rmdir()


@dataclass(frozen=True, slots=True)
class TsmCollector:
    """`configfs-tsm` (Linux ≥ 6.7): one entry per quote, removed whatever happens."""

    root: Path = TSM_ROOT
    entries: Entries = ConfigFs()  # noqa: RUF009 - it has no state

    def __call__(self, report_data: bytes) -> CpuEvidence:
        """Quote. Raises `ConfigurationError` (no TEE here) or `Undecided` (busy, interfered with)."""
        if len(report_data) != REPORT_DATA_BYTES:
            raise ValueError("report data is 64 bytes")
        if not self.root.is_dir():
            raise ConfigurationError(
                "tee.absent",
                f"{self.root} does not exist: this machine offers programs no TEE reports; a kernel before "
                'Linux 6.7 may have /dev/sev-guest: write kind = "sev-guest"',
            )
        for _ in range(MAX_ATTEMPTS):
            try:
                return self._quote(report_data)
            except BlockingIOError:
                time.sleep(RETRY_S)
        raise Undecided("tee.busy", "others kept using the report provider")

    def _quote(self, report_data: bytes) -> CpuEvidence:
        entry = self.root / f"comity-{os.getpid()}-{secrets.token_hex(4)}"
        try:
            self.entries.make(entry)
        except OSError as error:
            raise ConfigurationError("tee.access", f"{entry}: {error.strerror}") from None
        try:
            return _read_entry(entry, report_data)
        except OSError as error:
            if error.errno in (errno.EBUSY, errno.EWOULDBLOCK):
                raise BlockingIOError(errno.EBUSY, "busy") from None
            raise Undecided("tee.report", f"{error.filename}: {error.strerror}") from None
        finally:
            self.entries.remove(entry)


def _read_entry(entry: Path, report_data: bytes) -> CpuEvidence:
    """Write the report data, read the report, and see that nobody wrote in between."""
    provider = (entry / "provider").read_text("ascii").strip()
    if provider not in PROVIDERS:
        raise ConfigurationError("tee.provider", f"{provider!r} is no TEE that Comity knows")
    before = _generation(entry)
    (entry / "inblob").write_bytes(report_data)
    report = _blob(entry / "outblob")
    auxiliary = _blob(entry / "auxblob") if (entry / "auxblob").exists() else b""
    if _generation(entry) != before + 1:
        raise BlockingIOError(errno.EBUSY, "someone else wrote to this entry")
    return CpuEvidence(tee=PROVIDERS[provider], report=report, endorsements=[auxiliary] if auxiliary else [])


def _generation(entry: Path) -> int:
    return int((entry / "generation").read_text("ascii"))


def _blob(path: Path) -> bytes:
    data = path.read_bytes()
    if len(data) > MAX_BLOB_BYTES:
        raise Undecided("tee.report", f"{path.name} has more than {MAX_BLOB_BYTES} bytes")
    return data


@dataclass(frozen=True, slots=True)
class Endorsed:
    """Another collector's evidence, with the certificates and CRLs of a folder beside it.

    The host's table often holds no certificate and rarely a CRL. The folder is read for every quote, so that
    what `comity attest fetch` renews there goes out with the next one.
    """

    collect: Collect
    folder: Path

    def __call__(self, report_data: bytes) -> CpuEvidence:
        """Quote. Raises what the collector raises, and `ConfigurationError` for the folder."""
        evidence = self.collect(report_data)
        documents = [_document(path) for path in _files(self.folder)]
        return evidence.model_copy(update={"endorsements": [*evidence.endorsements, *documents]})


def _files(folder: Path) -> list[Path]:
    """At most `MAX_FILES`, those that are just being written left out."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".new")
    if not 1 <= len(files) <= MAX_FILES:
        raise ConfigurationError(
            "tee.endorsements", f"{folder} holds {len(files)} files; fill it with comity attest fetch"
        )
    return files


def _document(path: Path) -> bytes:
    try:
        data = path.read_bytes()
        recognise(data)
    except OSError as error:
        raise ConfigurationError("tee.endorsements", f"{path}: {error.strerror}") from None
    except Unreadable as error:
        raise ConfigurationError("tee.endorsements", f"{path}: {error.text}") from None
    return data


def simulated(chip: Path) -> Collect:
    """A made-up chip from a file. Raises `ConfigurationError` where the product is installed alone."""
    try:
        module = importlib.import_module("attestation.testing.chip")
    except ModuleNotFoundError:
        raise ConfigurationError(
            "tee.simulated",
            'tee.kind = "simulated" needs a source checkout: the product does not contain simulated TEEs; '
            'on TEE hardware write kind = "configfs-tsm"',
        ) from None
    quote: Collect = module.SimulatedChip.load(chip).quote
    return quote
