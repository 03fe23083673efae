"""The seven scenes of the demo (DESIGN section 9), one test each; `make demo` plays them with a real model.

Real servers, signatures, seals and policies; engines that follow a script.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import ConflictError

from attestation.testing.chip import SimulatedChip
from domain_agent.tests.engines import hang_after
from examples.demo.audit import forge, withhold
from examples.demo.requests import HEALTH, PERSONAL, PUBLIC, rejection
from examples.simulated import OTHER_IMAGE
from federation.found import Founded
from federation_tests.conftest import MakeWorld
from federation_tests.engine import echo
from federation_tests.plan import CHAT, CLINIC, CLOUD, CODE, HYPER, Changes, vendor
from federation_tests.receipts import decided_again, fetch, proved, proved_bundle, verify_as_program
from federation_tests.sse import Streamed, lines, read, request
from federation_tests.stories.test_revocation import revoke, served_by
from federation_tests.world import World, ask, cut, until
from receipts import bundle as bundles
from receipts.log import fsck
from receipts.statements.receipt import PLACEMENT
from schemas import envelope

PROMPT = "one two three four"


async def explained(world: World, policy: dict[str, Any]) -> dict[str, Any]:
    """Every domain's offer for such a request, and the rules that reject it."""
    messages = [{"role": "user", "content": PROMPT}]
    body = {"model": CHAT, "max_tokens": 32, "messages": messages, "comity": {"policy": policy}}
    response = await world.http().post("/explain", json=body)
    assert response.status_code == httpx.codes.OK, response.text
    found: dict[str, Any] = response.json()
    return found


async def answered_by(world: World, policy: dict[str, Any]) -> str:
    """The domain that answers; the answer is whole and its receipt holds."""
    answer = await world.client().chat.completions.create(**ask(PROMPT, policy=policy))
    assert answer.choices[0].message.content == f"{PROMPT} "
    assert answer.model_extra
    member = answer.model_extra["comity"]
    found = await proved(world, world.http(), member["receipt"])
    assert found.exit_code == 0, found.report
    return str(member["domain"])


async def test_scene_1_a_public_question_goes_where_it_is_cheapest(calm: World) -> None:
    prices = {
        plan["domain"]: int(plan["terms"]["money"]) for plan in (await explained(calm, PUBLIC))["plans"]
    }
    assert set(prices) == {CLINIC, CLOUD, HYPER}
    assert min(prices, key=lambda domain: prices[domain]) == HYPER
    assert await answered_by(calm, PUBLIC) == HYPER


async def test_scene_2_personal_data_stays_in_the_eu(calm: World) -> None:
    assert "RES-001-inside-residency" in rejection(await explained(calm, PERSONAL), HYPER)
    assert await answered_by(calm, PERSONAL) == CLOUD


async def test_scene_3_health_data_of_german_origin_stays_at_home(calm: World) -> None:
    found = await explained(calm, HEALTH)
    for domain in (CLOUD, HYPER):
        assert "DAT-001-special-category-stays-home" in rejection(found, domain)
    assert await answered_by(calm, HEALTH) == CLINIC


async def test_scene_4_what_nobody_may_do_is_refused_in_type(calm: World) -> None:
    heard = {name: len(engine.bodies) for name, engine in calm.engines.items()}
    with pytest.raises(ConflictError) as refused:
        await calm.client().chat.completions.create(**ask(PROMPT, model=CODE, policy=HEALTH))
    assert refused.value.code == "infeasible"
    detail = json.loads(refused.value.response.content)["error"]["comity"]
    assert detail["binding"]
    assert detail["smallest_relaxation"]["candidates"] >= 1
    assert {entry["domain"] for entry in detail["rejected"]} == {CLINIC, CLOUD, HYPER}
    assert all(entry["rules"] for entry in detail["rejected"])
    (policy,) = (await decided_again(calm, detail["receipt"])).claims("placement", "policy")
    assert (policy["verdict"], policy["code"]) == ("proved", None), policy["text"]
    assert heard == {name: len(engine.bodies) for name, engine in calm.engines.items()}


def tampered(founded: Founded) -> None:
    """The hospital's machine measured an image that nobody vouches for; its chip is the enrolled one."""
    place = founded.folder.parent / "machines" / CLINIC / "ward-1" / "chip"
    enrolled = SimulatedChip.load(place)
    shutil.rmtree(place)
    vendor().make_chip(chip_id=enrolled.chip_id, measurement=OTHER_IMAGE).save(place)


async def test_scene_5_tampered_evidence_is_never_admitted_and_a_revoked_node_is_avoided(
    make_world: MakeWorld,
) -> None:
    changes = Changes(domains=(CLINIC, CLOUD), nodes={CLOUD: ("paris-1", "paris-2")})
    world = await make_world(changes, before=tampered, wait=False)
    await until(lambda: _ready_but_for_ward_1(world), within=30)
    record = world[CLINIC].agent.book.get("ward-1")
    assert record
    assert record.reason
    assert "measurement" in record.reason
    assert not record.admitted(world[CLINIC].agent.clock.wall())
    # Of the two good nodes, the one that answers is put out in mid-answer.
    found = Streamed()
    for engine in world.engines.values():
        engine.script = echo(pause_s=0.05)
    async with world.http().stream("POST", "/chat/completions", json=request(PROMPT, policy=PERSONAL)) as on:
        async for data in lines(on):
            found.take(data)
            if found.text == "one ":
                (busy,) = served_by(world, PROMPT)
                await revoke(world, busy, "stale")
    assert found.complete
    assert found.text == f"{PROMPT} "
    stream = await read(world.http(), request("the next request", policy=PERSONAL))
    assert stream.complete
    assert served_by(world, "the next request") == [{"paris-1": "paris-2", "paris-2": "paris-1"}[busy]]
    assert "ward-1" not in (*served_by(world, PROMPT), *served_by(world, "the next request"))


def _ready_but_for_ward_1(world: World) -> bool:
    """All are admitted and known but the tampered node, which was judged."""
    record = world[CLINIC].agent.book.get("ward-1")
    missing = [text for text in world.missing() if "ward-1" not in text and f"of {CLINIC}" not in text]
    return record is not None and record.reason is not None and not missing


@pytest.mark.parametrize("elsewhere", [True, False], ids=["continues elsewhere", "ends in type"])
async def test_scene_6_a_domain_killed_in_mid_stream(make_world: MakeWorld, elsewhere: bool) -> None:
    """Never a silent change of model, never complete when it is not."""
    world = await make_world()
    for name, engine in world.engines.items():
        engine.script = hang_after("one ", "two ") if name == "virginia-1" else echo()
    policy = PUBLIC if elsewhere else PUBLIC | {"residency": ["US"]}
    found = Streamed()
    async with world.http().stream("POST", "/chat/completions", json=request(PROMPT, policy=policy)) as on:
        async for data in lines(on):
            found.take(data)
            if found.text == "one two ":
                await _kill(world, HYPER)
    assert found.text.startswith("one two ")
    if not elsewhere:
        assert found.failed
        choices = [choice for event in found.events for choice in event.get("choices", [])]
        assert not any(choice["finish_reason"] for choice in choices)
        return
    assert found.complete
    assert found.text == f"{PROMPT} "
    assert found.comity["domain"] in (CLINIC, CLOUD)
    assert found.comity["began"]["domain"] == HYPER
    models = await _placed_models(world, found.comity["receipt"])
    assert len(models) == 2
    assert len(set(models)) == 1
    (went_on,) = [name for name in served_by(world, PROMPT) if name != "virginia-1"]
    last = world.engines[went_on].bodies[-1]["messages"][-1]
    assert last == {"role": "assistant", "content": "one two "}


async def _placed_models(world: World, receipt: str) -> list[str]:
    """Digest of the model of every Placement of that receipt's request."""
    held = bundles.read(await fetch(world.http(), receipt))
    stated = [json.loads(envelope.read(data).payload) for data in held.envelopes.values()]
    return [
        each["predicate"]["capability"]["artifactDigest"]
        for each in stated
        if each["predicateType"] == PLACEMENT
    ]


async def _kill(world: World, name: str) -> None:
    """Every program of a domain is gone from the bus at once, without a word."""
    domain = world[name]
    cut(domain.broker.parts.bus)
    cut(domain.agent.bus)
    for node in domain.nodes.values():
        await node.kill()


async def test_scene_7_the_auditor_sees_the_forged_and_the_missing_receipt(
    calm: World, tmp_path: Path
) -> None:
    """`comity receipt verify` without a network: a whole bundle, a forgery, and one without its Execution."""
    answer = await calm.client().chat.completions.create(**ask(PROMPT, policy=PERSONAL))
    assert answer.model_extra
    bundle = await proved_bundle(calm.http(), answer.model_extra["comity"]["receipt"])
    whole = tmp_path / "whole.receipt"
    whole.write_bytes(bundle)
    found = await verify_as_program(calm, bundle, tmp_path)
    assert (found.exit_code, found.failed) == (0, [])
    forged = await verify_as_program(calm, forge(whole).read_bytes(), tmp_path)
    assert forged.exit_code == 1
    assert ("execution", "signature", "envelope.signature_invalid") in forged.failed
    withheld = await verify_as_program(calm, withhold(whole).read_bytes(), tmp_path)
    assert (withheld.exit_code, withheld.failed) == (3, [])
    assert withheld.report["missing"] == ["execution-link", "ack-link"], (
        "and what acknowledges it leads nowhere"
    )
    for domain in calm.domains.values():
        assert fsck.check(domain.database).wrong == []
