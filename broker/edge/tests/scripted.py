"""A scripted dispatch and an edge around it, for tests: what comes back is what the test wrote down."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from broker.edge.accepting.accept import Acceptance
from broker.edge.accepting.auth import Authenticator
from broker.edge.api import build_app
from broker.edge.chat import Edge
from broker.edge.exchange import Accepted, Event, Finished, Latency, Model, Started, Tenant, Text
from broker.edge.gate import Gate
from broker.edge.server import EdgeServer
from broker.observe import Observability
from broker.starting.config import Issuer, Limits, Listen, Observe, TenantSettings
from schemas.canonical import Json
from schemas.descriptors.request import Home, TagFloor
from schemas.messages.answer import Usage

KEY, OTHER_KEY = "cmt_radiology", "cmt_billing"
WORDS = ("Comity ", "is ", "a ", "courtesy.")
LATENCY = Latency("cloud.fr", "cpu/llama.cpp", 3, 1, 0, 405, 3)
USAGE = Usage(input_tokens=11, output_tokens=4, cached_tokens=2, queue_ms=0, compute_ms=405)
BODY: dict[str, Any] = {"model": "chat.small", "messages": [{"role": "user", "content": "What is comity?"}]}
STARTED = Started("cloud.fr", "receipt-1")


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


TENANTS = (
    TenantSettings(
        name="radiology",
        floor=TagFloor(data_class="personal", residency=["EU"]),
        policy="any",
        keys=(digest(KEY),),
    ),
    TenantSettings(name="billing", floor="any", policy="any", keys=(digest(OTHER_KEY),)),
)


def finished(**changes: Any) -> Finished:
    values: dict[str, Any] = {
        "finish_reason": "stop",
        "usage": USAGE,
        "receipt": "receipt-1",
        "promise": '{"payload":"…"}',
        "latency": LATENCY,
        "model": "chat.small/smollm2",
        "lowered": (),
    }
    return Finished(**{**values, **changes})


Script = Callable[[Accepted], AsyncGenerator[Event, None]]


async def say(_: Accepted) -> AsyncGenerator[Event, None]:
    """The usual answer."""
    yield STARTED
    for word in WORDS:
        yield Text(word)
    yield finished()


def playing(*events: Event | Exception) -> Script:
    """A script that yields these events and raises the exceptions among them."""

    async def script(_: Accepted) -> AsyncGenerator[Event, None]:
        for event in events:
            if isinstance(event, Exception):
                raise event
            yield event

    return script


@dataclass
class Scripted:
    """Plays `script` for every request and remembers what it was asked."""

    script: Script = say
    asked: list[Accepted] = field(default_factory=list)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    missing: str | None = None

    async def run(self, accepted: Accepted) -> AsyncGenerator[Event, None]:
        self.asked.append(accepted)
        try:
            self.begun.set()
            async for event in self.script(accepted):
                yield event
        finally:
            self.closed.set()

    async def explain(self, accepted: Accepted) -> Mapping[str, Json]:
        self.asked.append(accepted)
        return {"allowed": ["cloud.fr"]}

    async def receipt(self, receipt_id: str, tenant: Tenant) -> bytes | None:
        return b"PK bundle" if (receipt_id, tenant.name) == ("receipt-1", "radiology") else None

    async def models(self, tenant: Tenant) -> list[Model]:
        del tenant
        return [Model("chat.small", ("clinic.de", "cloud.fr")), Model("chat.small/smollm2", ("cloud.fr",))]

    def ready(self) -> str | None:
        return self.missing


@dataclass
class Running:
    """A real server on loopback with its scripted inside."""

    dispatch: Scripted
    server: EdgeServer
    gate: Gate
    observability: Observability

    @property
    def base_url(self) -> str:
        return self.server.base_url

    def http(self, key: str | None = KEY) -> httpx.AsyncClient:
        """A plain client; `key` is the tenant's."""
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        root = self.base_url.removesuffix("/v1")
        limits = httpx.Limits(max_connections=200)
        return httpx.AsyncClient(base_url=root, headers=headers, trust_env=False, limits=limits, timeout=30)


@asynccontextmanager
async def serving(
    script: Script = say,
    *,
    limits: Limits | None = None,
    issuers: Sequence[Issuer] = (),
    observe: Observe | None = None,
    listen: Listen | None = None,
) -> AsyncIterator[Running]:
    """An edge that listens, from start to stop."""
    dispatch, gate = Scripted(script), Gate(limits or Limits())
    observability = Observability.start(observe or Observe(), "clinic.de", logs=False)
    edge = Edge(
        domain="clinic.de",
        dispatch=dispatch,
        authenticator=Authenticator(TENANTS, issuers),
        acceptance=Acceptance(Home("clinic.de", ("DE",)), "EUR"),
        gate=gate,
        observability=observability,
    )
    server = EdgeServer(build_app(edge), listen or Listen(tls="any", port=0), gate)
    await server.start()
    try:
        yield Running(dispatch, server, gate, observability)
    finally:
        await server.stop()
        observability.stop()
