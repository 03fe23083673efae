"""The programs as an operator starts them: real processes, exit codes, one trace, quiet logs."""

from __future__ import annotations

import asyncio
import json
import secrets
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from domain_agent import commands as agent_commands
from domain_agent.node import commands as node_commands
from domain_agent.tests.consumer import Consumer, NodeFacts, chat
from domain_agent.tests.domain import ANSWER_S, domain
from domain_agent.tests.engines import ScriptedEngine
from domain_agent.tests.founding import PEER, Founded
from federation.stream import open_stream
from schemas.messages.interior import AgentStatus, EvidenceRequest
from schemas.proof.evidence import NodeEvidence

ROOT = Path(__file__).parents[2]
CANARY = f"canary-{secrets.token_hex(8)}"


@asynccontextmanager
async def comity(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """One `comity` process, ended by its id if the test does not end it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(ROOT / "comity.py"), *arguments,
        cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def output(*arguments: str) -> tuple[int | None, bytes, bytes]:
    async with comity(*arguments) as process:
        out, err = await process.communicate()
        return process.returncode, out, err


async def ended(process: asyncio.subprocess.Process) -> str:
    process.send_signal(signal.SIGTERM)
    _, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return err.decode()


async def test_the_programs_serve_one_traced_run_and_end_on_sigterm(founded: Founded, tmp_path: Path) -> None:
    async with ScriptedEngine() as engine, domain(founded, tmp_path) as clinic:
        agent_file = clinic.agent_file(observe=tmp_path / "agent.spans")
        node_file = clinic.scripted_file(engine, observe=tmp_path / "node.spans")
        async with comity("agent", "run", "--config", agent_file) as agent:
            async with comity("node", "run", "--config", node_file) as node:
                await clinic.admitted("n1")
                code, out, _ = await output("agent", "status", "--config", agent_file, "--json")
                assert code == 0
                assert AgentStatus.read(out).nodes[0].admitted
                code, out, _ = await output("agent", "result", "n1", "--config", agent_file, "--json")
                assert code == 0
                assert json.loads(out)["claims"]["submods"]["node"]["ear.status"] == "affirming"
                hold = (await clinic.hold()).hold
                assert hold
                asked = EvidenceRequest(evidence=hold.evidence).write()
                evidence = NodeEvidence.read(
                    await clinic.broker.request("agent.evidence", asked, timeout=ANSWER_S)
                )
                facts = NodeFacts(evidence.sign_key, hold.seal_key, hold.model_digest)
                attempt = Consumer(founded.message[PEER]).order(facts, chat(CANARY))
                parent = f"00-{'ab' * 16}-{'cd' * 8}-01"
                async with open_stream(
                    clinic.broker,
                    "node.n1.in.execute",
                    attempt.head,
                    attempt.chunks,
                    headers={"traceparent": parent},
                ) as stream:
                    async for frame in stream:
                        attempt.take(frame)
                assert attempt.text == "Hello world"
                code, out, _ = await output(
                    "agent", "revoke", "n1", "--reason", "stolen", "--config", agent_file
                )
                assert code == 0
                assert b"not admitted (node.revoked)" in out
                code, out, err = await output(
                    "agent", "revoke", "n11", "--reason", "stolen", "--config", agent_file
                )
                assert (code, err.count(b"\n")) == (0, 1)
                assert b"n11: no node of this name has reported" in err, "a slip of the pen revokes nobody"
                logs = await ended(node)
            logs += await ended(agent)
        spans = [json.loads(line) for line in (tmp_path / "node.spans").read_text().splitlines()]
        run = [span for span in spans if span["trace"] == "ab" * 16]
        assert {span["name"] for span in run} == {"node.execute", "node.queue", "node.compute"}
        execute = next(span for span in run if span["name"] == "node.execute")
        assert execute["parent"] == "cd" * 8
        assert all(json.loads(line) for line in logs.splitlines())
        said = logs + (tmp_path / "node.spans").read_text() + (tmp_path / "agent.spans").read_text()
        assert CANARY not in said
        assert "Hello" not in said


async def test_a_node_prints_its_evidence(founded: Founded, tmp_path: Path) -> None:
    async with ScriptedEngine() as engine, domain(founded, tmp_path) as clinic:
        node_file = clinic.scripted_file(engine)
        code, out, err = await output("node", "evidence", "--config", node_file, "--challenge", "ab" * 32)
        assert code == 0, err
        evidence = NodeEvidence.read(out.strip())
        assert evidence.expected_report_data() in evidence.cpu.report


async def test_a_question_that_no_bus_carries_is_one_sentence(founded: Founded, tmp_path: Path) -> None:
    async with domain(founded, tmp_path) as clinic:
        agent_file = clinic.agent_file()
    code, out, err = await output("agent", "status", "--config", agent_file)
    assert (code, out, err.count(b"\n")) == (3, b"", 1), err
    assert b"comity agent: bus.unreachable: " in err


async def test_a_wrong_file_ends_with_two() -> None:
    code, _, err = await output("agent", "run", "--config", "/nowhere.toml")
    assert code == 2
    assert b"/nowhere.toml" in err


@pytest.mark.parametrize("arguments", [["run"], ["fly"], ["evidence", "--config"]])
def test_wrong_use_ends_with_two(arguments: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        node_commands.main(arguments)
    with pytest.raises(SystemExit, match="2"):
        agent_commands.main(arguments)
