"""A sample of a log: some leaves, drawn by nobody's choice, and what they say of all the others.

The seed is a later root of the log itself, signed by it and cosigned by other operators: when the sampled
leaves were committed it did not exist, and whoever holds this copy cannot choose it any more. What is drawn
is checked as in a whole audit, each leaf by its own inclusion under that very root (receipts.md 13).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from fractions import Fraction
from typing import Final

from receipts import checkpoint
from receipts.audit.checking import Checked, Signers, check_all
from receipts.audit.findings import Audit, Finding
from receipts.audit.logfile import LogFile
from receipts.audit.notices import read_notices
from receipts.audit.rows import between
from receipts.audit.whole import KINDS, Progress, signers_of, silent
from receipts.checkpoint import SignedCheckpoint
from receipts.merkle import leaf_hash, verify_inclusion
from receipts.proof import Logged
from receipts.verify.jury import Jury
from receipts.verify.pinned import PinnedTrust
from receipts.verify.trust_file import TrustFile
from receipts.verify.witnessed import witnessed
from schemas.canonical import length_prefixed, sha256
from schemas.errors import ComityError, Refused, Undecided

MAX_SAMPLE: Final = 100_000  # leaves; who wants more reads the whole log
MAX_LOOKED_AT: Final = 256  # checkpoints, newest first, among which a cosigned one must be
LIMITS: Final = (
    "A sample finds few defects only by luck: the confidence is that there are not more.",
    "Gaps between the leaves that were drawn, and checkpoints before the cosigned one, were not looked at.",
    "The log's holder chose when to sign the root that draws: it could grow its log until it liked one.",
    "A request that both domains hide leaves no trace in either log.",
)


@dataclass(frozen=True, slots=True)
class Seed:
    """A cosigned root, and the leaves that stood under an earlier one."""

    signed: SignedCheckpoint
    population: int
    """Leaves that were committed before the root existed."""
    operators: tuple[str, ...]
    """Who cosigned it."""

    @property
    def value(self) -> bytes:
        stated = self.signed.checkpoint
        return sha256(
            length_prefixed(
                b"comity sample v1", stated.origin.encode(), stated.size.to_bytes(8, "big"), stated.root
            )
        )

    def draw(self, count: int) -> list[int]:
        """So many different leaves of the population, rising. Anyone who has the root draws the same."""
        drawn: set[int] = set()
        tries = 0
        while len(drawn) < min(count, self.population):
            number = int.from_bytes(sha256(self.value, tries.to_bytes(8, "big")))
            drawn.add(number % self.population)  # of 2^256: no bias that anybody could use
            tries += 1
        return sorted(drawn)


def confidence(population: int, sample: int, defects: int) -> Fraction:
    """That so many defects or more would have shown in the sample (drawn without putting back)."""
    missed = Fraction(1)
    for number in range(min(defects, population)):
        missed *= Fraction(max(0, population - sample - number), population - number)
    return 1 - missed


@dataclass(frozen=True, slots=True)
class Sampling:
    """What an auditor asks for."""

    count: int
    """Leaves to check."""
    defects: int | None = None
    """How sure is it that fewer leaves than this are wrong? None: one in a hundred."""


def audit_sample(
    log: LogFile,
    held: PinnedTrust,
    trust: TrustFile,
    asked: Sampling,
    *,
    at: datetime,
    progress: Progress = silent,
) -> Audit:
    """Check some leaves; say how sure it is that only few of all are wrong.

    Raises `Undecided` (`audit.no_seed`) where no root of the log is cosigned as the trust file demands,
    `Refused` (`audit.no_manifest`) for a domain that is not under the pin, `Unreadable`.
    """
    if log.domain not in held.manifests:
        raise Refused("audit.no_manifest", f"{log.domain} has no manifest under the pin")
    seed = _seed(log, held, trust, at)
    result = Audit(f"A sample of the log {log.origin} of {log.domain}", limits=list(LIMITS))
    sample = _Sample(log, held, result, seed, Jury(at, trust))
    drawn = seed.draw(asked.count)
    defects = asked.defects or max(1, seed.population // 100)
    for done, index in enumerate(drawn, 1):
        sample.take(index)
        if done % 1000 == 0:
            progress(done, len(drawn))
    progress(len(drawn), len(drawn))
    sure = confidence(seed.population, len(drawn), defects)
    shown = f"{_percent(sure)} that fewer than {defects} of {seed.population} leaves are defective"
    result.counts |= {
        "seed": f"root at {seed.signed.checkpoint.size}, cosigned by {', '.join(seed.operators)}",
        "leaves": seed.population,
        "sample": len(drawn),
        "kinds": dict(sorted(sample.kinds.items())),
        "confidence": shown if not result.total["wrong"] else "none: the sample itself has defects",
    }
    return result


@dataclass(slots=True)
class _Sample:
    log: LogFile
    held: PinnedTrust
    result: Audit
    seed: Seed
    jury: Jury
    kinds: Counter[str] = field(default_factory=Counter)
    buried: dict[str, int] = field(default_factory=dict)
    noticed: set[int] = field(default_factory=set)
    """Leaves of notices, whatever is wrong with them: that is a finding already."""
    signers: Signers = field(init=False)

    def __post_init__(self) -> None:
        self.buried = read_notices(self.log, self.held, self.result, self.jury).buried
        self.signers = signers_of(self.log.domain, self.held)
        self.noticed = {row.leaf for row in self.log.notices()}

    def take(self, index: int) -> None:
        """One leaf: under the root, and what it stands for."""
        try:
            self._under_root(index)
            for checked in self._checked(index):
                self.kinds[KINDS.get(checked.row.kind, "of no known kind")] += 1
                self._judge(checked)
        except ComityError as error:
            self._wrong(error.code, f"leaf {index}: {error.text}")

    def _under_root(self, index: int) -> int:
        """The leaf's place under the cosigned root. Raises `Refused`."""
        record, stated = self.log.leaf(index), self.seed.signed.checkpoint
        if record is None:
            raise Refused("audit.leaf", "it is missing")
        path = self.log.inclusion(index, stated.size)
        verify_inclusion(leaf_hash(record), index, stated.size, path, stated.root)
        return index

    def _checked(self, index: int) -> Iterator[Checked]:
        """Its receipt; a notice was checked with the others. Raises `Refused` for a leaf of neither."""
        found = check_all(between(self.log.connection, index, index), self.signers, whole=False)
        if not found:
            if index not in self.noticed:
                raise Refused("audit.leaf_of_nothing", "neither a receipt nor a notice")
            self.kinds["notice"] += 1
        yield from found

    def _judge(self, checked: Checked) -> None:
        row = checked.row
        if checked.error is not None:
            self._wrong(checked.error.code, checked.error.text, row.receipt_id)
        elif checked.prev is None and self.buried.get(row.receipt_id) != row.leaf:
            self._wrong("audit.no_tombstone", "erased, and no tombstone says by whose order", row.receipt_id)

    def _wrong(self, code: str, text: str, receipt_id: str | None = None) -> None:
        self.result.add(Finding(self.log.domain, code, "wrong", text, receipt_id))


def _seed(log: LogFile, held: PinnedTrust, trust: TrustFile, at: datetime) -> Seed:
    """The newest root that is cosigned as demanded, over what an earlier one had committed to."""
    keys = held.log_keys(log.domain, log.origin)
    for note in log.cosigned(MAX_LOOKED_AT):
        signed = checkpoint.verify(note, keys, origin=log.origin)
        claim, watched = witnessed(Logged(0, signed), log.domain, held, trust, at)
        enough = watched.time is not None if trust.quorum is not None else bool(watched.operators)
        before = log.size_before(signed.checkpoint.size)
        if enough and claim.verdict != "failed" and before:
            return Seed(signed, before, tuple(sorted(watched.operators)))
    raise Undecided(
        "audit.no_seed", "no root here is cosigned by others, over an earlier one: nothing to draw by"
    )


def _percent(value: Fraction) -> str:
    """Rounded down, never up to a certainty that is none."""
    return f"{int(value * 10_000) / 100:.2f} % sure"
