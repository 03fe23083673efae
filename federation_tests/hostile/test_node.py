"""Lies of a node: beyond its own subjects, and about where its engine runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from nats.aio.msg import Msg

from domain_agent.node import config as node_config
from federation.found import Founded
from federation_tests.conftest import MakeWorld
from federation_tests.hostile.lie import Lie, lie
from federation_tests.hostile.lying import ONE_NODE_EACH, declined, heard, tell
from federation_tests.plan import CLINIC, CLOUD
from federation_tests.world import World, until
from schemas.errors import ConfigurationError, Refused

VIOLATION = "Error"
"""What the client calls a `-ERR Permissions Violation` of the server."""


@lie(
    "a node",
    "publishes to a peer",
    by="the server: a node's login may publish under its own name alone",
    codes="bus.not_permitted",
    receipt="nothing: no peer ever hears of it",
)
@pytest.mark.parametrize(
    "subject",
    ["peer.clinic_de.call", "peer.clinic_de.advert", "agent.revoke", "broker.advert", "node.other.out.state"],
)
async def test_a_node_speaks_to_its_own_domain_only(arena: World, told: Lie, subject: str) -> None:
    bus = await arena.bus(CLOUD, "node.paris-1")
    heard_of = [serving.gate.total.accepted for serving in arena[CLINIC].broker.parts.bus.servings]
    with pytest.raises(Refused) as refused:
        await bus.request(subject, b"{}", timeout=5.0)
    assert refused.value.code == told.code
    assert bus.errors[VIOLATION] == 1
    if subject.startswith("peer."):
        after = [serving.gate.total.accepted for serving in arena[CLINIC].broker.parts.bus.servings]
        counts = [b - a for a, b in zip(heard_of, after, strict=True)]
        assert sum(counts) <= 2  # what its own agent advertises meanwhile


@lie(
    "a node",
    "reads a neighbour",
    by="the server: a node's login may subscribe to its own subjects alone",
    codes="bus.not_permitted",
    receipt="nothing: it receives nothing",
)
@pytest.mark.parametrize("pattern", ["node.*.in.>", "node.neighbour.in.>", "_INBOX.broker.>", "agent.>", ">"])
async def test_a_node_hears_its_own_subjects_only(arena: World, told: Lie, pattern: str) -> None:
    """Its client may ask; the server says no, and what passes meanwhile does not reach it."""
    assert told.code == "bus.not_permitted"
    bus, seen = await arena.bus(CLOUD, "node.paris-1"), []

    def note(message: Msg) -> None:
        seen.append(message.subject)

    await bus.subscribe(pattern, note)
    await bus.flush()
    await until(lambda: bus.errors[VIOLATION] == 1)
    assert (await tell(arena, "not for neighbours")).complete
    await bus.flush()
    assert seen == []


def _outside(*domains: str, waived: bool) -> Callable[[Founded], None]:
    """cloud.fr's node says in its settings that its engine runs outside; `domains` accept that."""

    def change(founded: Founded) -> None:
        node = founded.domain(CLOUD) / "node-paris-1.toml"
        text = node.read_text("utf-8")
        text = "\n".join(line for line in text.splitlines() if not line.startswith("binary = "))
        node.write_text(text.replace("[engine]\n", '[engine]\nplacement = "outside-tee"\n') + "\n", "utf-8")
        for domain in domains:
            _waive(founded.domain(domain) / "expectations.toml", waived=waived)

    return change


def _waive(path: Path, *, waived: bool) -> None:
    lines = path.read_text("utf-8").splitlines()
    changed = ['engine = "any"' if waived and line.startswith("engine = ") else line for line in lines]
    changed = ['engine_digests = "any"' if line.startswith("engine_digests = ") else line for line in changed]
    path.write_text("\n".join(changed) + "\n", "utf-8")


@lie(
    "a node",
    "points at an engine outside",
    by="its own settings, its agent, and every consumer's broker: where the engine runs is in `report_data`",
    codes="config.value node.engine_outside_tee",
    receipt="no receipt: nothing was placed",
)
async def test_an_engine_outside_is_said_and_refused(
    make_world: MakeWorld, told: Lie, tmp_path: Path
) -> None:
    """Its agent looks away and admits it; the consumer's own appraisal does not."""
    in_settings, by_proof = told.codes
    world = await make_world(ONE_NODE_EACH, before=_outside(CLOUD, waived=True))
    assert declined(await tell(world, "where does it run")) == {CLOUD: [by_proof]}
    assert heard(world, "where does it run") == 0
    # A node that calls it inside cannot even be started with an address that leaves the machine.
    text = (world.founded.domain(CLINIC) / "node-ward-1.toml").read_text("utf-8")
    away = world.founded.domain(CLINIC) / "node-away.toml"
    address = world.engines["ward-1"].address
    away.write_text(text.replace(address, "http://192.0.2.1:8000"), "utf-8")
    with pytest.raises(ConfigurationError) as refused:
        node_config.load(away)
    assert refused.value.code == in_settings


async def test_its_own_agent_does_not_admit_it(make_world: MakeWorld) -> None:
    world = await make_world(ONE_NODE_EACH, before=_outside(CLOUD, waived=False), wait=False)

    def reason() -> str | None:
        record = world[CLOUD].agent.book.get("paris-1")
        return record.reason if record else None

    await until(lambda: reason() == "node.engine_outside_tee")
