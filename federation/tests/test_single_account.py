"""Why there is an account per domain: on one shared account two attacks reach their victim (nats.md 5).

A demonstration, so that nobody simplifies the topology later. The last line holds in both attacks:
what was injected does not verify, because everything that crosses a border is signed for its use.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from federation.connection import BusSettings
from federation.embedded.folder import found_bus
from federation.server import EmbeddedServer
from schemas import envelope
from schemas.errors import Refused
from schemas.keys import SigningKey

CONFIG = """
listen: "127.0.0.1:-1"
ports_file_dir: "{state}"
jetstream: {{ store_dir: "{state}/js" }}
system_account: SYS
accounts: {{
  SYS: {{ users: [ {{ nkey: {system} }} ] }}
  ALL: {{
    jetstream: enabled
    users: [
      {{ user: a, password: a, permissions: {{
          publish: {{ allow: ["fed.v1.neg.*.a.>", "fed.v1.advert.a", "kv.a.>", "$JS.API.>"] }}
          subscribe: {{ allow: ["fed.v1.neg.a.>", "_INBOX.>"] }} }} }}
      {{ user: b, password: b, permissions: {{
          publish: {{ allow: ["fed.v1.neg.*.b.>", "fed.v1.advert.b", "_INBOX.>"] }}
          subscribe: {{ allow: ["fed.v1.neg.b.>", "fed.v1.advert.>"] }} }} }}
      {{ user: c, password: c, permissions: {{
          publish: {{ allow: ["fed.v1.neg.*.c.>", "fed.v1.advert.c"] }}
          subscribe: {{ allow: ["fed.v1.neg.c.>", "fed.v1.advert.>"] }} }} }}
    ]
  }}
}}
"""


@pytest.fixture
async def shared(tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    folder, plan = found_bus(tmp_path / "bus", {"a.de": []}, datetime.now(UTC))
    folder.config.write_text(CONFIG.format(state=folder.path, system=plan.system.public))
    seed = folder.path / "users" / "system.nk"
    probe = BusSettings("", seed, None, "probe", "_INBOX.system")
    server = EmbeddedServer(folder.config, state=folder.path, probe=probe)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def clients(shared: EmbeddedServer) -> AsyncIterator[tuple[Client, Client, Client]]:
    made = []
    for name in "abc":
        client = Client()
        await client.connect(shared.url, user=name, password=name)
        made.append(client)
    yield made[0], made[1], made[2]
    for client in made:
        await client.close()


async def hear(client: Client, subject: str) -> asyncio.Queue[Msg]:
    heard: asyncio.Queue[Msg] = asyncio.Queue()

    async def put(message: Msg) -> None:
        await heard.put(message)

    await client.subscribe(subject, cb=put)
    await settle(client)
    return heard


async def settle(client: Client) -> None:
    """The client's ping overtakes what waits to be written: only a second one comes after it."""
    await client.flush()
    await client.flush()


async def test_n4_a_stored_message_is_delivered_under_another_domains_name(
    clients: tuple[Client, Client, Client],
) -> None:
    a, b, _ = clients
    a_key, c_key = SigningKey.generate(), SigningKey.generate()
    inbound = await hear(b, "fed.v1.neg.b.c.*")  # only C may publish here, says the server
    forged = envelope.sign(envelope.MESSAGE, b'{"iss":"c","aud":"b"}', a_key)
    stream = {"name": "S", "subjects": ["kv.a.>"], "storage": "memory", "allow_direct": True}
    made = await a.request("$JS.API.STREAM.CREATE.S", json.dumps(stream).encode(), timeout=5)
    assert "error" not in json.loads(made.data)
    await a.request("kv.a.1", forged, timeout=5)  # answered when it is stored
    await a.publish("$JS.API.DIRECT.GET.S", b'{"last_by_subj":"kv.a.1"}', reply="fed.v1.neg.b.c.call")
    message = await asyncio.wait_for(inbound.get(), 5)
    assert (message.subject, message.data) == ("fed.v1.neg.b.c.call", forged), "A spoke as C to B"
    with pytest.raises(Refused, match=r"envelope\.signature_invalid"):
        envelope.verify(message.data, envelope.MESSAGE, [c_key.public])


async def test_n6_an_answer_is_published_with_the_victims_rights(
    clients: tuple[Client, Client, Client],
) -> None:
    a, b, c = clients
    b_key = SigningKey.generate()
    heard = await hear(c, "fed.v1.advert.b")
    answer = envelope.sign(envelope.MESSAGE, b'{"typ":"Offer","iss":"b","aud":"a"}', b_key)

    async def respond_blindly(message: Msg) -> None:
        await message.respond(answer)

    await b.subscribe("fed.v1.neg.b.>", cb=respond_blindly)
    await settle(b)
    await a.publish("fed.v1.neg.b.a.call", b"", reply="fed.v1.advert.b")
    message = await asyncio.wait_for(heard.get(), 5)
    assert message.data == answer, "B was made to publish on its own advert subject"
    envelope.verify(message.data, envelope.MESSAGE, [b_key.public])
    with pytest.raises(Refused, match=r"envelope\.payload_type"):
        envelope.verify(message.data, envelope.ADVERT, [b_key.public])
