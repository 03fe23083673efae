"""Every decision of a log made again, on request: policy, ranking, refusal (receipts.verify.replay).

Facts, rankings and lists of candidates lie in the log's own database, the rules in a folder of the
auditor's. A decision that cannot be made again is counted with its reason, never as good.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from receipts.audit.findings import Audit, Finding
from receipts.audit.logfile import LogFile
from receipts.audit.rows import Row
from receipts.bundle import Disclosures
from receipts.statements.receipt import AcknowledgementReceipt, ExecutionReceipt, PlacementReceipt, Receipt
from receipts.verify.pinned import PinnedTrust
from receipts.verify.replay.choice import choose_again
from receipts.verify.replay.claims import check_consistent
from receipts.verify.replay.policy import Material, decide_again
from receipts.verify.replay.refusal import refuse_again
from receipts.verify.replay.selection import Selection
from schemas.canonical import Json
from schemas.errors import ComityError, Undecided


@dataclass(slots=True)
class Replay:
    """Decides again what each receipt states, and counts what came of it."""

    log: LogFile
    material: Material
    selection: Selection | None
    result: Audit
    policies: Counter[str] = field(default_factory=Counter)
    choices: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(
        cls,
        log: LogFile,
        held: PinnedTrust,
        policies: Mapping[str, bytes],
        selection: Selection | None,
        result: Audit,
    ) -> Replay:
        """`policies`: digest → text. Without `selection` no choice and no refusal is made again."""
        texts = {digest: data.decode("utf-8", "replace") for digest, data in policies.items()}
        return cls(log, Material(log.kept, texts, held), selection, result)

    def take(self, row: Row, body: Receipt) -> None:
        """One authentic receipt of the log."""
        if isinstance(body, AcknowledgementReceipt):
            return
        selection = self.selection
        if isinstance(body, PlacementReceipt) and body.refused:
            if selection is not None:
                self._count(self.refusals, row, lambda: self._refuse(row, body, selection))
            return
        self._count(self.policies, row, lambda: self._decide(body))
        if isinstance(body, PlacementReceipt) and selection is not None:
            self._count(self.choices, row, lambda: self._choose(row, body, selection))

    def _count(self, outcomes: Counter[str], row: Row, again: Callable[[], str]) -> None:
        """Make it again; what does not come out is a finding, what cannot be tried counts as its reason."""
        try:
            outcomes[again()] += 1
        except Undecided as error:
            outcomes[error.code] += 1
        except ComityError as error:
            self.result.add(Finding(self.log.domain, error.code, "wrong", error.text, row.receipt_id))

    def _decide(self, body: PlacementReceipt | ExecutionReceipt) -> str:
        check_consistent(body)
        decide_again(body, self.material)
        return "again"

    def _choose(self, row: Row, body: PlacementReceipt, selection: Selection) -> str:
        chosen = choose_again(body, self._disclosed(row), self.material, selection.rerank)
        return "again, best" if chosen.index == 0 else "again, better ones passed over"

    def _refuse(self, row: Row, body: PlacementReceipt, selection: Selection) -> str:
        cut = refuse_again(body, self._disclosed(row), self.material, selection.recut)
        return "again, by its own measurements" if cut.on_word else "again"

    def _disclosed(self, row: Row) -> Disclosures:
        return self.log.disclosures(row.leaf) or Disclosures()

    def counts(self) -> dict[str, Json]:
        """By outcome: `again` came out byte for byte; a code says why it could not be tried."""
        replays = {"policy": self.policies, "ranking": self.choices, "refusal": self.refusals}
        return {f"{name} replay": dict(sorted(found.items())) for name, found in replays.items()}
