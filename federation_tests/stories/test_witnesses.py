"""The domains watch each other's logs: proofs carry their word, and a log that was set back stops."""

from __future__ import annotations

import asyncio
import shutil

import pytest

from federation_tests.conftest import MakeWorld
from federation_tests.plan import CLINIC, CLOUD, HYPER
from federation_tests.world import World, ask, until
from receipts import note, proof
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
