"""A domain that is slower than it says is found out by its own runs, and by nothing that it says."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from broker.select.predict import advertised
from federation_tests.conftest import MakeWorld
from federation_tests.engine import echo
from federation_tests.plan import CHAT, CLINIC, Changes
from federation_tests.world import ask

WORDS = " ".join(f"w{number}" for number in range(20))


async def test_runs_correct_what_a_domain_says_of_its_speed_and_the_error_is_published(
    make_world: MakeWorld,
) -> None:
    """Its engine was quick when it was tried, and says ten words a second afterwards."""
    made = await make_world(Changes(domains=(CLINIC,)))
    broker, client = made[CLINIC].broker, made.client()
    (node,) = made[CLINIC].nodes.values()
    predictor = broker.parts.dispatcher.placing.predictor
    listing = broker.parts.service.directory.get(CLINIC, datetime.now(UTC))
    assert listing
    (cell,) = [each for each in listing.summary.cells if each.cls == CHAT]
    said = advertised(cell).decode_tps
    assert said >= 30, "or there is nothing to be found out"
    node.engine.script = echo(pause_s=0.1)
    speeds = []
    for _ in range(3):
        answer = await client.chat.completions.create(**ask(WORDS))
        assert answer.usage
        assert answer.usage.completion_tokens == 20
        speeds.append(predictor.speed(CLINIC, cell, time.time()).decode_tps)
    assert said > speeds[0] > speeds[1] > speeds[2]
    assert speeds[-1] < said * 2 / 3
    page = await made.http().get(broker.base_url.removesuffix("/v1") + "/metrics")
    assert 'comity_prediction_error_ratio{term="decode"}' in page.text
