"""A local server that speaks AMD's paths under a made-up root, and misbehaves on request."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from attestation.collateral.tests.server import Answer, answering
from attestation.testing.forge import Forge
from attestation.tests.test_endorsements import pem


@dataclass
class Service:
    """What the server gives, and what it was asked."""

    forge: Forge
    vcek: Callable[[], bytes]
    asked: list[str] = field(default_factory=list)
    faults: dict[str, list[Answer]] = field(default_factory=dict)
    """Path prefix → answers to give first, one a request."""
    reached: threading.Event = field(default_factory=threading.Event)
    """Set by the first request."""
    hold: threading.Event | None = None
    """While set and not released, answers wait."""

    def answer(self, target: str) -> Answer:
        self.asked.append(target)
        self.reached.set()
        if self.hold is not None:
            self.hold.wait(10)
        parts = urlsplit(target)
        for prefix, answers in self.faults.items():
            if parts.path.startswith(prefix) and answers:
                return answers.pop(0)
        name, forge = self.forge.product.name, self.forge
        if parts.path in (f"/vcek/v1/{name}/cert_chain", f"/vlek/v1/{name}/cert_chain"):
            return 200, {}, pem(forge.intermediate()) + pem(forge.ark())
        if parts.path in (f"/vcek/v1/{name}/crl", f"/vlek/v1/{name}/crl"):
            return 200, {}, forge.crl()
        levels = {f"{part}SPL": [f"{level:02d}"] for part, level in forge.tcb.items()}
        if parts.path == f"/vcek/v1/{name}/{forge.hwid.hex()}" and parse_qs(parts.query) == levels:
            return 200, {}, self.vcek()
        return 404, {}, b""


@contextmanager
def serving(forge: Forge) -> Iterator[tuple[Service, str]]:
    """The service and its address, until the block ends."""
    service = Service(forge, forge.leaf)
    with answering(service) as url:
        yield service, url
