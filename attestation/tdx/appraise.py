"""One DCAP quote, from bytes to verdict: format, origin, collateral, TCB, demands (DESIGN 7).

Bytes and a time go in, a result comes out; no I/O, no clock. All planes run that can, so that an
out-of-date quote still shows its mismatches, and each plane has a verdict of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from attestation.result import AttestationResult, Check, Verdict, decide, failed
from attestation.tdx.documents import NOTHING, Offered, gather
from attestation.tdx.endorsed import Endorsed, endorse
from attestation.tdx.expected import DEFAULT, QuotePolicy
from attestation.tdx.judge import Judged, judge_tcb
from attestation.tdx.log.replay import Replay, check_logs, state_logs
from attestation.tdx.platforms import check_platform
from attestation.tdx.policy import check_debug, check_demands, check_nonce
from attestation.tdx.quote import Quote, Tee, check_quote, read_quote
from attestation.tdx.revocation import check_revocation
from attestation.tdx.rollback import Marks, check_rollback
from attestation.tdx.show import state
from attestation.tdx.verify import Origin, authenticate
from attestation.tdx.whatif import Asked, other_evaluations
from schemas.canonical import Json
from schemas.errors import Unreadable

PLANES: Final = {
    "authenticity": ("tdx.parse.", "tdx.authenticity."),
    "freshness": ("tdx.collateral.",),
    "tcb_launch": ("tdx.tcb.qe", "tdx.tcb.module", "tdx.tcb.launch", "tdx.tcb.status"),
    "tcb_current": ("tdx.tcb.current",),
    "policy": ("tdx.policy.", "tdx.tcb.advisories", "tdx.tcb.date", "tdx.tcb.evaluation"),
    "event_log": ("tdx.event_log.",),
}
"""Plane → the checks that speak for it; each check speaks for one."""


@dataclass(frozen=True, slots=True)
class QuoteAppraisal:
    """A result with the parsed quote, for callers that bind more to it."""

    result: AttestationResult
    quote: Quote
    ppid: bytes | None
    """16 bytes that name the platform, as its PCK certificate states them; None where no chain holds."""


def appraise_quote(
    evidence: bytes,
    *,
    tee: Tee,
    endorsements: Sequence[bytes],
    policy: QuotePolicy | None,
    expectations_digest: bytes | None,
    waived: Sequence[str],
    nonce: bytes | None,
    waive_revocation: bool,
    at: datetime,
    evaluation: int | None = None,
    event_logs: Sequence[bytes] = (),
    marks: Marks | None = None,
) -> QuoteAppraisal:
    """Appraise a quote at the time `at`. Raises `Unreadable` when the bytes are no quote of this TEE.

    policy: None = no reference values are demanded. nonce: the whole report data (64 bytes).
    evaluation: judge as if this TCB evaluation data number were the newest that exists.
    event_logs: what a trust domain measured after MRTD, in either form (tdx/log).
    marks: the newest collateral that was seen; None when a past moment is judged, or nothing is remembered.

    1. read; 2. sort the collateral; 3. origin; 4. collateral and revocation; 5. TCB; 6. demands; 7. logs.
    """
    quote = read_quote(evidence)
    if quote.tee != tee:
        raise Unreadable("tdx.tee_type_unsupported", f"a quote of {quote.tee}, not of {tee}")
    moment, rules = at.timestamp(), policy or DEFAULT
    checks = check_quote(quote)
    offered = _gather(endorsements, checks)
    origin = authenticate(quote, offered.certificates, rules.roots, moment)
    chain = origin.chain
    endorsed = endorse(
        offered, chain, tee, rules.roots, moment, evaluation=evaluation, max_age=rules.collateral_max_age
    )
    revocation, ends = check_revocation(
        offered.crls, chain, endorsed.signers, moment, waived=waive_revocation or rules.revocation == "any"
    )
    judged = judge_tcb(quote, chain, endorsed, rules, moment)
    checks += [*origin.checks, *endorsed.checks, *revocation, *judged.checks, check_debug(quote, rules)]
    if marks is not None:
        checks.append(check_rollback(endorsed, tee, marks))
    if nonce is not None:
        checks.append(check_nonce(quote, nonce))
    if policy is not None:
        checks += check_demands(quote, policy)
        checks.append(check_platform(chain.claims if chain else None, policy.platforms))
    replay = Replay((), {}) if quote.td is None else check_logs(quote.td, event_logs, rules.event_log)
    checks += replay.checks
    found = _Found(Asked(quote, chain, offered, rules), origin, endorsed, judged, replay, checks)
    return QuoteAppraisal(
        replace(
            _concluded(found, {**endorsed.ends, **ends, **judged.ends}, at),
            expectations_digest=expectations_digest,
            waived=(*(("revocation",) if waive_revocation else ()), *waived),
        ),
        quote,
        chain.claims.ppid if chain and origin.pin else None,
    )


@dataclass(frozen=True, slots=True)
class _Found:
    """Everything that one appraisal found."""

    asked: Asked
    origin: Origin
    endorsed: Endorsed
    judged: Judged
    replay: Replay
    checks: list[Check]

    def stated(self, planes: dict[str, Json], ends: dict[str, float], at: float) -> dict[str, Json]:
        return {
            **state(self.asked.quote, self.origin.chain, self.endorsed, self.judged, planes, ends, at),
            "event_log": state_logs(self.replay),
            "other_evaluations": other_evaluations(self.asked, self.endorsed, at),
        }


def _gather(endorsements: Sequence[bytes], checks: list[Check]) -> Offered:
    """What cannot be read as collateral refuses; it is never passed over."""
    try:
        return gather(tuple(endorsements))
    except Unreadable as error:
        checks.append(
            failed(
                "tdx.collateral.documents",
                error.code,
                error.text,
                "certificates, CRLs, Intel's JSON",
                "PCS API v4",
            )
        )
        return NOTHING


def _concluded(found: _Found, ends: dict[str, float], at: datetime) -> AttestationResult:
    verdict, reason = decide(found.checks)
    quote, chain, pin = found.asked.quote, found.origin.chain, found.origin.pin
    if chain is not None:
        ends = {**ends, "pck_chain": min(c.not_after for c in (chain.leaf, chain.issuer, chain.root))}
    simulated = pin is not None and pin.simulated
    platform = f"{quote.tee}-{chain.claims.fmspc.hex()}" if chain and pin else f"{quote.tee}-unknown"
    planes = verdicts(found.checks)
    return AttestationResult(
        tee=quote.tee,
        verdict=verdict,
        reason=reason,
        checks=tuple(found.checks),
        at=at,
        identity=quote.identity,
        platform=f"simulated-{platform}" if simulated else platform,
        simulated=simulated,
        debug=quote.body.debug,
        valid_until=min(ends.values()) if ends else None,
        advisories=found.judged.launch.advisories if found.judged.launch else (),
        stated=lambda: found.stated(planes, ends, at.timestamp()),
    )


def verdicts(checks: Sequence[Check]) -> dict[str, Json]:
    """Each plane's own verdict; None where nothing of it was judged."""
    return {
        plane: _verdict([c for c in checks if c.name.startswith(names)]) for plane, names in PLANES.items()
    }


def _verdict(checks: Sequence[Check]) -> Verdict | None:
    if all(check.status == "not_evaluated" and check.effect == "shown" for check in checks):
        return None
    return decide(checks)[0]
