"""How this broker reaches another domain's broker, and its own border by the same words.

Everything said here is signed; the bus only carries it. Our own domain is a peer like any other,
but for the road: its border answers in process, so that a local request crosses no bus before the node.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from broker.observe.spans import trace_headers
from federation.connection import Bus
from receipts.statements.promise import read_promise
from receipts.statements.receipt import Receipt
from receipts.statements.statement import Statement, read_receipt
from schemas import envelope
from schemas.errors import Refused
from schemas.keys import SigningKey
from schemas.messages.message import FIRST, Message, Received, new_nonce, receive
from schemas.papers.trust import FederationTrust
from schemas.primitives import subject_token

MESSAGE_LIFETIME_S: Final = (
    60  # seconds; longer than any wait for an answer, far below the replay cache's bound
)

MAX_SAID: Final = 1024  # messages from us to ourselves on their way; a request has three

M = TypeVar("M", bound=Message)
R = TypeVar("R", bound=Receipt)
LocalHandler = Callable[[str, str, bytes], Awaitable[bytes]]
"""(sender, op, payload) → reply: the border's front door."""


@dataclass(frozen=True, slots=True)
class Peers:
    """The road to every member, ourselves included."""

    bus: Bus
    trust: FederationTrust
    domain: str
    key: SigningKey = field(repr=False)
    local: LocalHandler = field(repr=False)
    _said: dict[bytes, Received[Any]] = field(default_factory=dict, repr=False)

    def compose(
        self, model: type[M], to: str, *, nid: str, seq: int = 0, prev: str = FIRST, **fields: Any
    ) -> M:
        """A message from us to `to`, with its frame filled in."""
        now = int(datetime.now(UTC).timestamp())
        return model(
            typ=model.__name__,
            federation=self.trust.federation,
            iss=self.domain,
            aud=to,
            nid=nid,
            seq=seq,
            iat=now,
            exp=now + MESSAGE_LIFETIME_S,
            nonce=new_nonce(),
            prev=prev,
            **fields,
        )

    def sign(self, message: Message) -> bytes:
        """The message's envelope. One to ourselves is remembered until it is received, once."""
        payload = message.write()
        data = envelope.sign(envelope.MESSAGE, payload, self.key)
        if message.aud == self.domain:
            digest = envelope.digest(envelope.MESSAGE, payload)
            self._said[data] = Received(message, digest, self.key.thumbprint, data)
            while len(self._said) > MAX_SAID:
                del self._said[next(iter(self._said))]
        return data

    async def ask(
        self,
        domain: str,
        op: str,
        payload: bytes,
        *,
        within: float,
    ) -> bytes:
        """One request, one reply, in `within` seconds. Raises `Undecided` when the peer gives none."""
        if domain == self.domain:
            return await self.local(domain, op, payload)
        return await self.bus.request(
            f"peer.{subject_token(domain)}.{op}", payload, timeout=within, headers=trace_headers()
        )

    async def tell(self, domain: str, op: str, payload: bytes) -> None:
        """Say it once; no answer is expected."""
        if domain == self.domain:
            await self.local(domain, op, payload)
            return
        await self.bus.publish(f"peer.{subject_token(domain)}.{op}", payload)

    def receive(self, data: bytes, model: type[M], sender: str) -> Received[M]:
        """Authenticate a message that `sender` addressed to us. Raises `Unreadable` or `Refused`.

        What we signed ourselves a moment ago, byte for byte, is not verified again.
        """
        said = self._said.pop(data, None) if sender == self.domain else None
        if said is not None and isinstance(said.body, model):
            return said
        now = datetime.now(UTC)
        return receive(
            data,
            model,
            keys=self.trust.keys(sender, "message", now),
            sender=sender,
            audience=self.domain,
            federation=self.trust.federation,
            now=now,
        )

    def receive_receipt(self, issuer: str, model: type[R], receipt: bytes, promise: bytes) -> Statement[R]:
        """A receipt of a peer's to us under its registered key, with its log's promise for this very one.

        Raises `Unreadable` or `Refused`.
        """
        now = datetime.now(UTC)
        statement = read_receipt(
            receipt,
            model,
            keys=self.trust.keys(issuer, "receipt", now),
            issuer=issuer,
            federation=self.trust.federation,
            audience=self.domain,
        )
        read_promise(
            promise,
            keys=self.trust.keys(issuer, "promise", now),
            issuer=issuer,
            federation=self.trust.federation,
            receipt_digest=statement.digest,
        )
        return statement


def new_negotiation() -> str:
    """A UUIDv7 (RFC 9562 5.7) as 32 hex digits: sortable by time, unguessable by the rest."""
    millis = int(datetime.now(UTC).timestamp() * 1000)
    value = (millis << 80) | (uuid.uuid4().int & ((1 << 80) - 1))
    value = value & ~(0xF << 76) | (7 << 76)
    return f"{value & ~(0x3 << 62) | (0x2 << 62):032x}"


def only(received: Received[M], nid: str, prev: bytes) -> Received[M]:
    """The reply, if it belongs to this negotiation and follows this very message. Raises `Refused`."""
    if received.body.nid != nid or received.body.prev != prev.hex():
        raise Refused("message.transcript", "the reply belongs to another message")
    return received
