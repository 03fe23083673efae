"""The gate, whatever happens in whatever order: never too many inside, never a place lost."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from broker.edge.accepting.accept import Acceptance
from broker.edge.exchange import Tenant
from broker.edge.gate import Gate
from broker.problems import Shed
from broker.starting.config import Limits
from schemas.descriptors.request import Home, RequestDescriptor, TagFloor

RUNNING, QUEUED = 2, 3
TENANT = Tenant("radiology", TagFloor(), None, "default")
BODY = b'{"model":"chat.small","messages":[{"role":"user","content":"x"}]}'


def descriptor() -> RequestDescriptor:
    return Acceptance(Home("clinic.de", ("DE",)), "EUR").accept(BODY, {}, TENANT, 0).descriptor


class Crowd:
    """Requests that come, finish and leave as a test says."""

    def __init__(self) -> None:
        self.gate = Gate(Limits(running=RUNNING, queued=QUEUED))
        self.asked = descriptor()
        self.tasks: list[asyncio.Task[str]] = []
        self.doors: list[asyncio.Event] = []

    async def _visit(self, door: asyncio.Event) -> str:
        try:
            with self.gate.enter() as inside:
                async with self.gate.run(inside, self.asked):
                    assert self.gate.running <= RUNNING
                    await door.wait()
                    return "served"
        except Shed:
            return "shed"

    def come(self) -> None:
        self.doors.append(asyncio.Event())
        self.tasks.append(asyncio.create_task(self._visit(self.doors[-1])))

    def apply(self, action: str, at: int) -> None:
        """Let one come, or one that is still inside finish or leave."""
        alive = [index for index, task in enumerate(self.tasks) if not task.done()]
        if action == "come":
            self.come()
        elif alive and action == "finish":
            self.doors[alive[at % len(alive)]].set()
        elif alive:
            self.tasks[alive[at % len(alive)]].cancel()


actions = st.tuples(st.sampled_from(["come", "come", "finish", "leave"]), st.integers(0, 4), st.booleans())


@given(st.lists(actions, max_size=40))
def test_places_are_never_lost_and_never_too_many(steps: list[tuple[str, int, bool]]) -> None:
    async def play() -> None:
        crowd = Crowd()
        for action, at, turn in steps:
            crowd.apply(action, at)
            if turn:  # without it, several things happen between two turns of the loop
                await asyncio.sleep(0)
            assert crowd.gate.running <= RUNNING
            assert crowd.gate.running + crowd.gate.queued <= RUNNING + QUEUED
            assert len(crowd.gate._waiting) <= crowd.gate.queued
        for door in crowd.doors:
            door.set()
        await asyncio.gather(*crowd.tasks, return_exceptions=True)
        assert (crowd.gate.running, crowd.gate.queued, crowd.gate._waiting) == (0, 0, [])
        crowd.come()
        crowd.doors[-1].set()
        assert await crowd.tasks[-1] == "served"
        await crowd.gate.drain()

    asyncio.run(play())


async def test_a_place_that_comes_as_its_request_leaves_goes_to_the_next() -> None:
    crowd = Crowd()
    for _ in range(RUNNING + 2):
        crowd.come()
    await asyncio.sleep(0)
    crowd.doors[0].set()
    while not crowd.tasks[0].done():  # noqa: ASYNC110 - the place is handed on in that very turn
        await asyncio.sleep(0)
    crowd.tasks[RUNNING].cancel()
    for door in crowd.doors:
        door.set()
    ends = await asyncio.gather(*crowd.tasks, return_exceptions=True)
    assert [end for end in ends if end == "served"] == ["served"] * (RUNNING + 1)
    assert crowd.gate.running == 0


@given(st.lists(st.tuples(st.integers(1, 5), st.booleans()), min_size=1, max_size=12))
def test_those_who_stay_are_served_in_their_order(waiting: list[tuple[int, bool]]) -> None:
    async def play() -> None:
        gate, served, held = Gate(Limits(running=1, queued=20)), [], asyncio.Event()

        async def visit(name: int, priority: int) -> None:
            with gate.enter() as inside:
                async with gate.run(inside, descriptor().model_copy(update={"priority": priority})):
                    served.append(name)
                    await held.wait()

        tasks = [asyncio.create_task(visit(-1, 3))]
        for name, (priority, _) in enumerate(waiting):
            await asyncio.sleep(0)
            tasks.append(asyncio.create_task(visit(name, priority)))
        await asyncio.sleep(0)
        for task, (_, leaves) in zip(tasks[1:], waiting, strict=True):
            if leaves:
                task.cancel()
        await asyncio.sleep(0)
        held.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        staying = [(-priority, name) for name, (priority, leaves) in enumerate(waiting) if not leaves]
        assert served == [-1, *(name for _, name in sorted(staying))]

    asyncio.run(play())


async def test_retry_after_grows_with_the_queue_and_is_bounded() -> None:
    gate = Gate(Limits(running=1, queued=0))
    gate._mean_s = 1000.0
    asked = descriptor()

    async def second() -> int | None:
        try:
            with gate.enter():
                return None
        except Shed as shed:
            return shed.retry_after_ms

    with gate.enter() as inside:
        async with gate.run(inside, asked):
            assert await second() == 60_000
            gate._mean_s = 0.001
            assert await second() == 1_000
