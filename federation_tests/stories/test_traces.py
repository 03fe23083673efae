"""One trace per request, through broker, peer broker, agent and node; and its proof within a second."""

from __future__ import annotations

import asyncio
import time

import pytest

from federation_tests.plan import CLOUD
from federation_tests.receipts import PROOF_S, proved
from federation_tests.world import World, ask

FRANCE = {"data_class": "personal", "residency": ["FR"]}
WHERE = {
    "request": "the consumer's edge",
    "feasible": "its broker",
    "rank": "its broker",
    "agree": "its broker",
    "prove": "its broker",
    "decide": "its broker",
    "execute": "its broker",
    "border call": "the provider's border",
    "offer": "the provider's border",
    "border execute": "the provider's border",
    "agent.hold": "the provider's agent",
    "node.execute": "the node",
}


@pytest.mark.parametrize("name", WHERE, ids=lambda name: f"{name} in {WHERE[name]}")
async def test_one_trace_runs_through_everything(calm: World, name: str) -> None:
    http = calm.http()
    answer = await calm.client().chat.completions.create(**ask("trace me", policy=FRANCE))
    assert answer.model_extra
    request = answer.model_extra["comity"]["request"]
    async with asyncio.timeout(PROOF_S):
        while True:
            trace = (await http.get(f"/traces/{request}")).json()
            spans = {span["name"]: span for span in trace["spans"]}
            if name in spans or trace["complete"]:
                break
            await asyncio.sleep(0.02)
    assert name in spans, sorted(spans)
    assert spans[name]["trace"] == trace["trace"]
    assert trace["latency"] == answer.model_extra["comity"]["latency"]
    assert trace["latency"].startswith(f"served by {CLOUD} ")


async def test_the_receipt_names_the_trace_and_is_proved_within_a_second(calm: World) -> None:
    client, http = calm.client(), calm.http()
    answer = await client.chat.completions.create(**ask("prove it", policy=FRANCE))
    began = time.monotonic()
    assert answer.model_extra
    found = await proved(calm, http, answer.model_extra["comity"]["receipt"])
    assert time.monotonic() - began < PROOF_S
    assert found.verdicts("placement", "logged") == ["proved"]
    assert found.verdicts("execution", "logged") == ["proved"]
