"""Listens for applications, and stops without cutting anyone off silently.

Owns the listening socket. Signals belong to the program: on SIGTERM it calls `drain`, then `stop`.
A crash drops connections; what was promised by then is in the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import Iterator
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from broker.edge.connection import EdgeConnection
from broker.edge.gate import Gate
from broker.starting.config import Listen, ServerCertificate
from schemas.errors import ConfigurationError

KEEP_ALIVE_S: Final = 75  # seconds that an idle connection stays open; longer than common proxies' 60
CLOSING_S: Final = 2  # seconds for connections to close once nothing runs
BACKLOG: Final = 2048  # connections waiting to be accepted


class _Server(uvicorn.Server):
    """uvicorn without signal handlers of its own (the program drains first), saying when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class EdgeServer:
    """One listening socket with the application behind it."""

    def __init__(self, app: ASGIApp, listen: Listen, gate: Gate) -> None:
        self._listen = listen
        self._gate = gate
        self._server = _Server(_uvicorn_config(app, listen))
        self._task: asyncio.Task[None] | None = None
        self.port = listen.port
        """The real one once started."""

    @property
    def base_url(self) -> str:
        """What clients take as `base_url`."""
        scheme = "https" if isinstance(self._listen.tls, ServerCertificate) else "http"
        host = f"[{self._listen.host}]" if ":" in self._listen.host else self._listen.host
        return f"{scheme}://{host}:{self.port}/v1"

    async def start(self) -> None:
        """Listen. Raises `ConfigurationError` when the address cannot be had; then nothing runs."""
        listener = _bind(self._listen)
        self.port = listener.getsockname()[1]
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]))
        await self._server.listening.wait()
        if self._listen.port_file is not None:
            _write_port(self._listen, self.port)

    async def drain(self) -> None:
        """Take no new work (503); running requests end by themselves, or in type when their time is over."""
        await self._gate.drain()

    async def stop(self) -> None:
        """Close the socket and what is still connected. Harmless when not started."""
        self._server.should_exit = True
        if self._task is not None:
            await self._task
        if self._listen.port_file is not None:
            self._listen.port_file.unlink(missing_ok=True)


def _uvicorn_config(app: ASGIApp, listen: Listen) -> uvicorn.Config:
    tls = listen.tls if isinstance(listen.tls, ServerCertificate) else None
    config = uvicorn.Config(
        app,
        http=EdgeConnection,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=CLOSING_S,
        reset_contextvars=True,  # otherwise one request's trace and log fields leak into the next
        ssl_certfile=tls.certificate if tls else None,
        ssl_keyfile=tls.key if tls else None,
    )
    try:
        config.load()
    except (ssl.SSLError, OSError) as error:
        where = f"listen.tls: {tls.certificate if tls else ''}"
        raise ConfigurationError(
            "config.tls", f"{where}: not a usable certificate and key: {error}"
        ) from None
    return config


def _bind(listen: Listen) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        where = f"{listen.host}:{listen.port}"
        raise ConfigurationError("config.listen", f"listen: {where}: {error.strerror or error}") from None
    return listener


def _write_port(listen: Listen, port: int) -> None:
    """Whole or not at all: whoever waits for the file reads a complete number."""
    assert listen.port_file is not None
    listen.port_file.parent.mkdir(parents=True, exist_ok=True)
    partial = listen.port_file.with_name(listen.port_file.name + ".partial")
    partial.write_text(f"{port}\n", encoding="ascii")
    os.replace(partial, listen.port_file)
