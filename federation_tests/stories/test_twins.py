"""Two programs with one identity: a folder that was copied, and started on a second machine."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from domain_agent import config as agent_config
from domain_agent.agent import Agent
from federation.connection import Bus
from federation_tests.conftest import MakeWorld
from federation_tests.plan import CLINIC, CLOUD, Changes
from federation_tests.sse import read, request
from federation_tests.world import Domain
from schemas.errors import ConfigurationError

FRANCE = {"data_class": "public", "residency": ["FR"]}
PAIR = Changes(domains=(CLINIC, CLOUD), nodes={CLINIC: (), CLOUD: ("paris-1",)})


async def test_a_second_broker_of_a_domain_does_not_start(make_world: MakeWorld, tmp_path: Path) -> None:
    """Both would answer every peer, and sign two histories of one log, which convicts their domain."""
    world = await make_world(PAIR)
    copy = Domain(CLOUD, tmp_path / "copy")
    shutil.copytree(world[CLOUD].folder, copy.folder)
    with pytest.raises(ConfigurationError, match=rf"broker\.twice: .*{CLOUD}"):
        await copy.start_broker()
    assert (await read(world.http(), request("still served", policy=FRANCE))).complete


async def test_a_second_agent_of_a_domain_does_not_start(make_world: MakeWorld, tmp_path: Path) -> None:
    """Both would sell the same slots, and the one that started last would be believed."""
    world = await make_world(PAIR)
    folder = tmp_path / "copy"
    shutil.copytree(world[CLOUD].folder, folder)
    config = agent_config.load(folder / "agent.toml")
    with pytest.raises(ConfigurationError, match=rf"agent\.twice: .*{CLOUD}"):
        await Agent(config, await Bus.connect(config.membership.bus)).run()
    assert (await read(world.http(), request("still served", policy=FRANCE))).complete
