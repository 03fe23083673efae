"""The TCB of a quote against Intel's documents and the relying party's demands, check by check.

An unfavourable status never stops what comes after it: launch and current TCB, module, quoting enclave
and every demand are judged each for itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from attestation.result import Check, compared, downranked, failed, not_evaluated, passed
from attestation.tdx.collateral.endorsed import Endorsed
from attestation.tdx.collateral.stated import Level, QeIdentity, TcbInfo
from attestation.tdx.expected import QuotePolicy
from attestation.tdx.origin.chain import PckChain
from attestation.tdx.origin.verify import date
from attestation.tdx.quote import Quote
from attestation.tdx.tcb.grace import grace_end
from attestation.tdx.tcb.levels import (
    Standing,
    evaluate,
    hold_module,
    hold_qe,
    module_identity,
    qe_level,
    relaunched,
    shortfall,
)
from schemas.errors import Refused
from schemas.primitives import parse_time

_CLAUSE: Final = "PCS API v4: TCB evaluation"
_MATCHED: Final = "a level of the TCB info"
_NAMES: Final = (
    "tdx.tcb.qe", "tdx.tcb.launch", "tdx.tcb.status", "tdx.tcb.advisories", "tdx.tcb.date",
    "tdx.tcb.evaluation",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Judged:
    """Where the platform stands. `current` exists for TD 1.5, whose module can be updated under it."""

    checks: list[Check]
    launch: Standing | None = None
    current: Standing | None = None
    status: str | None = None
    """The merged status that is judged; None where no level matches or the documents cannot be used."""
    lacking: dict[str, str] = field(default_factory=dict)
    """Evaluation → what it falls short of the nearest level that would be accepted, where it does."""
    ends: dict[str, float] = field(default_factory=dict)
    """Until when the status is forgiven, where it is (POSIX seconds)."""


def judge_tcb(
    quote: Quote, chain: PckChain | None, endorsed: Endorsed, policy: QuotePolicy, at: float
) -> Judged:
    """1. the quoting enclave is Intel's; 2. so is the module; 3. launch and current standing; 4. demands."""
    info, identity = endorsed.tcb_info, endorsed.identity
    if chain is None or info is None or identity is None:
        why = "no chain" if chain is None else "TCB info and QE identity cannot both be used"
        return Judged([not_evaluated(name, why, _CLAUSE) for name in _NAMES])
    checks = [_try("tdx.tcb.qe", lambda: _qe_text(quote, identity), f"the enclave of {identity.id}")]
    svns = _svns(quote)
    if quote.td is not None:
        checks.append(_try("tdx.tcb.module", lambda: _module_text(quote, info), "Intel's module"))
    stands = {svn: _stand(quote, chain, svn, info, identity) for svn in set(svns.values())}
    lacks = {
        svn: _lacking(stand, chain, svn, info, policy)
        for svn, stand in stands.items()
        if isinstance(stand, Standing)
    }
    found = {name: stands[svn] for name, svn in svns.items()}  # most guests run on the module they began on
    lacking = {name: lacks[svn] for name, svn in svns.items() if svn in lacks}
    checks += [
        _standing_check(f"tdx.tcb.{name}", stand, lacking.get(name, "")) for name, stand in found.items()
    ]
    lacking = {name: text for name, text in lacking.items() if text}
    launch, current = _level(found["launch"]), _level(found.get("current"))
    status = _status(launch, current, later="current" in found)
    if status is None or launch is None:
        checks += [not_evaluated(name, "no status", _CLAUSE) for name in _NAMES[2:]]
        return Judged(checks, launch, current, status, lacking)
    end = grace_end(status, launch, svns["launch"], info, identity, policy.statuses, policy.grace)
    checks += [
        _accepted(status, end, at, policy),
        _advisories(launch, current, policy),
        _floor(launch, policy),
        _evaluation(info, identity, policy),
    ]
    forgiven = end is not None and at <= end and status not in policy.statuses
    return Judged(checks, launch, current, status, lacking, {"grace": end} if forgiven and end else {})


def _svns(quote: Quote) -> dict[str, bytes | None]:
    """Which TEE_TCB_SVN counts for which evaluation; an enclave has none."""
    td = quote.td
    if td is None:
        return {"launch": None}
    return {"launch": td.tcb_svn} if td.tcb_svn2 is None else {"launch": td.tcb_svn, "current": td.tcb_svn2}


def _try(name: str, look: Callable[[], str], wanted: str) -> Check:
    try:
        return passed(name, look(), wanted, _CLAUSE)
    except Refused as error:
        return failed(name, error.code, error.text, wanted, _CLAUSE)


def _qe_text(quote: Quote, identity: QeIdentity) -> str:
    return f"MRSIGNER {hold_qe(quote.qe, identity).mrsigner.hex()}, ISVSVN {quote.qe.isvsvn}"


def _module_text(quote: Quote, info: TcbInfo) -> str:
    td = quote.td
    assert td is not None
    svns = [svn for svn in (td.tcb_svn, td.tcb_svn2) if svn is not None]
    return ", ".join(f"{hold_module(td, svn, info).id} SVN {svn[0]}" for svn in svns)


def _stand(
    quote: Quote, chain: PckChain, svn: bytes | None, info: TcbInfo, identity: QeIdentity
) -> Standing | Refused:
    try:
        return evaluate(chain.claims, svn, info, qe_level(quote.qe, identity))
    except Refused as error:
        return error


def _level(stand: Standing | Refused | None) -> Standing | None:
    return stand if isinstance(stand, Standing) else None


def _standing_check(name: str, stand: Standing | Refused, lacking: str) -> Check:
    if isinstance(stand, Refused):
        return failed(name, stand.code, stand.text, _MATCHED, _CLAUSE)
    parts = [f"platform {_text(stand.platform)}", f"QE {_text(stand.qe)}"]
    if stand.module is not None:
        parts.insert(1, f"module {_text(stand.module)}")
    short = f"; short of an accepted level by: {lacking}" if lacking else ""
    return passed(name, ", ".join(parts) + short, _MATCHED, _CLAUSE)


def _text(level: Level) -> str:
    return f"{level.status} ({level.date[:10]})"


def _lacking(stand: Standing, chain: PckChain, svn: bytes | None, info: TcbInfo, policy: QuotePolicy) -> str:
    """What the nearest level that would be accepted asks for beyond what is there."""
    lacks: list[str] = []
    if stand.platform.status not in policy.statuses:
        better = [level for level in info.levels if level.status in policy.statuses]
        if better:
            lacks.append(shortfall(chain.claims, svn, better[-1]))
    if svn is not None and stand.module is not None and stand.module.status not in policy.statuses:
        levels = [level for level in module_identity(svn, info).levels if level.status in policy.statuses]
        lacks += [f"module SVN {svn[0]}<{level.isvsvn}" for level in levels[-1:]]
    return ", ".join(lacks)


def _status(launch: Standing | None, current: Standing | None, *, later: bool) -> str | None:
    """Either evaluation failing leaves no status at all."""
    if launch is None or (later and current is None):
        return None
    return launch.status if current is None else relaunched(launch.status, current.status)


def _accepted(status: str, grace: float | None, at: float, policy: QuotePolicy) -> Check:
    """grace: until when this status is forgiven; None where nothing forgives it."""
    name, wanted = "tdx.tcb.status", f"one of {', '.join(sorted(policy.statuses))}"
    if status == "Revoked":
        return failed(name, "tdx.tcb_revoked", status, wanted, _CLAUSE)
    if status not in policy.statuses and grace is not None and at <= grace:
        return downranked(name, f"tdx.{status}", f"{status}, in grace until {date(grace)}", wanted, _CLAUSE)
    if status not in policy.statuses:
        seen = status if grace is None else f"{status}, grace ended {date(grace)}"
        return failed(name, "tdx.tcb_status_not_accepted", seen, wanted, _CLAUSE)
    if status != "UpToDate":
        return downranked(name, f"tdx.{status}", status, "UpToDate", _CLAUSE)
    return passed(name, status, wanted, _CLAUSE)


def _advisories(launch: Standing, current: Standing | None, policy: QuotePolicy) -> Check:
    """Those of the launch and of the present: neither is undone by the other."""
    found = {*launch.advisories, *(current.advisories if current else ())}
    denied = policy.advisories_denied & found
    if policy.advisories_tolerated is not None:
        denied |= found - policy.advisories_tolerated
    seen = ", ".join(sorted(denied or found)) or "none"
    wanted = "none that is denied, and only tolerated ones"
    clause = "[tdx] advisories_denied, advisories_tolerated"
    return compared("tdx.tcb.advisories", "tdx.advisory_denied", not denied, seen, wanted, clause)


def _floor(launch: Standing, policy: QuotePolicy) -> Check:
    name, clause = "tdx.tcb.date", "[tdx] tcb_date_min"
    if policy.date_min is None:
        return not_evaluated(name, f"not demanded: {launch.date}", clause)
    holds = parse_time(launch.date).timestamp() >= policy.date_min
    return compared(
        name, "tdx.tcb_date_too_old", holds, launch.date, f"at least {date(policy.date_min)}", clause
    )


def _evaluation(info: TcbInfo, identity: QeIdentity, policy: QuotePolicy) -> Check:
    """A floor against collateral that is current but superseded, and a bound on the difference."""
    name, clause = "tdx.tcb.evaluation", "[tdx] evaluation_min, evaluation_difference"
    seen = f"TCB info {info.evaluation}, QE identity {identity.evaluation}"
    if min(info.evaluation, identity.evaluation) < policy.evaluation_min:
        return failed(name, "tdx.eval_number_too_low", seen, f"at least {policy.evaluation_min}", clause)
    most = policy.evaluation_difference
    if most is not None and abs(info.evaluation - identity.evaluation) > most:
        return failed(name, "tdx.collateral_eval_mismatch", seen, f"at most {most} apart", clause)
    return passed(name, seen, f"at least {policy.evaluation_min}", clause)
