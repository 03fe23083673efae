"""One trace per request, through broker, peer broker, agent and node; and its proof within a second."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from federation_tests.plan import CLOUD
from federation_tests.receipts import PROOF_S, proved
from federation_tests.world import World, ask

SPANS_S: Final = 5.0  # seconds for the last span of a request to end
FRANCE = {"data_class": "personal", "residency": ["FR"]}
WHERE = {
    "request": "the consumer's edge",
    "agree": "its broker",
    "execute": "its broker",
    "border call": "the provider's border",
    "border execute": "the provider's border",
    "agent.hold": "the provider's agent",
    "node.execute": "the node",
}


async def test_one_trace_runs_through_everything(calm: World) -> None:
    """The last span to end is the border's: it waits for the Execution to be written."""
    http = calm.http()
    answer = await calm.client().chat.completions.create(**ask("trace me", policy=FRANCE))
    assert answer.model_extra
    member = answer.model_extra["comity"]
    found: dict[str, dict[str, Any]] = {}
    try:
        async with asyncio.timeout(SPANS_S):
            while not found.keys() >= WHERE.keys():
                trace = (await http.get(f"/traces/{member['request']}")).json()
                found = {span["name"]: span for span in trace["spans"]}
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError({name: WHERE[name] for name in WHERE.keys() - found.keys()}) from None
    assert {span["trace"] for span in found.values()} == {trace["trace"]}
    steps = {name: [step["name"] for step in found[name]["steps"]] for name in ("request", "border call")}
    assert steps == {"request": ["feasible", "rank", "prove", "decide"], "border call": ["offer"]}
    parents = {name: span["parent"] for name, span in found.items()}
    assert parents["request"] is None
    assert parents["border execute"] == found["execute"]["span"]
    assert trace["latency"] == member["latency"]
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
