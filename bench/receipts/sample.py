"""Receipts of the size that a broker writes, who signs them, and how a figure is taken."""

from __future__ import annotations

import secrets
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from receipts.log import LogIdentity, LogKeys
from receipts.note import NoteSigner
from receipts.statements.fields import (
    Capability,
    Layer,
    ManifestRef,
    PolicyDecision,
    PolicyFile,
    RequestRef,
    Times,
    Verifier,
)
from receipts.statements.receipt import (
    Considered,
    Executor,
    Inputs,
    Objective,
    PlacementDraft,
    Plan,
    Terms,
)
from receipts.verify.pinned import PinnedTrust
from schemas.keys import SigningKey
from schemas.papers.manifest import DomainManifest, LogKey, RoleKey, Roots
from schemas.primitives import format_time

ROUNDS: Final = 7
COUNT: Final = 256  # receipts a round
IDENTITY: Final = LogIdentity("bench", "clinic.de", "clinic.de/log", ManifestRef(version=1, digest="0" * 64))


@dataclass(frozen=True)
class Figure:
    """One line of the result."""

    name: str
    value: str
    ratio: str = ""
    goal: str = ""


def placement() -> PlacementDraft:
    """A Placement of the size that a broker writes."""
    now, some = format_time(datetime.now(UTC)), secrets.token_hex(32)
    zero = "0.0"
    return PlacementDraft(
        audience=["clinic.de", "cloud.fr"],
        peer="cloud.fr",
        request=RequestRef(id=secrets.token_hex(16), commitment=some),
        times=Times(received=now, issued=now),
        plan=Plan(digest=some, id="p", domain="cloud.fr", nodes=["A" * 43]),
        path="full",
        considered=Considered(root=some, count=12, selected_index=3),
        objective=Objective(
            name="J", version="1", digest=some, score="412.5",
            terms=Terms(net="3.2", queue=zero, exec="405.0", state=zero, load="4.3", policy=zero),
        ),
        capability=Capability(name="chat.small/model", artifact_digest=some),
        policy=PolicyDecision(
            verifier=Verifier(id="urn:cedar:4.12"),
            policies=[PolicyFile(name=name, sha256=some) for name in ("charter", "tenant", "provider")],
            time_created=now,
            verdict="allow",
            layers=[
                Layer(layer=layer, digest=some, verdict="allow", rules=["FED-001-member"])
                for layer in ("charter", "national", "tenant", "provider")
            ],
            input_commitment=some,
        ),
        inputs=Inputs(registry=some),
        executor=Executor(domain="cloud.fr", key="A" * 43),
    )  # fmt: skip


def keys() -> LogKeys:
    note = NoteSigner.of("clinic.de/log", secrets.token_bytes(32))
    return LogKeys(SigningKey.generate(), SigningKey.generate(), note)


def pinned(log_keys: LogKeys) -> PinnedTrust:
    """clinic.de's manifest as an auditor holds it."""
    root, now = SigningKey.generate(), int(time.time())
    receipt = log_keys.receipt.public
    manifest = DomainManifest(
        federation="bench", domain="clinic.de", version=1, expires=now + 86_400,
        roots=Roots(threshold=1, keys=[root.public.jwk]),
        keys=[RoleKey(thumbprint=receipt.thumbprint, jwk=receipt.jwk, role="receipt",
                      not_before=now - 86_400, not_after=now + 86_400)],
        logs=[LogKey(origin="clinic.de/log", vkey=log_keys.note.key.vkey, max_merge_delay_s=10)],
        platforms=[],
    )  # fmt: skip
    return PinnedTrust("bench", "bench", {"clinic.de": manifest}, {"clinic.de": bytes(32)})


def seconds(action: Callable[[], object], clock: Callable[[], float] = time.thread_time) -> float:
    start = clock()
    action()
    return clock() - start


def interleaved(actions: dict[str, Callable[[], object]], clock: Callable[[], float]) -> dict[str, float]:
    """Median seconds of each action, taken in turns so that all see the same machine."""
    taken: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(ROUNDS):
        for name, action in actions.items():
            taken[name].append(seconds(action, clock))
    return {name: statistics.median(times) for name, times in taken.items()}
