"""Condensing nodes into cells: coarse, late on purpose, and never larger because there are more nodes.

A cell shows what the *weakest* node behind it has. Fewer than `k_min` nodes show class and place
only, which can still be called. A change of load shows once it has lasted, so that no single job's
start or stop can be read off (policy-and-negotiation B2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from domain_agent.offer.holding import Candidate, Holding, headroom_of
from schemas.descriptors.summary import MAX_CELLS, Cell, Headroom, rate_band

MAX_TPS: Final = 100_000  # tokens per second: what a cell can say
DWELL_S: Final = 3.0  # seconds a change of headroom or speed must last before it shows
SCORES: Final = ((500, 10), (200, 9), (100, 8), (50, 7), (20, 5), (10, 4), (1, 2))
"""CATS L1 service score by decode rate in tokens per second, bands 0-3, 4-7, 8-10."""

Tee = Literal["none", "snp", "tdx", "simulated"]


@dataclass(frozen=True, slots=True)
class _Load:
    """What moves in a cell."""

    headroom: Headroom
    prefill_tps: int
    decode_tps: int


@dataclass(slots=True)
class _Shown:
    shown: _Load
    other: _Load | None = None
    since: float = 0.0


@dataclass(slots=True)
class Condenser:
    """Makes cells. Remembers per cell what was shown, and since when something else holds."""

    holding: Holding
    jurisdiction: str
    k_min: int
    _memory: dict[tuple[str, str | None], _Shown] = field(default_factory=dict)

    def cells(self, now: float) -> list[Cell]:
        """All cells, in order of class and variant. now: the agent's steady clock in seconds."""
        by_class: dict[str, list[list[Candidate]]] = {}
        for entry in self.holding.catalogue.entries:
            candidates = self.holding.candidates(entry)
            if candidates:
                by_class.setdefault(entry.name, []).append(candidates)
        cells: list[Cell] = []
        for name in sorted(by_class):
            variants = by_class[name]
            cells += [self._cell(each, now) for each in variants if len(each) >= self.k_min]
            if any(len(each) < self.k_min for each in variants):
                cells.append(Cell(cls=name, jur=self.jurisdiction))
        return cells[:MAX_CELLS]

    def _cell(self, candidates: Sequence[Candidate], now: float) -> Cell:
        entry = candidates[0].entry
        load = self._steady((entry.name, entry.variant), _load_of(candidates), now)
        appraisals = [each.record.appraisal for each in candidates]
        tees = {_tee(appraisal.simulated, appraisal.platform) for appraisal in appraisals if appraisal}
        return Cell(
            cls=entry.name,
            jur=self.jurisdiction,
            variant=entry.variant,
            version=entry.version,
            digest=entry.digest,
            tier=entry.quality.tier,
            context_limit=entry.quality.context_limit,
            params_m=entry.quality.params_m,
            tee=tees.pop() if len(tees) == 1 else "none",
            ar_min=min(appraisal.assurance for appraisal in appraisals if appraisal),
            confidential_gpu=all(each is not None and each.confidential_gpus > 0 for each in appraisals),
            rates=entry.rates,
            prefill_tps=load.prefill_tps,
            decode_tps=load.decode_tps,
            headroom=load.headroom,
            computing_comb=load.headroom,
            service_comb=next((score for least, score in SCORES if load.decode_tps >= least), 0),
        )

    def _steady(self, key: tuple[str, str | None], load: _Load, now: float) -> _Load:
        """What is shown: the new value only once it differed for `DWELL_S` without a break."""
        held = self._memory.get(key)
        if held is None:
            held = self._memory[key] = _Shown(load)
        elif load == held.shown:
            held.other = None
        elif held.other is None:
            held.other, held.since = load, now
        elif now - held.since >= DWELL_S:
            held.shown, held.other = load, None
        else:
            held.other = load
        return held.shown


def _load_of(candidates: Sequence[Candidate]) -> _Load:
    models = [each.record.model(each.entry.label, each.entry.digest) for each in candidates]
    known = [model for model in models if model]
    return _Load(
        headroom_of(candidates),
        rate_band(min([MAX_TPS, *(model.prefill_tps for model in known)])),
        rate_band(min([MAX_TPS, *(model.decode_tps for model in known)])),
    )


def _tee(simulated: bool, platform: str) -> Tee:
    if simulated:
        return "simulated"
    return "snp" if platform.startswith("snp") else "tdx" if platform.startswith("tdx") else "none"
