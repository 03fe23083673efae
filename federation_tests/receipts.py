"""Receipts as an application and an auditor handle them: fetched over HTTP, verified by the command line."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import httpx

from broker.select.replayed import SELECTION
from federation_tests.plan import CLINIC
from federation_tests.world import World
from receipts import bundle as bundles
from receipts.audit.logfile import LogFile
from receipts.commands.receipt import load_trust
from receipts.commands.take import take
from receipts.statements.receipt import MODELS, AcknowledgementReceipt, ExecutionReceipt
from receipts.statements.statement import parse_receipt, receipt_kind
from receipts.verify import verify_bundle
from schemas import envelope
from schemas.policy.policy_set import PolicySet

PROOF_S: Final = 1.0  # seconds after an answer within which its proofs are due (DESIGN 3.8)
LOOK_S: Final = 0.05  # seconds between two looks
OFFLINE: Final = """
import socket, sys
def no_network(*_):
    raise OSError("there is no network here")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = no_network
import comity
sys.argv[0] = "comity"
comity.main()
"""
"""The command line with the network taken away."""


@dataclass(frozen=True, slots=True)
class Verified:
    """What `comity receipt verify --json` said."""

    exit_code: int
    report: dict[str, Any]

    def claims(self, kind: str, name: str) -> list[dict[str, Any]]:
        """The claim of this name on every receipt of this kind (`placement`, `execution`)."""
        return [
            claim
            for receipt in self.report["receipts"]
            if receipt["kind"] == kind
            for claim in receipt["claims"]
            if claim["claim"] == name
        ]

    def verdicts(self, kind: str, name: str) -> list[str]:
        return [claim["verdict"] for claim in self.claims(kind, name)]

    @property
    def failed(self) -> list[tuple[str, str, str | None]]:
        """(kind, claim, code) of everything that was checked and is wrong."""
        return [
            (receipt["kind"], claim["claim"], claim["code"])
            for receipt in self.report["receipts"]
            for claim in receipt["claims"]
            if claim["verdict"] == "failed"
        ]


async def fetch(http: httpx.AsyncClient, receipt_id: str) -> bytes:
    """The bundle as it is now."""
    response = await http.get(f"/receipts/{receipt_id}")
    assert response.status_code == httpx.codes.OK, response.text
    return response.content


def verify(world: World, bundle: bytes, *, trust: Path | None = None) -> Verified:
    """What `comity receipt verify` says of these bytes now; it reads nothing but the trust file."""
    report = verify_bundle(bundle, load_trust(trust or world.trust_file()), at=datetime.now(UTC))
    return Verified(report.exit_code, report.as_json())


async def decided_again(world: World, receipt_id: str) -> Verified:
    """What an auditor finds who may see the losers, too: out of the log's own file, decided again."""
    papers = bundles.read(await fetch(world.http(), receipt_id))
    texts = {PolicySet.load(text.decode(), "set").digest: text for text in papers.policies}
    with LogFile(world[CLINIC].database) as log:
        held = take(log, receipt_id, papers, texts, explained=True)
    trust = load_trust(world.trust_file())
    report = verify_bundle(bundles.write(held), trust, at=datetime.now(UTC), selection=SELECTION)
    return Verified(report.exit_code, report.as_json())


async def verify_as_program(world: World, bundle: bytes, folder: Path) -> Verified:
    """`comity receipt verify BUNDLE --trust FILE --json`, as a program without a network."""
    path = folder / "bundle.receipt"
    path.write_bytes(bundle)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        OFFLINE,
        "receipt",
        "verify",
        str(path),
        "--trust",
        str(world.trust_file()),
        "--json",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert output, errors.decode()
    return Verified(process.returncode or 0, json.loads(output))


async def proved_bundle(http: httpx.AsyncClient, receipt_id: str) -> bytes:
    """The bundle once all receipts in it are proved to stand in their logs; fails after `PROOF_S`.

    Two where one domain asked and ran, three with the Acknowledgement of what another ran.
    """
    async with asyncio.timeout(PROOF_S):
        while True:
            data = await fetch(http, receipt_id)
            if _is_proved(bundles.read(data)):
                return data
            await asyncio.sleep(LOOK_S)


def _is_proved(papers: bundles.Bundle) -> bool:
    """Whether there is an Execution, each from abroad is acknowledged, and all receipts have their proofs."""
    payloads = [envelope.read(data).payload for data in papers.envelopes.values()]
    kinds = [(receipt_kind(payload), payload) for payload in payloads]
    bodies = [parse_receipt(payload, MODELS[kind]) for kind, payload in kinds if kind in MODELS]
    executed = [each for each in bodies if isinstance(each, ExecutionReceipt)]
    abroad = [each for each in executed if each.issuer != each.peer]
    acknowledged = [each for each in bodies if isinstance(each, AcknowledgementReceipt)]
    return bool(executed) and len(acknowledged) == len(abroad) and len(papers.proofs) == len(bodies)


async def proved(world: World, http: httpx.AsyncClient, receipt_id: str) -> Verified:
    """As an auditor sees the proved bundle."""
    return verify(world, await proved_bundle(http, receipt_id))
