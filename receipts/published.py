"""What `comity schema` publishes of this room: predicates of statements, and documents beside them."""

from __future__ import annotations

from typing import Final

from receipts.bundle import Disclosures
from receipts.statements.node import NodeStatement
from receipts.statements.notice import Accusation, Convicted, Gap, Tombstone
from receipts.statements.promise import InclusionPromise
from receipts.statements.receipt import AcknowledgementReceipt, ExecutionReceipt, PlacementReceipt
from receipts.witnessing.equivocation import Equivocation
from schemas.canonical import Wire

PUBLISHED: Final[tuple[type[Wire], ...]] = (
    PlacementReceipt,
    ExecutionReceipt,
    AcknowledgementReceipt,
    NodeStatement,
    InclusionPromise,
    Tombstone,
    Gap,
    Accusation,
    Convicted,
    Disclosures,
    Equivocation,
)
