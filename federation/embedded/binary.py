"""Which nats-server is run, and why it may be (nats.md 1).

An operator's own binary (`NATS_SERVER_BIN`) wins over the packaged one. Either must be recent
enough; the packaged one must also be the very bytes that were looked at when it was chosen.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import platform
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from schemas.errors import ConfigurationError, Refused

PACKAGE = "nats-server-bin"
COMMAND_S = 10  # s for `--version` or a configuration check
MAX_OUTPUT_BYTES = 64 * 1024  # of such a command

Version = tuple[int, int, int]
MINIMUM: Version = (2, 14, 3)  # first with every fix of nats.md 1.2 on its line
MINIMUM_OLD_LINE: Version = (2, 12, 12)

KNOWN_SHA256: Mapping[tuple[str, str, str], str] = {
    ("2.15.1", "linux", "x86_64"): "dd9b8a99f78955e35108355176d2fe61269efb909698eb9fce3d5d81a70e2bda",
}
"""(package version, system, machine) to the packaged binary's digest, as recorded when it was reviewed."""

_VERSION = re.compile(r"v(\d{1,3})\.(\d{1,3})\.(\d{1,3})(-\S+)?")
_log = logging.getLogger("comity.bus.server")


@dataclass(frozen=True, slots=True)
class ServerBinary:
    """What is about to be run, for the start-up record."""

    path: Path
    version: Version
    sha256: str
    origin: str
    """`NATS_SERVER_BIN`, or the package's name and version."""


async def find_binary() -> ServerBinary:
    """The binary to run, after every check. Raises `ConfigurationError` or `Refused`."""
    chosen = os.environ.get("NATS_SERVER_BIN")
    path, origin = (Path(chosen), "NATS_SERVER_BIN") if chosen else _packaged()
    if not path.is_file() or not os.access(path, os.X_OK):
        raise ConfigurationError("bus.binary", f"{path} ({origin}) is no program that can be run")
    digest = await asyncio.to_thread(_digest, path)
    if not chosen:
        check_digest(digest, metadata.version(PACKAGE), sys.platform, platform.machine())
    code, output = await run(path, "--version")
    if code:
        raise ConfigurationError("bus.binary", f"{path} --version ended with {code}")
    return ServerBinary(path, check_version(output), digest, origin)


def check_version(text: str) -> Version:
    """The version that `--version` printed. Raises `Refused` below the minimum (nats.md 1.2)."""
    match = _VERSION.search(text)
    if not match:
        raise Refused("bus.server_version", "the program does not say which nats-server it is")
    version = (int(match[1]), int(match[2]), int(match[3]))
    old_line = version[:2] == MINIMUM_OLD_LINE[:2] and version >= MINIMUM_OLD_LINE
    if (version < MINIMUM and not old_line) or match[4]:
        raise Refused(
            "bus.server_version",
            f"nats-server {match[0]} is refused: 2.14.3 or later is required, or 2.12.12 or later of 2.12",
        )
    return version


def check_digest(digest: str, version: str, system: str, machine: str) -> None:
    """Compare with the recorded digest. Raises `Refused` when the bytes are not the reviewed ones."""
    known = KNOWN_SHA256.get((version, system, machine))
    if known is None:
        _log.warning(
            "no digest is recorded for this nats-server: the lock file's pin is the only guard",
            extra={"package_version": version, "system": system, "machine": machine, "sha256": digest},
        )
    elif digest != known:
        raise Refused("bus.server_digest", f"{PACKAGE} {version} is not the binary that was reviewed")


async def run(path: Path, *arguments: str) -> tuple[int, str]:
    """Run a short command of the server; its exit code and what it printed. Raises `ConfigurationError`."""
    try:
        process = await asyncio.create_subprocess_exec(
            path,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
    except OSError as error:
        raise ConfigurationError("bus.binary", f"{path}: {error.strerror}") from None
    try:
        output, _ = await asyncio.wait_for(process.communicate(), COMMAND_S)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise ConfigurationError("bus.binary", f"{path} {arguments[0]} took over {COMMAND_S} s") from None
    return process.returncode or 0, output[:MAX_OUTPUT_BYTES].decode("utf-8", "replace")


def _packaged() -> tuple[Path, str]:
    try:
        version, files = metadata.version(PACKAGE), metadata.files(PACKAGE) or []
    except metadata.PackageNotFoundError:
        version, files = "", []
    for file in files:
        if file.name in ("nats-server", "nats-server.exe"):
            return Path(str(file.locate())).resolve(), f"{PACKAGE} {version}"
    raise ConfigurationError(
        "bus.binary", "no nats-server: install comity[embedded], set NATS_SERVER_BIN, or use your own server"
    )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
