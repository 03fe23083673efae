"""The embedded server's life: checked, started, stopped, killed, and never left behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from federation.connection import Bus
from federation.embedded import binary
from federation.embedded.binary import check_digest, check_version, find_binary
from federation.embedded.folder import found_bus
from federation.server import EmbeddedServer
from federation.tests.conftest import World, until
from schemas.errors import ConfigurationError, Refused, Undecided


@pytest.mark.parametrize(
    "text", ["nats-server: v2.14.3", "nats-server: v2.12.12", "v2.15.1\n", "v3.0.0", "v2.13.99 v2.14.3"]
)
def test_recent_servers_pass(text: str) -> None:
    if text.startswith("v2.13"):
        with pytest.raises(Refused, match=r"bus\.server_version"):
            check_version(text)
    else:
        check_version(text)


@pytest.mark.parametrize(
    "text",
    ["v2.14.2", "v2.12.11", "v2.13.0", "v2.9.10", "v1.99.99", "v2.15.1-RC.1", "v2.15.1-dev", "", "2.15.1"],
)
def test_old_unreleased_or_nameless_servers_are_refused(text: str) -> None:
    with pytest.raises(Refused, match=r"bus\.server_version"):
        check_version(text)


def test_the_packaged_binary_must_be_the_reviewed_one(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(Refused, match=r"bus\.server_digest"):
        check_digest("0" * 64, "2.15.1", "linux", "x86_64")
    check_digest("0" * 64, "2.15.1", "linux", "unheard-of")
    assert "the lock file's pin is the only guard" in caplog.text


async def test_an_operators_old_binary_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "nats-server"
    old.write_text("#!/bin/sh\necho nats-server: v2.9.10\n")
    monkeypatch.setenv("NATS_SERVER_BIN", str(old))
    with pytest.raises(ConfigurationError, match=r"bus\.binary"):
        await find_binary()
    old.chmod(0o755)
    with pytest.raises(Refused, match=r"bus\.server_version"):
        await find_binary()


async def test_without_a_binary_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NATS_SERVER_BIN", raising=False)
    monkeypatch.setattr(binary, "PACKAGE", "no-such-package-of-ours")
    with pytest.raises(ConfigurationError, match="NATS_SERVER_BIN"):
        await find_binary()


async def test_a_server_starts_answers_and_stops(world: World) -> None:
    assert world.server.url.startswith("tls://127.0.0.1:")
    assert world.server.binary
    assert len(world.server.binary.sha256) == 64
    await world.bus("clinic.de")
    with pytest.raises(ConfigurationError, match=r"bus\.started"):
        await world.server.start()
    await world.server.stop()
    assert world.server.pid is None
    assert not list(world.folder.path.glob("*.ports"))
    await world.server.stop()


async def test_a_wrong_configuration_is_reported_before_anything_runs(tmp_path: Path) -> None:
    folder, _ = found_bus(tmp_path / "bus", {"a.de": []}, datetime.now(UTC))
    folder.config.write_text("accounts: { A: { imports: [ { service: { account: B, subject: x } } ] } }")
    server = folder.server()
    with pytest.raises(ConfigurationError, match=r"bus\.config.*(?s:.*)B"):
        await server.start()
    assert server.pid is None


async def test_a_taken_port_is_reported(world: World) -> None:
    folder, _ = found_bus(world.folder.path.parent / "other", {"a.de": []}, datetime.now(UTC))
    server = folder.server(port=world.server.port)
    with pytest.raises(ConfigurationError, match=r"bus\.start: .*(?s:.*)in use"):
        await server.start()
    assert server.pid is None


async def test_a_founded_folder_is_never_founded_again(world: World) -> None:
    with pytest.raises(ConfigurationError, match=r"bus\.folder"):
        found_bus(world.folder.path, {"a.de": []}, datetime.now(UTC))
    for secret in (
        world.folder.config,
        world.folder.path / "server.key",
        world.folder.seed_file("clinic.de", "broker"),
    ):
        assert secret.stat().st_mode & 0o077 == 0


async def test_only_tls_1_3_with_the_pinned_authority(world: World, tmp_path: Path) -> None:
    other, _ = found_bus(tmp_path / "other", {"a.de": []}, datetime.now(UTC))
    settings = world.settings("clinic.de", "broker")
    strange = other.settings("a.de", "broker", settings.url)
    with pytest.raises(Undecided, match=r"bus\.unreachable.*SSL"):
        await Bus.connect(strange, timeout=1.0)
    context = ssl.create_default_context(cafile=str(world.folder.ca_file))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.open_connection("127.0.0.1", world.server.port, ssl=context)


async def test_nobody_between_can_talk_the_client_out_of_tls(world: World) -> None:
    """A server that says "no TLS needed" hears a TLS greeting and nothing else."""
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    async def pretend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        info = {
            "server_id": "x",
            "version": "2.15.1",
            "auth_required": True,
            "nonce": "abc",
            "max_payload": 99,
        }
        writer.write(b"INFO " + json.dumps(info).encode() + b"\r\n")
        await heard.put(await reader.read(1000))
        writer.close()

    async with await asyncio.start_server(pretend, "127.0.0.1", 0) as between:
        port = between.sockets[0].getsockname()[1]
        settings = world.settings("clinic.de", "broker").at(f"tls://127.0.0.1:{port}")
        with pytest.raises(Undecided, match=r"bus\.unreachable"):
            await Bus.connect(settings, timeout=0.5)
        first = await heard.get()
    assert first.startswith(b"\x16\x03")
    assert b"CONNECT" not in first


async def test_reload_takes_over_a_changed_configuration(world: World) -> None:
    text = world.folder.config.read_text()
    broker = world.plan.domains[0].user("broker")
    kept = await world.bus("clinic.de", "agent")
    gone = await world.bus("clinic.de", "broker")
    world.folder.config.write_text(text.replace(broker.public, world.plan.system.public[:-1] + "A"))
    with pytest.raises(ConfigurationError, match=r"bus\.config"):
        await world.server.reload()
    lines = [line for line in text.splitlines(keepends=True) if broker.public not in line]
    start = next(i for i, line in enumerate(text.splitlines()) if broker.public in line)
    assert "broker" in text.splitlines()[start + 3]
    del lines[start : start + 3]
    world.folder.config.write_text("".join(lines))
    await world.server.reload()
    await asyncio.wait_for(gone.closed.wait(), 10)
    assert kept.connected


PARENT = """
import asyncio, sys
from pathlib import Path
from federation.embedded.folder import BusFolder

async def main():
    server = BusFolder(Path(sys.argv[1])).server()
    await server.start()
    print(server.pid, server.port, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the parent-death signal is Linux's")
async def test_no_orphan_when_the_parent_is_killed(tmp_path: Path) -> None:
    folder, _ = found_bus(tmp_path / "bus", {"a.de": []}, datetime.now(UTC))
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, str(folder.path),
        stdout=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert parent.stdout
    pid, port = map(int, (await asyncio.wait_for(parent.stdout.readline(), 20)).split())
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.close()
    parent.send_signal(signal.SIGKILL)
    await parent.wait()
    await until(lambda: not runs(pid))
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


def runs(pid: int) -> bool:
    """True while the process lives; one that has ended and was not collected yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_server_that_was_never_started_has_no_address(tmp_path: Path) -> None:
    folder, _ = found_bus(tmp_path / "bus", {"a.de": []}, datetime.now(UTC))
    server: EmbeddedServer = folder.server()
    with pytest.raises(Undecided, match=r"bus\.not_started"):
        _ = server.url
