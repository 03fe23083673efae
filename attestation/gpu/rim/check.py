"""Manifests and measurements of one device, as checks (gpu.md 6, 7)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Final, TypeAlias

from attestation.gpu.pki.chain import Family
from attestation.gpu.rim.golden import Mismatch, holds
from attestation.gpu.rim.issues import Chosen, Offer, Rules, choose, concerning, slots_of
from attestation.gpu.rim.manifest import read_manifest
from attestation.gpu.spdm.firmware import Firmware
from attestation.result import Check, failed, not_evaluated, passed, undecided
from schemas.errors import Refused

CACHED_FIRMWARES: Final = 16  # of one moment: a board has one for its GPUs and one for its switches
_RIM: Final = "gpu.md 6; ISO 19770-2; xmldsig-core1"
_GOLDEN: Final = "gpu.md 7"


Found: TypeAlias = tuple[tuple[Check, ...], tuple[Chosen, ...]]


def read_manifests(firmware: Firmware | None, family: Family | None, offers: tuple[Offer, ...]) -> None:
    """Read all that may be chosen from, for `check_manifests` to know."""
    if firmware is None or family is None:
        return
    for offer in [each for slot in slots_of(firmware, family) for each in concerning(slot, offers)]:
        with suppress(Refused):  # found anew, and told, when it is chosen from
            read_manifest(offer.data)


def check_manifests(
    firmware: Firmware | None, family: Family | None, offers: tuple[Offer, ...], rules: Rules, at: float
) -> Found:
    """The checks in the order of their reasons, and what was chosen for each manifest.

    1. one issue for every manifest that it needs; 2. no index in two of them; 3. every golden value.
    """
    if firmware is None or family is None:
        return (
            not_evaluated("gpu.rim", "no report of a known chip", _RIM),
            not_evaluated("gpu.measurements", "no manifest", _GOLDEN),
        ), ()
    return _checked(firmware, family, offers, rules, at)


@lru_cache(maxsize=CACHED_FIRMWARES)
def _checked(firmware: Firmware, family: Family, offers: tuple[Offer, ...], rules: Rules, at: float) -> Found:
    """The devices of one board show the same, at one moment, and are compared once."""
    chosen = tuple([choose(slot, offers, firmware, family, rules, at) for slot in slots_of(firmware, family)])
    return (*map(_issue, chosen), _conflict(chosen), _golden(firmware, chosen)), chosen


def _issue(chosen: Chosen) -> Check:
    name, wanted = f"gpu.rim.{chosen.slot.name}", chosen.slot.id
    if chosen.problem is not None:
        seen = f"{chosen.problem.text} ({len(chosen.outcomes)} issues, none usable)"
        return failed(name, chosen.problem.code, seen, wanted, _RIM)
    if chosen.manifest is None:
        return undecided(name, "gpu.rim_unavailable", "no issue was offered", wanted, _RIM)
    late = ", signer out of date, tolerated" if chosen.expired else ""
    seen = f"{chosen.manifest.digest}, 1 of {len(chosen.outcomes)} issues{late}"
    return passed(name, seen, wanted, _RIM)


def _conflict(chosen: Sequence[Chosen]) -> Check:
    """An index that two manifests demand has no one golden value."""
    name = "gpu.rim.conflict"
    golden = [each.manifest.golden.keys() for each in chosen if each.manifest is not None]
    if len(golden) < 2:
        return not_evaluated(name, f"{len(golden)} manifests", _GOLDEN)
    if not golden[0].isdisjoint(golden[1]):
        both = sorted(golden[0] & golden[1])
        return failed(name, "gpu.rim_index_conflict", f"active in both: {both}", "each index once", _GOLDEN)
    return passed(name, "no index in both", "each index once", _GOLDEN)


def _golden(firmware: Firmware, chosen: Sequence[Chosen]) -> Check:
    """Never a success by having nothing to compare."""
    name, wanted = "gpu.measurements", "every golden value"
    used = [each for each in chosen if each.manifest is not None]
    total = sum(len(each.manifest.golden) for each in used if each.manifest is not None)
    if not used:
        return not_evaluated(name, "no manifest", _GOLDEN)
    wrong = [(each.slot.name, miss) for each in used for miss in each.mismatches if not miss.excused]
    if any(miss.seen is None for _, miss in wrong) or total > firmware.blocks:
        seen = _mismatches(wrong) or f"{total} golden values, {firmware.blocks} blocks"
        return failed(name, "gpu.measurement_missing", seen, wanted, _GOLDEN)
    if wrong:
        return failed(name, "gpu.measurement_mismatch", _mismatches(wrong), wanted, _GOLDEN)
    if not all(each.manifest.golden for each in used if each.manifest is not None):
        return failed(name, "gpu.measurement_none_golden", "a manifest without values", wanted, _GOLDEN)
    if len(used) < len(chosen):
        return not_evaluated(name, f"{total} of those in hand match; a manifest is missing", _GOLDEN)
    excused = [each for each in used if each.mismatches and holds(each.mismatches)]
    note = ", 1 skipped: measurement_skipped_nvdec" if excused else ""
    return passed(name, f"{total - len(excused)} of {total}{note}", wanted, _GOLDEN)


def _mismatches(wrong: Sequence[tuple[str, Mismatch]]) -> str:
    return "; ".join(f"{name} {miss.text}" for name, miss in wrong)
