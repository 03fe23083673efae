"""The domains watch each other's logs: proofs carry their word, and a log that was set back stops."""

from __future__ import annotations

import asyncio
import shutil

import pytest

from federation_tests.conftest import MakeWorld
from federation_tests.plan import CLINIC, CLOUD, HYPER
from federation_tests.receipts import fetch, verify
from federation_tests.world import World, ask, until
from receipts import note, proof
from receipts.checkpoint import Checkpoint
from receipts.log import Draft
from receipts.tests.world import placement
from receipts.witnessing import equivocation
from receipts.witnessing.asking import request_body
from schemas.errors import Refused


async def test_every_other_domain_cosigns(calm: World) -> None:
    """clinic.de's own checkpoint, under the signatures of cloud.fr and hyper.us."""
    answer = await calm.client().chat.completions.create(
        **ask("one two three", policy={"data_class": "public"})
    )
    member = answer.model_extra["comity"] if answer.model_extra else {}
    parts = calm[CLINIC].broker.parts
    async with asyncio.timeout(10):
        while True:
            text = await parts.log.proof(member["receipt"])
            names = [line.name for line in note.read(proof.read(text).note).signatures] if text else []
            if len(names) == 3:
                break
            await asyncio.sleep(0.05)  # nobody announces a cosignature
    assert sorted(names) == [f"{CLINIC}/log", f"{CLOUD}/witness", f"{HYPER}/witness"]
    assert parts.circle.status == "witnesses: 2/2"


async def test_a_quorum_of_two_proves_both_receipts(calm: World) -> None:
    """2 of 2: an auditor who demands both other operators finds both receipts witnessed, and on time."""
    answer = await calm.client().chat.completions.create(
        **ask("one two three", policy={"data_class": "personal", "residency": ["EU"]})
    )
    member = answer.model_extra["comity"] if answer.model_extra else {}
    trust = calm.trust_file().with_name("trust-witnessed.toml")
    trust.write_text(calm.trust_file().read_text().replace('quorum = "none"', "quorum = 2"))
    async with asyncio.timeout(10):
        while (found := verify(calm, await fetch(calm.http(), member["receipt"]), trust=trust)).exit_code:  # noqa: ASYNC110 - cosignatures gather after the answer
            await asyncio.sleep(0.1)
    assert found.report["status"] == "anchor: none, witnesses: 2/2"
    for kind in ("placement", "execution"):
        assert found.verdicts(kind, "witnessed") == ["proved"]
        assert "one outage stalls it" in found.claims(kind, "witnessed")[0]["text"]
        assert found.verdicts(kind, "time") == ["proved"]


async def test_a_log_restored_from_an_old_backup_does_not_start(make_world: MakeWorld) -> None:
    world = await make_world()
    clinic = world[CLINIC]
    await clinic.stop_broker()
    backup = clinic.database.with_suffix(".backup")
    shutil.copy(clinic.database, backup)
    await clinic.start_broker()
    await world.ready(CLINIC)
    await world.client().chat.completions.create(**ask("one two", policy={"data_class": "public"}))
    circle = clinic.broker.parts.circle
    await until(lambda: all(witness.size > 0 for witness in circle.witnesses))
    await clinic.stop_broker()
    for name in ("", "-wal", "-shm"):
        clinic.database.with_name(clinic.database.name + name).unlink(missing_ok=True)
    shutil.copy(backup, clinic.database)
    with pytest.raises(Refused) as refused:
        await clinic.start_broker()
    assert refused.value.code == "log.behind_witness"


async def test_a_log_that_shows_two_histories_is_known_to_all(make_world: MakeWorld) -> None:
    """cloud.fr's log key signs a second history and shows it to hyper.us alone: clinic.de hears of it."""
    world = await make_world()
    cloud = world[CLOUD].broker.parts
    await world.client().chat.completions.create(**ask("one two", policy={"data_class": "public"}))
    await cloud.log.issue([Draft(placement(HYPER))])
    await cloud.log.checkpoint()
    circle = cloud.circle
    await until(lambda: all(witness.size > 0 for witness in circle.witnesses))
    (hyper,) = [witness for witness in circle.witnesses if witness.operator == HYPER]
    keys = cloud.log._writer.signer.keys
    forged = keys.note.sign(Checkpoint(circle.origin, hyper.size, bytes(32)).text)
    reply = await hyper.road.add_checkpoint(request_body(hyper.size, [], forged))
    assert reply.status == 422
    for domain in (HYPER, CLINIC):
        state = world[domain].broker.parts.service.witness
        assert state is not None
        await until(lambda state=state: state.convicted)  # type: ignore[misc]
        (document,) = state.convictions()
        assert equivocation.convict_log(equivocation.read(document), [keys.note.key]).origin == circle.origin
        log = world[domain].broker.parts.log
        async with asyncio.timeout(5):
            while await log.convictions() != [document]:  # noqa: ASYNC110 - said a moment after it is caught
                await asyncio.sleep(0.05)
