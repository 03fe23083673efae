"""A canary travels as a prompt and comes back in the answer; then everything that anybody kept is searched.

Searched: every message on the bus, both ways, in the clear, as its operator sees them; every file that
any program wrote (databases, logs of the bus, spans); everything that was logged. Nothing is left out but
the memory of the application's own broker and of the node.
"""

from __future__ import annotations

import base64
import json
import logging
import secrets
import zlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from broker.starting.config import BrokerConfig
from federation.observe.logs import JsonLines
from federation_tests.engine import asked_for
from federation_tests.hostile.lying import ONE_NODE_EACH
from federation_tests.plan import CLINIC, CLOUD, HYPER
from federation_tests.receipts import proved_bundle, verify
from federation_tests.secrecy.canary import search
from federation_tests.sse import read, request
from federation_tests.world import World, settings, world

PLACES: dict[str, dict[str, object]] = {
    CLINIC: {"data_class": "special-category"},
    CLOUD: {"data_class": "personal", "residency": ["FR"]},
    HYPER: {"data_class": "public"},
}


class _Kept(logging.Handler):
    """Everything that any program says, in full."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.text = bytearray()

    def emit(self, record: logging.LogRecord) -> None:
        self.text += JsonLines().format(record).encode() + b"\n"


@dataclass(slots=True)
class Watched:
    """A federation under observation, and the canary that flew through it."""

    world: World
    canary: str
    logs: _Kept
    receipts: list[bytes]

    def files(self) -> dict[str, bytes]:
        """Everything on disk: databases with their journals, the bus's log, spans, settings, keys."""
        folder = self.world.founded.folder
        return {
            str(path.relative_to(folder)): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file() and not path.is_socket()
        }


def _spans(domain: str) -> Callable[[BrokerConfig], BrokerConfig]:
    def change(config: BrokerConfig) -> BrokerConfig:
        path = config.database.parent / f"{domain}-spans.jsonl"
        return settings(observe={"spans": path, "log_level": "debug"})(config)

    return change


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def watched(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Watched]:
    """One request to each domain, streamed and whole, with the canary in prompt and answer."""
    logs, root = _Kept(), logging.getLogger()
    before = root.level
    root.addHandler(logs)
    root.setLevel(logging.INFO)
    canary = f"Kanarienvogel-{secrets.token_hex(16)}-überflog"
    brokers = {name: _spans(name) for name in PLACES}
    folder = tmp_path_factory.mktemp("watched") / "world"
    try:
        async with world(folder, ONE_NODE_EACH, operated=True, brokers=brokers) as made:
            receipts = []
            for domain, policy in PLACES.items():
                for stream in (True, False):
                    receipts.append(await _fly(made, canary, domain, policy, stream=stream))
            yield Watched(made, canary, logs, receipts)
    finally:
        root.removeHandler(logs)
        root.setLevel(before)


async def _fly(made: World, canary: str, domain: str, policy: dict[str, object], *, stream: bool) -> bytes:
    """The canary there and back; returns the receipt's bundle."""
    http, body = made.http(), request(f"{canary} again {canary}", policy=policy, stream=stream)
    if stream:
        streamed = await read(http, body)
        text, member = streamed.text, streamed.comity
    else:
        answer = (await http.post("/chat/completions", json=body)).json()
        text, member = answer["choices"][0]["message"]["content"], answer["comity"]
    assert text == f"{canary} again {canary} "
    assert member["domain"] == domain
    return await proved_bundle(http, member["receipt"])


async def test_nothing_on_the_bus_shows_the_canary(watched: Watched) -> None:
    seen = watched.world.operator.bytes_seen()
    assert search(seen, watched.canary) == []


async def test_the_bus_was_really_heard(watched: Watched) -> None:
    """The control of the recording: orders, sealed bodies and answers of every road went through it."""
    seen = watched.world.operator.seen
    subjects = {message.subject for message in seen}
    assert {"peer.cloud_fr.execute", "peer.hyper_us.execute", "node.ward-1.in.execute"} <= subjects
    assert {"node.paris-1.in.execute", "node.virginia-1.in.execute", "agent.hold"} <= subjects
    sealed = [m for m in seen if m.subject.startswith("node.") and ".out.stream." in m.subject]
    assert len(sealed) >= 2 * len(PLACES) * 3  # each answer: opened, nonce, chunks …
    assert b"CallForOffers" in watched.world.operator.bytes_seen() or any(
        search(message.body, "CallForOffers") for message in seen
    )


async def test_the_search_finds_what_is_there(watched: Watched) -> None:
    """The control of the search: the node did receive the canary, and a leak of any shape is found."""
    canary = watched.canary
    engines = watched.world.engines.values()
    remembered = [asked_for(body) for engine in engines for body in engine.bodies]
    assert search("\n".join(remembered).encode(), canary)
    assert search(watched.world.operator.bytes_seen() + f'{{"prompt": "{canary}"}}'.encode(), canary)


async def test_no_file_holds_the_canary(watched: Watched) -> None:
    files = watched.files()
    assert {f"{domain}/state/broker.db" for domain in PLACES} <= files.keys()
    assert {f"{domain}/state/{domain}-spans.jsonl" for domain in PLACES} <= files.keys()
    assert "bus/server.log" in files
    assert [name for name, data in files.items() if search(data, watched.canary)] == []
    spans = files[f"{CLINIC}/state/{CLINIC}-spans.jsonl"]
    assert b"node.execute" in spans  # the control: what was searched is full


async def test_no_log_line_holds_the_canary(watched: Watched) -> None:
    assert watched.logs.text.count(b"\n") > 20
    assert b'"event": "answered"' in watched.logs.text
    assert search(bytes(watched.logs.text), watched.canary) == []


async def test_no_receipt_holds_the_canary(watched: Watched) -> None:
    for bundle in watched.receipts:
        assert search(bundle, watched.canary) == []
        found = verify(watched.world, bundle)
        assert found.exit_code == 0
        assert search(str(found.report).encode(), watched.canary) == []


async def test_every_shape_of_a_leak_is_found(watched: Watched, tmp_path: Path) -> None:
    canary = watched.canary
    around = (b"", b"x", b"xy", b"some text before it ")
    for before in around:
        for encode in (base64.b64encode, base64.urlsafe_b64encode, bytes.hex):
            leaked = encode(before + canary.encode() + b" and more")
            data = leaked if isinstance(leaked, bytes) else leaked.encode()
            assert search(data, canary), (before, encode)
    assert search(json.dumps({"deep": json.dumps({"text": canary})}).encode(), canary)
    path = tmp_path / "leak"
    path.write_bytes(zlib.compress(canary.encode()))
    assert not search(path.read_bytes(), canary)  # what compresses would hide it: nothing here does
