"""Contract Net, the consumer's side: call up to three finalists, keep one offer, release the others.

Path B: one round trip before work; the acceptance rides on Execute. A hold costs the provider
capacity, so that every loser is told at once (measured: holds with explicit release idle 3 % of
capacity, holds that only expire 18 %).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from broker.peers import Peers, new_negotiation, only
from schemas import envelope
from schemas.canonical import read_json
from schemas.errors import ComityError, Refused
from schemas.messages.message import Received
from schemas.messages.negotiation import CallForOffers, Offer, Refuse, Release

MAX_FINALISTS: Final = 3  # calls at once: more strands capacity without better success
CALL_S: Final = 2.0  # seconds; several wide-area round trips and the provider's own decision
ORDER_S: Final = 0.2  # seconds for an order to reach its provider, and for what the offer's way here took


@dataclass(frozen=True, slots=True)
class Offered:
    """A provider's signed offer, with the call it answers."""

    domain: str
    call: Received[CallForOffers] = field(repr=False)
    offer: Received[Offer] = field(repr=False)
    arrived: float = field(default_factory=time.monotonic, compare=False)
    """Steady seconds."""

    @property
    def body(self) -> Offer:
        return self.offer.body

    @property
    def until(self) -> float:
        """Steady seconds until an order reaches the hold in time."""
        return self.arrived + self.body.hold_ms / 1000 - ORDER_S


@dataclass(frozen=True, slots=True)
class Declined:
    """Why a finalist gave no offer: by its signed word, or because it did not answer."""

    domain: str
    code: str
    rules: tuple[str, ...]
    retry_after_ms: int
    refusal: bytes | None = field(repr=False, default=None)
    """The signed Refuse, as evidence."""


async def call_for_offers(
    peers: Peers, finalists: Sequence[tuple[str, Mapping[str, Any]]], *, within: float = CALL_S
) -> list[Offered | Declined]:
    """Ask every finalist at once; the answers come in the finalists' order, after at most `within` seconds.

    finalists: a domain, and the fields of CallForOffers for it. One that is absent, silent or says
    something we cannot accept is `Declined`; nothing is raised for a single one.

    A caller that leaves meanwhile cancels this, and nobody's slots wait for it: what is offered is released.
    """
    calls = asyncio.gather(
        *(_call(peers, domain, terms, within) for domain, terms in finalists[:MAX_FINALISTS])
    )
    try:
        return list(await asyncio.shield(calls))
    except asyncio.CancelledError:
        peers.bus.spawn(lambda: _release_all(peers, calls))
        raise


async def _release_all(peers: Peers, calls: Awaitable[list[Offered | Declined]]) -> None:
    for answer in await calls:
        if isinstance(answer, Offered):
            await release(peers, answer, "caller-left")


async def _call(peers: Peers, domain: str, terms: Mapping[str, Any], within: float) -> Offered | Declined:
    nid = new_negotiation()
    message = peers.compose(CallForOffers, domain, nid=nid, **terms)
    data = peers.sign(message)
    parsed = envelope.read(data)
    sent = Received(message, parsed.digest, peers.key.thumbprint, data)
    try:
        reply = await peers.ask(domain, "call", data, within=within)
        return _read_reply(peers, domain, sent, reply)
    except ComityError as error:
        return Declined(domain, error.code, (), 0)


def _read_reply(peers: Peers, domain: str, sent: Received[CallForOffers], reply: bytes) -> Offered | Declined:
    match _typ(reply):
        case "Offer":
            offer = only(peers.receive(reply, Offer, domain), sent.body.nid, sent.digest)
            _check_offer(offer.body, sent)
            return Offered(domain, sent, offer)
        case "Refuse":
            refusal = only(peers.receive(reply, Refuse, domain), sent.body.nid, sent.digest).body
            return Declined(domain, refusal.code, tuple(refusal.rules), refusal.retry_after_ms, reply)
    raise Refused("negotiate.reply", "neither an offer nor a refusal")


def _typ(data: bytes) -> object:
    """Which model to read the reply with; it is authenticated only then."""
    payload = read_json(envelope.read(data).payload)
    return payload.get("typ") if isinstance(payload, dict) else None


def _check_offer(offer: Offer, sent: Received[CallForOffers]) -> None:
    """An offer answers the call it names, for what was asked."""
    call = sent.body
    if offer.call != sent.digest.hex():
        raise Refused("negotiate.call_digest", "the offer names another call")
    if not (offer.capability == call.capability or offer.capability.startswith(call.capability + "/")):
        raise Refused("negotiate.capability", "the offer is for another capability")
    if call.model_digest is not None and offer.model_digest != call.model_digest:
        raise Refused("negotiate.model", "the offer is for another model")
    if offer.node_sign in call.exclude_nodes:
        raise Refused("negotiate.excluded_node", "the offer names a node that was excluded")


async def release(peers: Peers, offered: Offered, reason: str) -> None:
    """Give a hold back. A provider that cannot be told lets it expire by itself."""
    message = peers.compose(
        Release,
        offered.domain,
        nid=offered.body.nid,
        seq=2,
        prev=offered.offer.digest.hex(),
        hold_id=offered.body.hold_id,
        reason=reason,
    )
    try:
        await peers.tell(offered.domain, "release", peers.sign(message))
    except ComityError:
        return
