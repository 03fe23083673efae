"""`comity agent run|status|result|revoke`: the interior's program and its operator's questions."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import uvloop

from domain_agent import config as agent_config
from domain_agent import observe
from domain_agent.admit.results import verify_result
from domain_agent.agent import Agent
from domain_agent.alone import alone
from domain_agent.membership import Membership
from federation.connection import Bus
from schemas.messages.interior import AgentStatus, ResultRequest, RevokeNode, SignedResult

ASK_S: Final = 5.0  # seconds for the running agent to answer


def main(arguments: list[str]) -> int:
    """Run one command and return its exit code."""
    options = _parser().parse_args(arguments)
    config = agent_config.load(options.config)
    match options.command:
        case "run":
            uvloop.run(_run(config))
        case "status":
            _show(asyncio.run(_status(config, "agent.status", b"{}")), as_json=options.json)
        case "result":
            asked = ResultRequest(node_id=options.node).write()
            reply = SignedResult.read(asyncio.run(_ask(config, "agent.result", asked)))
            _show_result(reply, config.membership, as_json=options.json)
        case "revoke":
            order = RevokeNode(node_id=options.node, reason_class=options.reason_class, reason=options.reason)
            status = asyncio.run(_status(config, "agent.revoke", order.write()))
            _show(status, as_json=options.json)
            _warn_of_a_stranger(options.node, status)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="comity agent", description="The interior of a domain.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="serve until SIGTERM")
    status = commands.add_parser("status", help="the nodes as the running agent sees them")
    result = commands.add_parser("result", help="what was found about a node, as a signed and verified EAR")
    result.add_argument("node", metavar="NODE")
    revoke = commands.add_parser("revoke", help="put a node out, at once and until its entry is removed")
    revoke.add_argument("node", metavar="NODE")
    revoke.add_argument("--reason", required=True, metavar="CODE", help="one word, e.g. stolen")
    revoke.add_argument(
        "--class",
        dest="reason_class",
        choices=("compromise", "stale"),
        default="compromise",
        help="compromise ends running answers, stale lets them finish (default: compromise)",
    )
    for command in (run, status, result, revoke):
        command.add_argument(
            "--config", type=Path, required=True, metavar="FILE", help="see examples/agent.toml"
        )
    for command in (status, result, revoke):
        command.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return parser


async def _run(config: agent_config.AgentConfig) -> None:
    with alone(config.state):
        observe.start(config.observe, "comity-agent", config.membership.domain)
        agent = Agent(config, await Bus.connect(config.membership.bus))
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, agent.drain)
        await agent.run()


async def _ask(config: agent_config.AgentConfig, subject: str, payload: bytes) -> bytes:
    bus = await Bus.connect(config.membership.bus)
    try:
        return await bus.request(subject, payload, timeout=ASK_S)
    finally:
        await bus.close()


async def _status(config: agent_config.AgentConfig, subject: str, payload: bytes) -> AgentStatus:
    return AgentStatus.read(await _ask(config, subject, payload))


def _show_result(reply: SignedResult, membership: Membership, *, as_json: bool) -> None:
    """The token, or with --json its claims too. Raises `Refused` unless our registered verifier signed it."""
    claims = verify_result(reply.ear, membership.trust, membership.domain, datetime.now(UTC))
    if as_json:
        sys.stdout.write(json.dumps({"node_id": reply.node_id, "ear": reply.ear, "claims": claims}) + "\n")
    else:
        sys.stdout.write(reply.ear + "\n")


def _warn_of_a_stranger(node: str, status: AgentStatus) -> None:
    """A revocation of a node that is not there yet stands, but a misspelt name puts nobody out."""
    if node not in {each.node_id for each in status.nodes}:
        said = "no node of this name has reported; it is refused should it come"
        sys.stderr.write(f"comity agent: {node}: {said}\n")


def _show(status: AgentStatus, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(status.as_json()) + "\n")
        return
    nodes = "node" if len(status.nodes) == 1 else "nodes"
    sys.stdout.write(f"trust epoch {status.trust_epoch}, {len(status.nodes)} {nodes}\n")
    for node in status.nodes:
        admitted = "admitted" if node.admitted else f"not admitted ({node.reason})"
        simulated = " simulated" if node.simulated else ""
        sys.stdout.write(f"  {node.node_id:<24} {node.health:<9} {admitted}{simulated}\n")
