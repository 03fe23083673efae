"""The real engine with the real small model: scopes, continuation, silence, and its end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from domain_agent.node.engine import process as engine_process
from domain_agent.node.engine.process import LlamaProcess
from domain_agent.tests.bench import Bench, bench, until
from domain_agent.tests.consumer import chat
from domain_agent.tests.founding import Founded, small_model
from schemas.errors import ConfigurationError

PARENT = """
import asyncio, sys
from pathlib import Path
from domain_agent.node.engine.process import LlamaProcess

async def main():
    engine = await LlamaProcess.start(Path(sys.argv[1]), alias="m", parallel=1, context=512, threads=1)
    print(engine.pid, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""
PROMPT = "The harbour master counts ships: one ship, two ships, three ships, four ships."
A, B = "a" * 64, "b" * 64


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine() -> AsyncIterator[LlamaProcess]:
    """One engine for the module: loading takes a second on a busy machine."""
    started = await LlamaProcess.start(small_model(), alias="model", parallel=1, context=1024, threads=1)
    yield started
    await started.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def node(founded: Founded, engine: LlamaProcess) -> AsyncIterator[Bench]:
    async with bench(founded, engine.address, slots=1, prefix_cache="slots", key=engine.key) as made:
        yield made


async def _cached(node: Bench, **header: Any) -> int:
    attempt = node.consumer.order(node.facts, chat(PROMPT, max_tokens=2), **header)
    await node.run(attempt)
    assert attempt.end, attempt.problem
    assert attempt.statement
    assert attempt.statement.outcome == "ok", attempt.statement.code
    return attempt.end.usage.cached_tokens


async def test_cached_state_is_met_by_its_own_scope_alone(node: Bench) -> None:
    tenant = {"cache_scope": "tenant", "retention_s": 60}
    assert await _cached(node, **tenant, cache_key=A) == 0
    assert await _cached(node, **tenant, cache_key=A) > 20
    assert await _cached(node, **tenant, cache_key=B) == 0
    assert await _cached(node, cache_scope="session", retention_s=60, cache_key=B) == 0
    assert await _cached(node, cache_scope="none") == 0
    assert await _cached(node, **tenant, cache_key=B) == 0
    assert await _cached(node, cache_scope="tenant", retention_s=0, cache_key=B) > 20
    assert await _cached(node, **tenant, cache_key=B) == 0  # retention 0 erased it


async def test_an_answer_is_continued_from_its_own_beginning(node: Bench) -> None:
    messages = [
        {"role": "user", "content": "Count from one to ten in words, separated by commas."},
        {"role": "assistant", "content": "One, two, three, four,"},
    ]
    body = {"messages": messages, "temperature": 0, "max_tokens": 6}
    attempt = node.consumer.order(node.facts, body, parent="9" * 64, attempt=1)
    await node.run(attempt)
    assert attempt.text.strip().lower().startswith("five")
    assert attempt.statement
    assert attempt.statement.segment == 1


async def test_several_choices_come_one_after_the_other(node: Bench) -> None:
    attempt = node.consumer.order(node.facts, chat("Say hi", n=2, max_tokens=3))
    await node.run(attempt)
    assert {choice["index"] for choice in attempt.choices} == {0, 1}
    ends = [choice["finish_reason"] for choice in attempt.choices if choice.get("finish_reason")]
    assert ends == ["length", "length"]
    assert attempt.end
    assert attempt.end.usage.output_tokens == 6


async def test_a_prompt_beyond_the_context_is_refused_by_kind(node: Bench) -> None:
    attempt = node.consumer.order(node.facts, chat("word " * 1500))
    ending = await node.run(attempt)
    assert ending
    assert ending.code == "engine.context_length"


async def test_the_engine_writes_no_prompt_and_keeps_no_file(node: Bench, engine: LlamaProcess) -> None:
    canary = "zanzibar-canary-771"
    await node.run(node.consumer.order(node.facts, chat(canary, max_tokens=2)))
    assert canary not in engine.said
    assert list(engine.folder.iterdir()) == []
    assert engine.folder.stat().st_mode & 0o077 == 0


async def test_the_engine_needs_its_key(founded: Founded, engine: LlamaProcess) -> None:
    async with bench(founded, engine.address, slots=1, key="another") as stranger:
        ending = await stranger.run(stranger.consumer.order(stranger.facts, chat("hi")))
    assert ending
    assert ending.code == "engine.rejected"


@pytest.mark.skipif(sys.platform != "linux", reason="parent-death signals are Linux's")
async def test_the_engine_dies_with_its_node(tmp_path: Path) -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, str(small_model()), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout
    child = int(await parent.stdout.readline())
    parent.kill()
    await parent.wait()
    await until(lambda: not _alive(child))


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


async def test_a_file_that_is_no_model_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"not a model")
    with pytest.raises(ConfigurationError, match="cannot serve"):
        await LlamaProcess.start(tmp_path / "bad.gguf", alias="m", parallel=1, context=512, threads=1)


async def test_the_binary_that_is_hashed_is_the_engine() -> None:
    assert engine_process.llama_binary().stat().st_size > 10_000_000


async def test_last_an_engine_killed_in_mid_answer_leaves_no_normal_end(
    node: Bench, engine: LlamaProcess
) -> None:
    attempt = node.consumer.order(node.facts, chat("Tell a long story", max_tokens=60))
    running = asyncio.create_task(node.run(attempt))
    await until(lambda: attempt.text)
    os.kill(engine.pid, signal.SIGKILL)
    ending = await running
    assert ending
    assert (ending.outcome, ending.code) == ("partial", "engine.lost")
