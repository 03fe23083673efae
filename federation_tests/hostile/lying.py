"""How an honest part of a running federation is made to lie, and what its victims then saw."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from broker.providing.border import Border
from federation_tests.engine import asked_for
from federation_tests.plan import CLINIC, CLOUD, HYPER, Changes
from federation_tests.sse import Streamed, read, request
from federation_tests.world import World

FRANCE: Final = {"data_class": "public", "residency": ["FR"]}
"""Tags that only the liar's domain can serve."""
ONE_NODE_EACH: Final = Changes(
    nodes={CLINIC: ("ward-1",), CLOUD: ("paris-1",), HYPER: ("virginia-1",)}, slots=4
)


@contextmanager
def lying(honest: object, liar: type) -> Iterator[None]:
    """Give an object another class for a while: the same state, other words. Works for frozen ones too."""
    before = type(honest)
    object.__setattr__(honest, "__class__", liar)
    try:
        yield
    finally:
        object.__setattr__(honest, "__class__", before)


def border_of(world: World, domain: str = CLOUD) -> Border:
    """The provider side of a domain's broker."""
    return world[domain].broker.parts.border


async def tell(world: World, text: str, **more: Any) -> Streamed:
    """A request of the clinic's that only cloud.fr can serve."""
    return await read(world.http(), request(text, policy=more.pop("policy", FRANCE), **more))


def declined(stream: Streamed) -> dict[str, list[str]]:
    """Why each domain's offer was not taken, as the typed 502 says it."""
    assert stream.failed, stream.events
    assert stream.code == "agree.no_offer"
    assert stream.error
    reasons: dict[str, list[str]] = stream.error["comity"]["declined"]
    return reasons


def heard(world: World, text: str) -> int:
    """How often any engine was asked this."""
    return sum(1 for engine in world.engines.values() for body in engine.bodies if asked_for(body) == text)
