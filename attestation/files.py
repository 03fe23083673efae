"""Evidence and collateral in files and folders, read for the command line; content says what they are."""

from __future__ import annotations

import base64
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NoReturn

from attestation.endorsements import MAX_DOCUMENT_BYTES, recognise
from attestation.gpu.forms import Devices, TokenFile, devices_in, is_form
from attestation.gpu.forms import unwrap as unwrap_gpu
from attestation.gpu.spdm.report import is_report
from attestation.snp.forms import FOLDER_FILES, Evidence, from_folder, unwrap
from attestation.tdx import forms as dcap
from attestation.tdx.forms import QuoteForm
from attestation.tdx.quote import QE_VENDOR
from schemas.canonical import read_json
from schemas.errors import ConfigurationError, Unreadable
from schemas.files import read_up_to
from schemas.proof.evidence import MAX_EVIDENCE_BYTES, NodeEvidence

MAX_FILES: Final = 1000  # in one folder of endorsements; with more, none is read
UNFINISHED: Final = ".new"  # suffix of files that are just being written, or were when their writer died
_HEX: Final = re.compile(rb"(0x)?[0-9A-Fa-f]{64,}")  # shorter than any evidence or endorsement
_BASE64: Final = re.compile(rb"(?:[A-Za-z0-9+/]{64,}|[A-Za-z0-9_-]{64,})={0,2}")
_STANDARD: Final = bytes.maketrans(b"-_", b"+/")  # from the alphabet of addresses


def read_evidence(path: Path) -> bytes | Evidence:
    """A file in any form, or a folder as configfs-tsm or an Azure guest leaves it."""
    if not path.is_dir():
        return as_bytes(read_file(path, MAX_EVIDENCE_BYTES))
    present = [path / name for name in FOLDER_FILES if (path / name).is_file()]
    return from_folder({file.name: read_file(file, MAX_DOCUMENT_BYTES) for file in present})


def read_any_evidence(path: Path) -> bytes | Evidence:
    """A CPU's of either vendor; a folder is TDX's where it holds a quote or the kernel says so."""
    if (path / "quote.bin").is_file() or _names_tdx(path / "provider"):
        return read_quote_form(path).quote
    return read_evidence(path)


def _names_tdx(provider: Path) -> bool:
    return provider.is_file() and read_file(provider, MAX_DOCUMENT_BYTES).strip() == dcap.PROVIDER.encode()


def read_quote_form(path: Path) -> QuoteForm:
    """A file in any form, or a folder as configfs-tsm or an Azure guest leaves it."""
    if not path.is_dir():
        return dcap.unwrap(as_bytes(read_file(path, MAX_EVIDENCE_BYTES)))
    present = [path / name for name in dcap.FOLDER_FILES if (path / name).is_file()]
    return dcap.from_folder({file.name: read_file(file, MAX_DOCUMENT_BYTES) for file in present})


def read_devices(path: Path) -> bytes | Devices:
    """A file in any form, or a folder with a report or with a folder for each device."""
    if not path.is_dir():
        return read_file(path, MAX_EVIDENCE_BYTES)
    folders = [path, *sorted(each for each in _bounded(path.iterdir(), path) if each.is_dir())]
    return devices_in({str(folder): _files(folder) for folder in folders})


def _files(folder: Path) -> dict[str, bytes]:
    """The files of one device; descriptions of a case are no evidence."""
    listed = sorted(each for each in _bounded(folder.iterdir(), folder) if each.is_file())
    return {
        file.name: read_file(file, MAX_DOCUMENT_BYTES)
        for file in listed
        if file.suffix in (".bin", ".pem", ".der", ".xml", ".crl")
    }


def read_documents(path: Path, *, without: frozenset[str] = frozenset()) -> list[bytes]:
    """The documents of a file, or of a folder, where what is no endorsement is passed over.

    without: names of files that are somebody's notes.
    Raises `ConfigurationError`, also for too many: one that is left out may be the CRL that revokes.
    """
    with naming(path):
        if not path.is_dir():
            return [_document(path)]
        listed = [each for each in _bounded(_below(path), path) if each.suffix != UNFINISHED]
        files = sorted(each for each in listed if each.name not in without and each.is_file())
    found: list[bytes] = []
    for file in files:
        try:
            found.append(_document(file))
        except Unreadable as error:
            why = error.text.removeprefix(f"{file}: ")
            print(f"{file}: passed over: {why}", file=sys.stderr)  # noqa: T201
    return found


def _below(folder: Path) -> Iterator[Path]:
    """What lies in the folder, at any depth; a folder inside that may not be read is no empty one."""
    for here, _, names in os.walk(folder, onerror=_unlisted):
        yield from (Path(here, name) for name in names)


def _unlisted(error: OSError) -> NoReturn:
    raise error


def _bounded(files: Iterator[Path], folder: Path) -> Iterator[Path]:
    for number, file in enumerate(files):
        if number == MAX_FILES:
            raise ConfigurationError(
                "attest.file", f"{folder}: more than {MAX_FILES} files; name those that are needed"
            )
        yield file


def _document(path: Path) -> bytes:
    """One endorsement. Raises `Unreadable`, naming the file."""
    data = as_bytes(read_file(path, MAX_DOCUMENT_BYTES))
    with naming(path):
        recognise(data)
    return data


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Whatever inside cannot be read is said to stand in this file or folder.

    Nothing is printed inside: a reader who leaves is an error of the system's, too.
    """
    try:
        yield
    except Unreadable as error:
        named = error.text.startswith(str(path))
        raise error if named else Unreadable(error.code, f"{path}: {error.text}") from None
    except OSError as error:  # a name that none can have, a folder that may not be entered
        raise ConfigurationError("attest.file", f"{error.filename or path}: {error.strerror}") from None


def as_bytes(data: bytes) -> bytes:
    """What a file of hex or base64 digits stands for, broken into lines or not; else the file as it is.

    Base64 in either alphabet, with or without padding (RFC 4648 3.2, 5). Nothing binary of any vendor is
    made of such digits alone, and neither PEM nor JSON is.
    """
    text = b"".join(line.strip() for line in data.splitlines())
    if _HEX.fullmatch(text) and len(text) % 2 == 0:
        return bytes.fromhex(text.removeprefix(b"0x").decode("ascii"))
    padded = text + b"=" * (-len(text) % 4)
    return base64.b64decode(padded.translate(_STANDARD)) if _BASE64.fullmatch(padded) else data


def read_file(path: Path, limit: int) -> bytes:
    data = read_up_to(path, limit, "attest.file")
    if len(data) > limit:
        raise Unreadable("attest.file", f"{path}: more than {limit} bytes")
    return data


def read_gpu(path: Path) -> Devices | TokenFile | None:
    """Devices of NVIDIA's or a service token; None for another vendor's evidence."""
    found = (
        read_devices(path)
        if path.is_file() or any(path.glob("report.bin")) or any(path.glob("*/report.bin"))
        else None
    )
    if isinstance(found, Devices):
        return found if all(is_report(each.report) for each in found.inputs) else None
    if found is None or not is_form(found):
        return None
    known = unwrap_gpu(found)
    return known if isinstance(known, Devices | TokenFile) else None


def quote_of(data: bytes | Evidence) -> bytes | None:
    """The DCAP quote that the evidence is or carries; None for another vendor's."""
    if isinstance(data, Evidence):
        return None
    if data[12:28] == QE_VENDOR:
        return data
    if dcap.is_wrapped(data):
        return dcap.unwrap(data).quote
    if is_node(data):
        cpu = NodeEvidence.read(data).cpu
        return cpu.report if cpu.tee == "tdx" else None
    return None


def report_of(data: bytes | Evidence) -> bytes:
    """The bare report in any form, a node's evidence included."""
    if isinstance(data, Evidence):
        return data.report
    if is_node(data):
        return unwrap(NodeEvidence.read(data).cpu.report).report
    return unwrap(data).report


def is_node(data: bytes) -> bool:
    """A JSON object that names no form of its own is a node's evidence."""
    if data.lstrip()[:1] != b"{":
        return False
    stated = read_json(data, limit=MAX_EVIDENCE_BYTES)
    return isinstance(stated, dict) and not {"form", "outblob"} & stated.keys()
