"""Every decision of a log made again, on request: its policy and its ranking (receipts.verify.replay).

Facts, rankings and lists of candidates lie in the log's own database, the rules in a folder of the
auditor's. A decision that cannot be made again is counted with its reason, never as good.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from receipts.audit.findings import Audit, Finding
from receipts.audit.logfile import LogFile
from receipts.audit.rows import Row
from receipts.bundle import Disclosures
from receipts.statements.receipt import AcknowledgementReceipt, PlacementReceipt, Receipt
from receipts.verify.pinned import PinnedTrust
from receipts.verify.replay.choice import Rerank, choose_again
from receipts.verify.replay.claims import check_consistent
from receipts.verify.replay.policy import Material, decide_again
from schemas.canonical import Json
from schemas.errors import ComityError, Undecided


@dataclass(slots=True)
class Replay:
    """Decides again what each receipt states, and counts what came of it."""

    log: LogFile
    material: Material
    rerank: Rerank | None
    result: Audit
    policies: Counter[str] = field(default_factory=Counter)
    choices: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(
        cls,
        log: LogFile,
        held: PinnedTrust,
        policies: Mapping[str, bytes],
        rerank: Rerank | None,
        result: Audit,
    ) -> Replay:
        """`policies`: digest → text. `rerank`: the broker's ranking; without it no choice is made again."""
        texts = {digest: data.decode("utf-8", "replace") for digest, data in policies.items()}
        return cls(log, Material(log.kept, texts, held.policy_digest, held.profiles), rerank, result)

    def take(self, row: Row, body: Receipt) -> None:
        """One authentic receipt of the log."""
        if isinstance(body, AcknowledgementReceipt):
            return
        try:
            check_consistent(body)
            decide_again(body, self.material)
            self.policies["again"] += 1
        except Undecided as error:
            self.policies[error.code] += 1
        except ComityError as error:
            self._wrong(row, error)
        if isinstance(body, PlacementReceipt) and not body.refused and self.rerank is not None:
            self._choose(row, body, self.rerank)

    def _choose(self, row: Row, body: PlacementReceipt, rerank: Rerank) -> None:
        try:
            disclosed = self.log.disclosures(row.index) or Disclosures()
            chosen = choose_again(body, disclosed, self.material, rerank)
            self.choices["again, best" if chosen.index == 0 else "again, better ones passed over"] += 1
        except Undecided as error:
            self.choices[error.code] += 1
        except ComityError as error:
            self._wrong(row, error)

    def _wrong(self, row: Row, error: ComityError) -> None:
        self.result.add(Finding(self.log.domain, error.code, "wrong", error.text, row.receipt_id))

    def counts(self) -> dict[str, Json]:
        """By outcome: `again` came out byte for byte; a code says why it could not be tried."""
        policies: dict[str, Json] = {**dict(sorted(self.policies.items()))}
        choices: dict[str, Json] = {**dict(sorted(self.choices.items()))}
        return {"policy replay": policies, "ranking replay": choices}
