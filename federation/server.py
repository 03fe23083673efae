"""The embedded bus: one nats-server on loopback, a child of this process and never its orphan.

For demos, tests and single sites; production brings its own server. Owns the child process and
nothing else: files are written by `embedded.folder`. A crash of this process takes the server
down with it (parent-death signal, Linux); what it leaves behind is the log and a ports file.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from federation.connection import Bus, BusSettings
from federation.embedded.binary import ServerBinary, find_binary, run
from schemas.errors import ComityError, ConfigurationError, Undecided

START_S = 10.0  # s until the port is known and one login has worked
STOP_S = 5.0  # s after SIGTERM before that one child is killed
POLL_S = 0.02  # s between looks at a child that has no way to call us
LOG_TAIL_BYTES = 2000  # of the server's log in an error
_PR_SET_PDEATHSIG = 1  # linux/prctl.h

_log = logging.getLogger("comity.bus.server")


class EmbeddedServer:
    """Starts, stops and restarts one server on one port.

    config: the generated file. state: a folder of this server's own, where its ports file goes.
    probe: the system user's settings, for the first authenticated round trip; its url is ignored.
    port: fixed, or None for a free one, which later starts of this object keep.
    """

    def __init__(self, config: Path, *, state: Path, probe: BusSettings, port: int | None = None) -> None:
        self._config = config
        self._state = state
        self._probe = probe
        self._process: asyncio.subprocess.Process | None = None
        self.port = port
        self.binary: ServerBinary | None = None

    @property
    def url(self) -> str:
        """Where clients connect. Raises `Undecided` before the first start."""
        if self.port is None:
            raise Undecided("bus.not_started", "the embedded server has no port yet")
        return f"tls://127.0.0.1:{self.port}" if self._probe.ca_file else f"nats://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def start(self) -> None:
        """Check the binary and the configuration, start, and wait until a login works.

        Raises `ConfigurationError`, `Refused` (binary) or `Undecided` (not ready in time); then nothing runs.
        """
        if self._process:
            raise ConfigurationError("bus.started", "this server runs already")
        self.binary = self.binary or await find_binary()
        await self._check_config()
        self._process = await self._spawn(self.binary)
        try:
            async with asyncio.timeout(START_S):
                self.port = await self._listening_port()
                await self._authenticated_round_trip()
        except TimeoutError:
            await self.stop()
            raise Undecided("bus.not_ready", f"the server was not ready in {START_S} s") from None
        except BaseException:
            await self.stop()
            raise
        _log.info(
            "embedded bus server started; for production set NATS_URL to your own",
            extra={"pid": self._process.pid, "port": self.port, "sha256": self.binary.sha256},
        )

    async def stop(self) -> None:
        """SIGTERM to the child, wait, and kill only it if it does not end. Harmless when stopped."""
        if not self._process:
            return
        self._signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._process.wait(), STOP_S)
        except TimeoutError:
            _log.warning("the bus server did not end; killing it", extra={"pid": self._process.pid})
            self._signal(signal.SIGKILL)
            await self._process.wait()
        self._forget()

    async def kill(self) -> None:
        """End the child at once, as a power cut would. For tests of outages."""
        if self._process:
            self._signal(signal.SIGKILL)
            await self._process.wait()
            self._forget()

    async def reload(self) -> None:
        """Take over a changed configuration without dropping connections that stay valid."""
        await self._check_config()
        self._signal(signal.SIGHUP)

    def _signal(self, number: signal.Signals) -> None:
        if self._process:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def _forget(self) -> None:
        if self._process:
            for file in self._state.glob(f"*_{self._process.pid}.ports"):
                file.unlink(missing_ok=True)
            self._process = None

    async def _check_config(self) -> None:
        assert self.binary
        code, output = await run(self.binary.path, "-t", "-c", str(self._config))
        if code:
            raise ConfigurationError("bus.config", f"nats-server refuses {self._config}: {output.strip()}")

    async def _spawn(self, binary: ServerBinary) -> asyncio.subprocess.Process:
        port = () if self.port is None else ("-p", str(self.port))
        return await asyncio.create_subprocess_exec(
            binary.path,
            "-c",
            str(self._config),
            *port,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C at the terminal is ours to handle, in order
            preexec_fn=_die_with_parent(),  # one system call, prepared before the fork
        )

    async def _listening_port(self) -> int:
        assert self._process
        while self._process.returncode is None:
            for file in self._state.glob(f"*_{self._process.pid}.ports"):
                with contextlib.suppress(ValueError, KeyError, OSError):
                    return int(json.loads(file.read_bytes())["nats"][0].rpartition(":")[2])
            await asyncio.sleep(POLL_S)
        raise ConfigurationError("bus.start", f"nats-server ended at once: {self._log_tail()}")

    async def _authenticated_round_trip(self) -> None:
        bus = await Bus.connect(self._probe.at(self.url), timeout=START_S)
        try:
            await bus.request("$SYS.REQ.USER.INFO", b"", timeout=START_S)
        finally:
            await bus.close()

    def _log_tail(self) -> str:
        with contextlib.suppress(OSError, ComityError):
            return (self._state / "server.log").read_bytes()[-LOG_TAIL_BYTES:].decode("utf-8", "replace")
        return "it left no log"


def _die_with_parent() -> Callable[[], None] | None:
    """For Linux: ask the kernel to end the child when the thread that started it ends (prctl(2))."""
    if sys.platform != "linux":
        return None
    libc, parent = ctypes.CDLL(None, use_errno=True), os.getpid()

    def in_child() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # the parent died between fork and prctl
            os._exit(1)

    return in_child
