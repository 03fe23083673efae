"""One `comity` program as a child of this process, with its own log file.

It gets SIGTERM when this process ends, however it ends (Linux), and is stopped by its own process id,
never by name.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from schemas.errors import ConfigurationError

STOP_S: Final = 15.0  # s after SIGTERM before a program is killed
TAIL_BYTES: Final = 3000  # of a program's log in an error
PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h


@dataclass(slots=True)
class Program:
    """One child: `name` is `<domain>/<broker|agent|node id>`."""

    name: str
    arguments: tuple[str, ...]
    log: Path
    process: asyncio.subprocess.Process

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process.returncode is None

    def check(self) -> None:
        """Raise `ConfigurationError` with the end of its log when it has ended."""
        if not self.running:
            tail = self.log.read_bytes()[-TAIL_BYTES:].decode("utf-8", "replace")
            raise ConfigurationError(
                "launch.ended", f"{self.name} ended with {self.process.returncode}; its log ends with\n{tail}"
            )

    async def kill(self) -> None:
        """End it at once, as a power cut would."""
        self._signal(signal.SIGKILL)
        await self.process.wait()

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL when it does not end in time."""
        self._signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.process.wait(), STOP_S)
            return
        await self.kill()

    def _signal(self, number: signal.Signals) -> None:
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)


async def spawn(name: str, arguments: Iterable[str], log: Path) -> Program:
    """Start `comity …` as a child whose output goes to `log`."""
    listed = tuple(arguments)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "comity",
            *listed,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,  # a Ctrl-C at the terminal is ours to handle, in order
            preexec_fn=die_with_parent(),
        )
    return Program(name, listed, log, process)


def die_with_parent() -> Callable[[], None] | None:
    """For Linux: ask the kernel to end the child when this process ends (prctl(2))."""
    if sys.platform != "linux":
        return None
    libc, parent = ctypes.CDLL(None, use_errno=True), os.getpid()

    def in_child() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # the parent died between fork and prctl
            os._exit(1)

    return in_child
