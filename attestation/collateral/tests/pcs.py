"""A local server that speaks Intel's and a caching proxy's paths for a made-up platform, and misbehaves."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs, quote, urlsplit

from attestation.collateral.tests.server import Answer, answering
from attestation.testing.intel import IntelForge, pem


@dataclass
class Provisioner:
    """What the server gives, and what it was asked."""

    forge: IntelForge
    early: IntelForge | None = None
    """What it gives to those who ask for early collateral, or for its evaluation number."""
    proxy: bool = False
    """A proxy writes CRLs in hex and has the root's under a path of its own."""
    listed: bytes | None = None
    """Its list of evaluation numbers; not every proxy has one."""
    asked: list[str] = field(default_factory=list)
    faults: dict[str, list[Answer]] = field(default_factory=dict)
    """Part of a path → answers to give first, one a request."""
    hold: threading.Event | None = None
    """While set and not released, answers wait."""

    def answer(self, target: str) -> Answer:
        self.asked.append(target)
        if self.hold is not None:
            self.hold.wait(10)
        for part, answers in self.faults.items():
            if part in target and answers:
                return answers.pop(0)
        parts = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        asks_early = query.get("update") == "early" or "tcbEvaluationDataNumber" in query
        forge = self.early if asks_early and self.early else self.forge
        return self._give(parts.path, query, forge)

    def _give(self, path: str, query: dict[str, str], forge: IntelForge) -> Answer:
        info, identity, root_crl, pck_crl, *_ = forge.pieces()
        chain = quote(pem(forge.signer.der(), forge.root.der()))
        tee = forge.tee
        if path == f"/{tee}/certification/v4/tcb" and query["fmspc"].lower() == "00806f050000":
            return 200, {"TCB-Info-Issuer-Chain": chain}, info
        if path == f"/{tee}/certification/v4/qe/identity":
            return 200, {"SGX-Enclave-Identity-Issuer-Chain": chain}, identity
        if path == f"/{tee}/certification/v4/tcbevaluationdatanumbers" and self.listed is not None:
            return 200, {"TCB-Evaluation-Data-Numbers-Issuer-Chain": chain}, self.listed
        if path == "/sgx/certification/v4/pckcrl" and query["ca"] == "platform":
            return 200, {}, pck_crl.hex().encode() if self.proxy else pck_crl
        if path == "/sgx/certification/v4/rootcacrl" and self.proxy:
            return 200, {}, root_crl.hex().encode()
        if path == "/IntelSGXRootCA.der" and not self.proxy:
            return 200, {}, root_crl
        return 404, {}, b""


@contextmanager
def provisioning(
    forge: IntelForge, *, proxy: bool = False, listed: bytes | None = None
) -> Iterator[tuple[Provisioner, str]]:
    """The service and its address, until the block ends."""
    service = Provisioner(forge, proxy=proxy, listed=listed)
    with answering(service) as url:
        yield service, url
