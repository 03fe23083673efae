"""Starting and ending the llama.cpp child beside a node.

Owns one child process, its key, and a private folder on memory-backed storage. The child dies with
this process (see engine_llamacpp); a crash here leaves the empty folder behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import secrets
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Final

from schemas.errors import ConfigurationError, Undecided

START_S: Final = 120.0  # s to load a model from a slow disk
STOP_S: Final = 5.0  # s after SIGTERM before that one child is killed
MEMORY_BACKED: Final = Path("/dev/shm")  # noqa: S108 - a private folder is made inside it
STDERR_TAIL_BYTES: Final = 2000  # of a child that failed to start
MAX_REPORT_BYTES: Final = 4096


class LlamaProcess:
    """A running llama.cpp server: `address` (http), `key` (bearer token), `pid`."""

    def __init__(self, process: asyncio.subprocess.Process, address: str, key: str, folder: Path) -> None:
        self._process = process
        self._printed = bytearray()
        self._draining = asyncio.create_task(_drain(process, self._printed))
        self.folder = folder
        self.address = address
        self.key = key

    @classmethod
    async def start(
        cls, model: Path, *, alias: str, parallel: int, context: int, threads: int
    ) -> LlamaProcess:
        """Load the model and wait until the engine listens.

        Raises `ConfigurationError` when the engine is not installed or cannot load the file, and
        `Undecided` (`engine.start`) when it takes longer than `START_S`.
        """
        llama_binary()
        folder = Path(tempfile.mkdtemp(prefix="comity-engine-", dir=_memory_backed()))
        read_end, write_end = os.pipe()
        try:
            numbers = {"parallel": parallel, "context": context, "threads": threads, "report-fd": write_end}
            arguments = [part for name, value in numbers.items() for part in (f"--{name}", str(value))]
            process = await _spawn(
                ["--model", str(model), "--alias", alias, "--slots-dir", f"{folder}/", *arguments], write_end
            )
        except BaseException:
            os.close(read_end)
            shutil.rmtree(folder, ignore_errors=True)
            raise
        finally:
            os.close(write_end)
        key = secrets.token_urlsafe(32)
        try:
            assert process.stdin
            process.stdin.write(key.encode("ascii") + b"\n")
            address = await _address(process, read_end, model)
        except BaseException:
            await _end(process)
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return cls(process, address, key, folder)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def said(self) -> str:
        """The end of what the engine printed: at its quiet level only errors of its own."""
        return self._printed.decode("utf-8", "replace")

    async def wait(self) -> int:
        """The exit status, once the engine has ended."""
        return await self._process.wait()

    async def stop(self) -> None:
        """End the child and remove its folder. Harmless when it has ended already."""
        await _end(self._process)
        await asyncio.gather(self._draining, return_exceptions=True)
        await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)


def llama_binary() -> Path:
    """The engine's shared library, whose digest stands in the evidence. Raises `ConfigurationError`."""
    spec = importlib.util.find_spec("xllamacpp")
    if spec is None or spec.origin is None:
        raise ConfigurationError(
            "engine.missing", 'engine.kind = "llama.cpp" needs the extra: pip install "comity[embedded]"'
        )
    for found in sorted(Path(spec.origin).parent.glob("xllamacpp*.so")):
        return found
    raise ConfigurationError("engine.missing", "the installed xllamacpp has no shared library")


def _memory_backed() -> Path | None:
    return MEMORY_BACKED if os.access(MEMORY_BACKED, os.W_OK) else None


async def _spawn(arguments: list[str], report: int) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "domain_agent.node.engine_llamacpp",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        pass_fds=(report,),
    )


async def _address(process: asyncio.subprocess.Process, read_end: int, model: Path) -> str:
    """Where the child says that it listens."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=MAX_REPORT_BYTES)
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read_end, "rb")
    )
    try:
        async with asyncio.timeout(START_S):
            line = await reader.readline()
    except TimeoutError:
        raise Undecided("engine.start", f"the engine was not ready in {START_S:g} s") from None
    finally:
        transport.close()
    if not line:
        raise ConfigurationError("engine.start", f"the engine cannot serve {model}: {await _tail(process)}")
    return str(json.loads(line)["address"])


async def _tail(process: asyncio.subprocess.Process) -> str:
    assert process.stderr
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(STOP_S):
            text = await process.stderr.read()
            return text[-STDERR_TAIL_BYTES:].decode("utf-8", "replace").strip() or "it ended without a word"
    return "it said nothing"


async def _drain(process: asyncio.subprocess.Process, printed: bytearray) -> None:
    """Read on what the engine prints and keep its end, so that the pipe never fills."""
    assert process.stderr
    while piece := await process.stderr.read(65536):
        printed += piece
        del printed[:-STDERR_TAIL_BYTES]


async def _end(process: asyncio.subprocess.Process) -> None:
    """SIGTERM to that child, then SIGKILL to that child."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(STOP_S):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
