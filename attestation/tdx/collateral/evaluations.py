"""Whether TCB info is of an evaluation that Intel still serves, by Intel's signed list of them (PCS API v4).

An event that asks for updates raises the number. The newest is the early channel; the standard channel
follows a year after each event, so that fleets have time. Without the list a superseded number cannot be
told from the newest: a relying party that holds to a channel needs it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from attestation.result import Check, failed, not_evaluated, passed, undecided
from attestation.tdx.collateral.documents import Offered
from attestation.tdx.collateral.endorsed import MAX_CANDIDATES, Endorsed, verify_document
from attestation.tdx.collateral.stated import Evaluations, read_evaluations
from attestation.tdx.origin.chain import PckChain, Roots
from attestation.tdx.origin.verify import date, from_error
from attestation.tdx.quote import Tee
from schemas.errors import Refused, Undecided

Channel = Literal["standard", "early"]
CHANNELS: Final[tuple[Channel, ...]] = ("standard", "early")
STANDARD_AFTER: Final = 365 * 86_400.0  # seconds after the event; Intel: twelve months
NAME: Final = "tdx.collateral.evaluations"
_CLAUSE: Final = "PCS API v4: TCB evaluation data numbers"
_WANTED: Final = "a current list, signed by Intel's TCB signer"


@dataclass(frozen=True, slots=True)
class Listed:
    """What the list says at one moment. The numbers are None where no list could be used."""

    check: Check
    standard: int | None = None
    early: int | None = None
    numbers: tuple[int, ...] = ()
    issued: float = 0.0
    """When the list was (POSIX seconds)."""
    end: float | None = None
    """Until when the list is current, where the answer rests on it (POSIX seconds)."""
    begins: tuple[float, ...] = ()
    """When the answer may change: another list begins, this one ends, a number becomes the standard."""


def check_evaluations(
    offered: Offered,
    chain: PckChain | None,
    tee: Tee,
    roots: Roots,
    endorsed: Endorsed,
    at: float,
    channel: Channel | None,
) -> Listed:
    """Hold the TCB info in use to the list. channel: None = the list is shown, and not demanded."""
    try:
        found = _verified(offered, chain, tee, roots)
    except (Refused, Undecided) as error:
        if channel is None:
            return Listed(_gap(error.code, f"{error.code}: {error.text}", channel))
        return Listed(from_error(NAME, error, _WANTED, _CLAUSE))
    later = tuple(each.issued for each in found if each.issued > at)
    listed = max((each for each in found if each.issued <= at), key=lambda each: each.issued, default=None)
    if listed is None or at > listed.next_update:
        return Listed(_gap(*_why(found, listed), channel), begins=later)
    standard, early = standard_of(listed, at), listed.numbers[0].number
    info = endorsed.tcb_info
    turns = [listed.next_update, *(each.recovered + STANDARD_AFTER for each in listed.numbers)]
    return Listed(
        _held(info.evaluation if info else None, standard, early, channel),
        standard,
        early,
        tuple(each.number for each in listed.numbers),
        listed.issued,
        listed.next_update if channel is not None else None,
        (*later, *(moment for moment in turns if moment > at)),
    )


def standard_of(listed: Evaluations, at: float) -> int:
    """The highest number whose event is a year old; the lowest where none is that old yet."""
    old = [each.number for each in listed.numbers if at - each.recovered >= STANDARD_AFTER]
    return max(old, default=listed.numbers[-1].number)


def _verified(offered: Offered, chain: PckChain | None, tee: Tee, roots: Roots) -> list[Evaluations]:
    """Those of this TEE that verify. Raises the first problem where none does.

    A list that came alone is looked at with every signer that came with another document.
    """
    lists = offered.of("evaluations")[:MAX_CANDIDATES]
    beside = [each for source in offered.documents for each in source.issuers or ()] if lists else []
    certificates = list(dict.fromkeys((*offered.certificates, *beside)))
    found: list[Evaluations] = []
    problem: Refused | Undecided | None = None
    for source in lists:
        try:
            verify_document(source, certificates, chain, roots)
            found.append(read_evaluations(source.body))
        except (Refused, Undecided) as error:
            problem = problem or error
    if problem is not None and not found:
        raise problem
    return [each for each in found if each.id == tee.upper()]


def _why(found: list[Evaluations], listed: Evaluations | None) -> tuple[str, str]:
    if listed is not None:
        return "tdx.collateral_expired", f"until {date(listed.next_update)}"
    if found:
        return "tdx.collateral_not_yet_valid", f"from {date(min(each.issued for each in found))}"
    return "tdx.collateral_missing", "none offered"


def _gap(code: str, seen: str, channel: Channel | None) -> Check:
    """No list can be used: undecided where one is demanded, and else a list is but information."""
    if channel is None:
        return not_evaluated(NAME, f"not demanded; {seen}", _CLAUSE)
    return undecided(NAME, code, seen, _WANTED, _CLAUSE)


def _held(used: int | None, standard: int, early: int, channel: Channel | None) -> Check:
    if used is None:
        return not_evaluated(NAME, "no TCB info is in use", _CLAUSE)
    seen = f"evaluation {used}; standard {standard}, early {early}"
    least = early if channel == "early" else standard
    if used >= least:
        return passed(NAME, seen, f"at least {least}", _CLAUSE)
    if channel is not None:
        return failed(NAME, "tdx.eval_number_too_low", seen, f"at least {least}", _CLAUSE)
    return Check(NAME, "fail", seen, f"at least {least}", _CLAUSE, "tdx.eval_number_too_low", "shown")
