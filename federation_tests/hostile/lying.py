"""How an honest part of a running federation is made to lie, and what its victims then saw."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from attestation.appraise import NodeAppraisal
from broker.providing.border import Border
from broker.providing.interior import Interior
from federation_tests.engine import asked_for
from federation_tests.plan import CLINIC, CLOUD, HYPER, Changes
from federation_tests.sse import Streamed, read, request
from federation_tests.world import World
from schemas.canonical import sha256
from schemas.messages.interior import Hold
from schemas.messages.message import Received
from schemas.messages.negotiation import CallForOffers
from schemas.policy.layers import Decision

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


def offering(**changes: object) -> type[Border]:
    """A border that offers another node than its agent holds: these fields of the hold are changed."""

    class Offering(Border):
        __slots__ = ()

        def _offer(
            self,
            call: Received[CallForOffers],
            hold: Hold,
            appraisal: NodeAppraisal,
            decision: Decision,
            price: int,
        ) -> bytes:
            return super()._offer(call, hold.model_copy(update=changes), appraisal, decision, price)

    return Offering


def proved_by(proof: NodeAppraisal, document: bytes) -> dict[str, object]:
    """The fields of a hold that name the node which this document proves."""
    return {
        "node_sign": proof.sign_key.thumbprint,
        "seal_key": proof.seal_key,
        "evidence": sha256(document).hex(),
    }


def serving(document: bytes) -> type[Interior]:
    """A broker's view of its agent that still has, or never should have had, this document."""

    class Serving(Interior):
        __slots__ = ()

        async def evidence(self, digest: str) -> bytes:
            return document if digest == sha256(document).hex() else await super().evidence(digest)

    return Serving


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
