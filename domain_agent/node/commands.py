"""`comity node run|evidence`: the program beside the engine."""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import signal
import sys
import time
from pathlib import Path

import uvloop

from domain_agent import observe
from domain_agent.node import config as node_config
from domain_agent.node.keys import NodeKeys
from domain_agent.node.program import Node
from domain_agent.node.proving.quote import make_evidence
from domain_agent.node.start import collector, device_collector, event_log_reader, start_engine
from schemas.errors import ConfigurationError


def main(arguments: list[str]) -> int:
    """Run one command and return its exit code."""
    options = _parser().parse_args(arguments)
    config = node_config.load(options.config)
    if options.command == "run":
        uvloop.run(_run(config))
    else:
        asyncio.run(_evidence(config, options.challenge))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="comity node", description="The program beside a serving engine.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="serve until SIGTERM, then drain")
    evidence = commands.add_parser("evidence", help="print one NodeEvidence document and end")
    evidence.add_argument("--challenge", metavar="HEX", help="32 bytes to answer (default: random)")
    for command in (run, evidence):
        command.add_argument(
            "--config", type=Path, required=True, metavar="FILE", help="see examples/node.toml"
        )
    return parser


async def _run(config: node_config.NodeConfig) -> None:
    observe.start(config.observe, "comity-node", config.membership.domain)
    node = await Node.start(config)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, node.drain)
    await node.run()


async def _evidence(config: node_config.NodeConfig, challenge: str | None) -> None:
    value = _challenge(challenge)
    engine = await start_engine(config, warm_up=False)
    try:
        evidence = await make_evidence(
            NodeKeys(),
            collector(config.tee),
            engine.configuration,
            federation=config.membership.federation,
            domain=config.membership.domain,
            node_id=config.node_id,
            key_epoch=int(time.time()),
            challenges={config.membership.domain: value},
            now=time.monotonic(),
            devices=device_collector(config.devices),
            event_log=event_log_reader(config.tee),
        )
    finally:
        await engine.close()
    sys.stdout.write(json.dumps(evidence.as_json()) + "\n")


def _challenge(text: str | None) -> bytes:
    try:
        value = bytes.fromhex(text) if text is not None else secrets.token_bytes(32)
    except ValueError:
        value = b""
    if len(value) != 32:
        raise ConfigurationError("node.challenge", "--challenge takes 64 hex digits")
    return value
