"""`comity broker …`: serve a domain's border, or make an API key for a tenant."""

from __future__ import annotations

import argparse
import hashlib
import secrets
import sys
from pathlib import Path
from typing import Final

KEY_BYTES: Final = 32  # random bytes in an API key; its digest can then stand in a file
KEY_PREFIX: Final = "cmt_"  # so that scanners for leaked secrets can know one


def main(argv: list[str]) -> int:
    """Run one sub-command. Raises `ConfigurationError`; argparse exits with 2 for wrong usage."""
    parser = argparse.ArgumentParser(prog="comity broker", description="The border of one domain.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    serve = commands.add_parser("serve", help="serve applications and peers until SIGTERM")
    serve.add_argument("--config", type=Path, required=True, metavar="FILE", help="see examples/broker.toml")
    commands.add_parser("key", help="make an API key; prints it and what to write under [[tenants]]")
    arguments = parser.parse_args(argv)
    return _serve(arguments.config) if arguments.command == "serve" else _key()


def _serve(path: Path) -> int:
    from broker.starting.config import BrokerConfig
    from broker.starting.program import serve

    return serve(BrokerConfig.load(path))


def _key() -> int:
    key, digest = new_key()
    sys.stdout.write(f"key: {key}\nkeys = [{digest!r}]\n".replace("'", '"'))
    return 0


def new_key() -> tuple[str, str]:
    """An API key, and the digest that the configuration holds of it (64 hex digits)."""
    key = KEY_PREFIX + secrets.token_urlsafe(KEY_BYTES)
    return key, hashlib.sha256(key.encode("ascii")).hexdigest()
