"""Claims `witnessed` and `time`: who else saw the log at this size, and since when.

The quorum is the auditor's own, counted by operator; a log's own operator has no voice in it. The
quorum time is the only time here that is not the issuer's word: it says that the receipt stood in
the log by then, and so how far its issuer can have backdated it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from receipts.cosignature import CosignerKey
from receipts.counted import counted
from receipts.proof import Logged
from receipts.statements.receipt import Receipt
from receipts.verify.claim import Claim, asserted, failed, not_checked, proved
from receipts.verify.jury import enforced, others
from receipts.verify.pinned import PinnedTrust
from receipts.verify.trust_file import TrustFile
from receipts.witnessing import quorum
from receipts.witnessing.quorum import Policy
from schemas.errors import ComityError, Refused, Undecided
from schemas.primitives import format_time, parse_time

SKEW_S: Final = 30  # seconds that an issuer's clock may be ahead of the witnesses' (session.md 10)
PROMPT_S: Final = 60  # seconds from a receipt's own time to its quorum time that still bracket it


@dataclass(frozen=True, slots=True)
class Watched:
    """What the witnesses known under the pin said of the checkpoint over a receipt."""

    operators: Mapping[str, int]
    """Operator → time of its earliest valid cosignature, POSIX seconds."""
    of: int
    """How many operators could have signed."""
    time: int | None
    """Quorum time, POSIX seconds; None where no quorum was demanded or it is not met."""


NOBODY: Final = Watched({}, 0, None)


def witnessed(
    logged: Logged | None, issuer: str, held: PinnedTrust, trust: TrustFile, at: datetime
) -> tuple[Claim, Watched]:
    """Judge the cosignatures of the checkpoint that a receipt was proven under."""
    known = others(held, issuer)
    nobody = Watched({}, len(known), None)
    if logged is None:
        return not_checked("witnessed", "not proven to be in a log", "verify.proof_missing"), nobody
    try:
        seen = _seen(logged, known, at)
        if trust.quorum is None:
            text = f"quorum: none (waived); {len(seen.operators)} of {counted(seen.of, 'operator')} signed"
            return not_checked("witnessed", text), seen
        policy, owners = enforced(held, issuer, logged.checkpoint.checkpoint.origin, trust)
        cosigned = quorum.cosigned(logged.checkpoint.note, policy.witnesses, at=at)
        time = policy.time(cosigned.times)
    except Undecided as error:
        return not_checked("witnessed", error.text, error.code), _seen_or(nobody, logged, known, at)
    except ComityError as error:
        return failed("witnessed", error), nobody
    signed = sorted({owners[name] for name in cosigned.times})
    return proved("witnessed", cosigned, _text(signed, policy, owners, time, trust)), Watched(
        {name: seen.operators.get(name, time) for name in signed}, max(seen.of, len(signed)), time
    )


def _seen(logged: Logged, known: Mapping[str, tuple[CosignerKey, ...]], at: datetime) -> Watched:
    """Every valid cosignature by a witness of another domain, quorum or not. Raises `Refused`."""
    keys = {key.vkey: key for each in known.values() for key in each}
    times = quorum.cosigned(logged.checkpoint.note, keys, at=at).times
    found = {
        operator: min(times[key.vkey] for key in each if key.vkey in times)
        for operator, each in known.items()
        if any(key.vkey in times for key in each)
    }
    return Watched(found, len(known), None)


def _seen_or(
    nobody: Watched, logged: Logged, known: Mapping[str, tuple[CosignerKey, ...]], at: datetime
) -> Watched:
    try:
        return _seen(logged, known, at)
    except ComityError:
        return nobody


def _text(signed: list[str], policy: Policy, owners: Mapping[str, str], time: int, trust: TrustFile) -> str:
    operators = sorted(set(owners.values()))
    of = counted(len(operators), "operator")
    text = f"{len(signed)} of {of} ({', '.join(signed)}) by {_moment(time)}"
    if isinstance(trust.quorum, int):
        text += f"; {tolerance(trust.quorum, len(operators))}"
    if (alone := quorum.single_operator(policy, owners)) is not None:
        text += f"; {alone} alone could have met this quorum"
    return text


def tolerance(needed: int, of: int) -> str:
    """What a quorum of `needed` out of `of` operators survives, said plainly (receipts.md 11).

    f bad ones are tolerated when any two quorums share an honest one (k > (N+f)/2) and the honest
    ones can still make a quorum (k ≤ N−f).
    """
    outages = of - needed
    bad = max(0, min(2 * needed - of - 1, outages))
    first = f"{counted(bad, 'bad one is', 'bad ones are') if bad else 'no bad one is'} tolerated"
    second = f"{outages + 1} outages stall it" if outages else "one outage stalls it"
    return f"quorum {needed} of {of}: {first}, {second}"


def time_claim(body: Receipt, watched: Watched) -> Claim:
    """`time`: the quorum saw the receipt soon after the moment that its issuer states."""
    stated = parse_time(body.times.issued)
    if watched.time is None:
        return asserted("time", body.issuer, f"issued {body.times.issued}")
    delay = watched.time - stated.timestamp()
    if delay < -SKEW_S:
        error = Refused(
            "verify.time", f"dated {body.times.issued}, in the log by {_moment(watched.time)} already"
        )
        return failed("time", error)
    text = f"issued {body.times.issued}, in the log by {_moment(watched.time)} (quorum time)"
    if delay > PROMPT_S:
        return asserted("time", body.issuer, f"{text}: too late to show that it was not backdated")
    return proved("time", watched, text)


def _moment(seconds: int) -> str:
    return format_time(datetime.fromtimestamp(min(seconds, 4_133_980_799), UTC))
