"""`comity witness serve`: a witness for the logs that it is given, over HTTP; put TLS in front of it."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import uvicorn
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from receipts.cosignature import COSIGNATURE, SUBTREE, Cosigner
from receipts.note import NoteKey
from receipts.witnessing.server import build_app
from receipts.witnessing.state import WitnessState
from schemas.errors import ConfigurationError
from schemas.keys import read_secret


def main(argv: Sequence[str]) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code (DESIGN 7). Raises `ComityError`."""
    try:
        arguments = _parser().parse_args(argv)
    except SystemExit as stop:  # argparse has printed why
        return stop.code if isinstance(stop.code, int) else 2
    logs: dict[str, list[NoteKey]] = {}
    for vkey in arguments.log:
        key = NoteKey.read(vkey)
        logs.setdefault(key.name, []).append(key)
    seed = read_seed(arguments.key)
    kinds = (COSIGNATURE, SUBTREE) if arguments.ml_dsa else (COSIGNATURE,)
    signers = [Cosigner.of(arguments.name, seed, kind) for kind in kinds]
    state = WitnessState.open(arguments.state, logs=logs, signers=signers)
    try:
        for signer in signers:
            sys.stdout.write(f"witness {signer.key.vkey}\n")
        asyncio.run(serve(state, _bind(arguments.listen)))
    finally:
        state.close()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="comity witness", description="Watch others' logs (C2SP tlog-witness)."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("serve", help="cosign what continues; refuse and keep what does not")
    run.add_argument("--state", type=Path, required=True, metavar="FILE", help="what it must remember")
    run.add_argument(
        "--key", type=Path, required=True, metavar="FILE", help="Ed25519 key, PKCS#8 PEM, mode 0600"
    )
    run.add_argument("--name", required=True, help="the witness's name, such as clinic.de/witness")
    run.add_argument(
        "--log", action="append", required=True, metavar="VKEY", help="a log to watch; repeat it"
    )
    run.add_argument("--listen", default="127.0.0.1:0", metavar="HOST:PORT", help="port 0 takes a free one")
    run.add_argument(
        "--ml-dsa", action="store_true", help="cosign with ML-DSA-44 as well, from the same seed"
    )
    return parser


def read_seed(path: Path) -> bytes:
    """The 32-byte seed of an Ed25519 key file. Raises `ConfigurationError`."""
    try:
        private = load_pem_private_key(read_secret(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        private = None
    if not isinstance(private, Ed25519PrivateKey):
        raise ConfigurationError("witness.key", f"{path}: an Ed25519 key in PKCS#8 PEM is required")
    return private.private_bytes_raw()


def _bind(listen: str) -> socket.socket:
    host, _, port = listen.rpartition(":")
    try:
        listener = socket.create_server((host.strip("[]"), int(port)))
    except (OSError, ValueError, OverflowError):
        raise ConfigurationError("witness.listen", f"{listen}: not an address to listen on") from None
    return listener


async def serve(state: WitnessState, listener: socket.socket) -> None:
    """Answer on this socket until told to stop; what is being answered ends first."""
    host, port = listener.getsockname()[:2]
    config = uvicorn.Config(build_app(state), log_level="warning", access_log=False, lifespan="off")
    server = _Server(config)
    loop = asyncio.get_running_loop()

    def stop() -> None:
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    sys.stdout.write(f"listens on http://{host}:{port}\n")
    sys.stdout.flush()
    await server.serve(sockets=[listener])


class _Server(uvicorn.Server):
    """uvicorn without signal handlers of its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
