"""Lies of a node about its GPUs: lent, shared, old, and left out (gpu.md 10)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from domain_agent.node.proving.devices import CollectDevices, simulated_board
from federation.found import Founded
from federation_tests.conftest import MakeWorld
from federation_tests.hostile.lie import Lie, lie
from federation_tests.hostile.lying import ONE_NODE_EACH, declined, heard, tell
from federation_tests.plan import CLINIC, CLOUD, HYPER, Changes, makers
from federation_tests.world import World, until
from schemas.proof.evidence import DeviceEvidence


def _with_board(board: Path | None, *, agent_looks_away: bool = True) -> Callable[[Founded], None]:
    """cloud.fr's node reads another folder of GPUs, or none; its own domain may ask nothing of devices."""

    def change(founded: Founded) -> None:
        node = founded.domain(CLOUD) / "node-paris-1.toml"
        text = node.read_text("utf-8")
        start, _, rest = text.partition("\n[devices]\n")
        _, _, engine = rest.partition("\n[engine]")
        devices = "" if board is None else f'\n[devices]\nkind = "simulated"\nboard = "{board}"\n'
        node.write_text(f"{start}{devices}\n[engine]{engine}", "utf-8")
        if agent_looks_away:
            _ask_nothing_of_devices(founded)

    return change


def _ask_nothing_of_devices(founded: Founded) -> None:
    path = founded.domain(CLOUD) / "expectations.toml"
    path.write_text(path.read_text("utf-8").partition("\n[nvidia]")[0] + "\n", "utf-8")


async def _refused_by(world: World) -> list[str]:
    """Why the consumer does not take the offer of the lying node."""
    text = "whose GPU is this"
    reasons = declined(await tell(world, text))[CLOUD]
    assert heard(world, text) == 0
    return reasons


@lie(
    "a node",
    "shows a GPU that its domain has not enrolled",
    by="its agent, and every consumer's broker: devices are enrolled like machines",
    codes="node.device_not_enrolled",
    receipt="no receipt: nothing was placed",
)
async def test_a_strangers_gpu_is_refused(make_world: MakeWorld, told: Lie, tmp_path: Path) -> None:
    """It answers the very nonce of this node's keys: a genuine device, lent from elsewhere."""
    makers().gpus.make_gpu().save(tmp_path / "lent" / "0")
    world = await make_world(ONE_NODE_EACH, before=_with_board(tmp_path / "lent"))
    assert await _refused_by(world) == [told.code]


@lie(
    "a node",
    "shows another node's GPU",
    by="its agent: no device stands in two admitted nodes",
    codes="node.device_elsewhere",
    receipt="no receipt: nothing was placed on it",
)
async def test_one_gpu_does_not_stand_in_two_nodes(make_world: MakeWorld, told: Lie, tmp_path: Path) -> None:
    """Whichever of the two is admitted first, the other is not."""
    borrowed = tmp_path / "world" / "machines" / CLOUD / "paris-2" / "gpus"
    changes = Changes(nodes={CLINIC: ("ward-1",), CLOUD: ("paris-1", "paris-2"), HYPER: ("virginia-1",)})
    before = _with_board(borrowed, agent_looks_away=False)
    world = await make_world(changes, before=before, wait=False)
    await until(lambda: {reason(world, name) for name in ("paris-1", "paris-2")} == {None, told.code})
    assert len(admitted(world)) == 1


class _Replaying:
    """GPUs that report once and show that report ever after."""

    def __init__(self, honest: CollectDevices) -> None:
        self.honest, self.shown = honest, honest(bytes(32))

    def __call__(self, nonce: bytes) -> list[DeviceEvidence]:
        del nonce
        return self.shown


@pytest.fixture
def replaying(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every node's GPUs show an old report."""
    monkeypatch.setattr(
        "domain_agent.node.start.simulated_board", lambda folder: _Replaying(simulated_board(folder))
    )


@lie(
    "a node",
    "shows an old report of its GPU",
    by="its agent, and every consumer's broker: the report answers another nonce than this node's keys make",
    codes="gpu.nonce_mismatch",
    receipt="no receipt: nothing was placed",
)
async def test_an_old_report_is_refused(make_world: MakeWorld, told: Lie, replaying: None) -> None:
    world = await make_world(ONE_NODE_EACH, before=_ask_nothing_of_devices)
    assert await _refused_by(world) == [told.code]


@lie(
    "a node",
    "leaves out its GPU's evidence",
    by="its agent, and every consumer's broker: the image that the CPU measured works with a GPU",
    codes="gpu.device_count",
    receipt="no receipt: nothing was placed",
)
async def test_evidence_that_was_left_out_is_refused(make_world: MakeWorld, told: Lie) -> None:
    world = await make_world(ONE_NODE_EACH, before=_with_board(None))
    assert await _refused_by(world) == [told.code]


def admitted(world: World) -> list[str]:
    """Which nodes cloud.fr's agent admits now."""
    agent = world[CLOUD].agent
    return [record.node_id for record in agent.book if record.admitted(agent.clock.wall())]


def reason(world: World, node_id: str = "paris-1") -> str | None:
    """Why cloud.fr's own agent does not admit the node."""
    record = world[CLOUD].agent.book.get(node_id)
    return record.reason if record else None


async def test_its_own_agent_admits_no_stranger(make_world: MakeWorld, tmp_path: Path) -> None:
    makers().gpus.make_gpu().save(tmp_path / "lent" / "0")
    before = _with_board(tmp_path / "lent", agent_looks_away=False)
    world = await make_world(ONE_NODE_EACH, before=before, wait=False)
    await until(lambda: reason(world) == "node.device_not_enrolled")


async def test_its_own_agent_admits_no_old_report(make_world: MakeWorld, replaying: None) -> None:
    world = await make_world(ONE_NODE_EACH, wait=False)
    await until(lambda: reason(world) == "gpu.nonce_mismatch")


async def test_its_own_agent_misses_what_was_left_out(make_world: MakeWorld) -> None:
    world = await make_world(ONE_NODE_EACH, before=_with_board(None, agent_looks_away=False), wait=False)
    await until(lambda: reason(world) == "gpu.device_count")
