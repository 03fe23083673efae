"""One DCAP quote, from bytes to verdict: format, origin, collateral, TCB, demands (DESIGN 7).

Bytes and a time go in, a result comes out; no I/O, no clock. All planes run that can, so that an
out-of-date quote still shows its mismatches, and each plane has a verdict of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from math import inf
from typing import Final, NamedTuple

from attestation.pki.x509 import Crl
from attestation.result import AttestationResult, Check, Verdict, decide, failed
from attestation.snp.azure import AzureParts
from attestation.tdx.collateral.documents import NOTHING, Offered, gather, memorable
from attestation.tdx.collateral.endorsed import Endorsed, endorse
from attestation.tdx.collateral.evaluations import Listed, check_evaluations
from attestation.tdx.collateral.rollback import Marks, check_rollback
from attestation.tdx.expected import DEFAULT, QuotePolicy
from attestation.tdx.forms import QuoteForm, unwrap
from attestation.tdx.kept import Kept, room_of_guest, standing_of
from attestation.tdx.log.replay import Replay, check_logs, state_logs
from attestation.tdx.origin.azure import check_vtpm
from attestation.tdx.origin.chain import PckChain
from attestation.tdx.origin.revocation import begins, check_revocation
from attestation.tdx.origin.verify import Origin, authenticate, check_signatures
from attestation.tdx.platforms import check_platform
from attestation.tdx.policy import check_debug, check_demands, check_nonce, check_report_data
from attestation.tdx.quote import Quote, Tee, check_quote, read_quote
from attestation.tdx.show import notes, state
from attestation.tdx.tcb.judge import Judged, judge_tcb
from attestation.tdx.tcb.whatif import Asked, other_evaluations
from schemas.canonical import Json, sha256
from schemas.errors import Unreadable

PLANES: Final = {
    "authenticity": ("tdx.parse.", "tdx.authenticity."),
    "freshness": ("tdx.collateral.",),
    "tcb_launch": ("tdx.tcb.qe", "tdx.tcb.module", "tdx.tcb.launch", "tdx.tcb.status"),
    "tcb_current": ("tdx.tcb.current",),
    "policy": ("tdx.policy.", "tdx.azure.", "tdx.tcb.advisories", "tdx.tcb.date", "tdx.tcb.evaluation"),
    "event_log": ("tdx.event_log.",),
}
"""Plane → the checks that speak for it; each check speaks for one."""


class QuoteAppraisal(NamedTuple):
    """A result with the parsed quote, for callers that bind more to it."""

    result: AttestationResult
    quote: Quote
    ppid: bytes | None
    """16 bytes that name the platform, as its PCK certificate states them; None where its origin fails."""
    found: Found


def appraise_quote(
    evidence: bytes | QuoteForm,
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
    """Appraise a quote at the time `at`. Raises `Unreadable` when the evidence is no quote of this TEE.

    policy: None = no reference values are demanded. nonce: the whole report data (64 bytes), or what the
    vTPM beside the quote of an Azure guest was asked.
    evaluation: judge as if this TCB evaluation data number were the newest that exists.
    event_logs: what a trust domain measured after MRTD, in either form (tdx/log).
    marks: the newest collateral that was seen; None when a past moment is judged, or nothing is remembered.

    What holds is kept for the same guest's next quote (tdx/kept.py).
    """
    form = unwrap(evidence) if isinstance(evidence, bytes) else evidence
    quote = read_quote(form.quote)
    if quote.tee != tee:
        raise Unreadable("tdx.tee_type_unsupported", f"a quote of {quote.tee}, not of {tee}")
    asked = Question(
        tuple(endorsements), policy, (expectations_digest, tuple(waived)), nonce, waive_revocation,
        evaluation, (*form.event_logs, *event_logs), marks, form.azure,
    )  # fmt: skip
    room = _room(quote, asked)
    kept = None if room is None else room.at(at.timestamp())
    if kept is not None:
        return _next(kept, quote, policy, nonce, at)
    found, begin = _appraise(quote, asked, at)
    ends = found.result.valid_until
    if room is not None and found.result.verdict in ("affirming", "warning") and ends is not None:
        room.keep(found, at.timestamp(), min(ends, begin))
    return found


class Question(NamedTuple):
    """Everything but quote and moment that an answer depends on."""

    endorsements: tuple[bytes, ...]
    policy: QuotePolicy | None
    named: tuple[bytes | None, tuple[str, ...]]
    """Digest and waivers of the expectations."""
    nonce: bytes | None
    waive_revocation: bool
    evaluation: int | None
    event_logs: tuple[bytes, ...] = ()
    marks: Marks | None = None
    azure: AzureParts | None = None


def _room(quote: Quote, asked: Question) -> Kept | None:
    """Where an appraisal is kept for the same guest's next quote.

    None where the answer rests on more than the guest's standing, or on more than memory has room for.
    """
    if asked.event_logs or asked.marks is not None or asked.azure is not None:
        return None
    if not memorable(asked.endorsements):
        return None
    asking = asked.nonce is not None, asked.waive_revocation, asked.evaluation
    return room_of_guest(standing_of(quote), asked.endorsements, asked.policy, asked.named, asking)


def _appraise(quote: Quote, asked: Question, at: datetime) -> tuple[QuoteAppraisal, float]:
    """The appraisal, and when something offered begins that could change it (POSIX seconds).

    1. format; 2. sort the collateral; 3. origin; 4. collateral and revocation; 5. TCB; 6. demands; 7. logs.
    """
    moment, rules = at.timestamp(), asked.policy or DEFAULT
    checks = check_quote(quote)
    offered = _gather(asked.endorsements, checks)
    origin = authenticate(quote, offered.certificates, rules.roots, moment)
    chain = origin.chain
    endorsed = endorse(
        offered, chain, quote.tee, rules.roots, moment,
        evaluation=asked.evaluation, max_age=rules.collateral_max_age,
    )  # fmt: skip
    listed = check_evaluations(offered, chain, quote.tee, rules.roots, endorsed, moment, rules.channel)
    waived = asked.waive_revocation or rules.revocation == "any"
    revocation, crls = check_revocation(offered.crls, chain, endorsed.signers, moment, waived=waived)
    judged = judge_tcb(quote, chain, endorsed, rules, moment)
    checks += (*origin.checks, *endorsed.checks, listed.check, *revocation, *judged.checks)
    checks += [check_debug(quote, rules), *_demanded(quote, asked, chain, endorsed, listed)]
    replay = Replay((), {}) if quote.td is None else check_logs(quote.td, asked.event_logs, rules.event_log)
    checks += replay.checks
    places = {check.name: place for place, check in enumerate(checks)}
    ends = _ends(chain, endorsed, listed, judged, crls)
    found = Found(offered, rules, origin, endorsed, listed, crls, judged, replay, ends, places)
    result = _concluded(found, quote, checks, asked, at)
    later = [*endorsed.begins, *listed.begins, *begins(offered.crls, moment)] if result.exit_code == 0 else []
    proven = chain is not None and all(check.status == "pass" for check in origin.checks)
    ppid = chain.claims.ppid if chain and proven else None
    return QuoteAppraisal(result, quote, ppid, found), min(later, default=inf)


def _demanded(
    quote: Quote, asked: Question, chain: PckChain | None, endorsed: Endorsed, listed: Listed
) -> list[Check]:
    """What the relying party asks for beyond what Intel signs, and what this question asks."""
    checks = check_vtpm(asked.azure, quote.body.report_data, asked.policy, asked.nonce)
    if asked.marks is not None:
        checks.append(check_rollback(endorsed, listed, quote.tee, asked.marks))
    if asked.nonce is not None and asked.azure is None:
        checks.append(check_nonce(quote, asked.nonce))
    if asked.policy is not None:
        checks += check_demands(quote, asked.policy)
        checks.append(check_platform(chain.claims if chain else None, asked.policy.platforms))
    return checks


def _ends(
    chain: PckChain | None, endorsed: Endorsed, listed: Listed, judged: Judged, crls: Mapping[str, Crl]
) -> dict[str, float]:
    """Until when each input that the answer rests on is current (POSIX seconds)."""
    ends = {**endorsed.ends, **judged.ends, **{name: crl.next_update or 0 for name, crl in crls.items()}}
    if listed.end is not None:
        ends["evaluations"] = listed.end
    if chain is not None:
        ends["pck_chain"] = min(each.not_after for each in (chain.leaf, chain.issuer, chain.root))
    return ends


def _next(
    known: QuoteAppraisal, quote: Quote, policy: QuotePolicy | None, nonce: bytes | None, at: datetime
) -> QuoteAppraisal:
    """A quote of the same standing, judged in what it may differ in: its signatures and its report data."""
    found, result = known.found, known.result
    assert found.origin.chain is not None
    broken = [check for check in check_signatures(quote, found.origin.chain) if check.status != "pass"]
    differing = list(broken)  # those that hold say what they said before
    if policy is not None:
        differing.append(check_report_data(quote, policy))
    if nonce is not None:
        differing.append(check_nonce(quote, nonce))
    checks, holds = list(result.checks), True
    for check in differing:
        checks[found.places[check.name]] = check
        holds = holds and check.status != "fail"
    verdict, reason = (result.verdict, result.reason) if holds else decide(checks)
    listed = tuple(checks)
    changed = result._replace(
        verdict=verdict, reason=reason, checks=listed, at=at, identity=quote.identity,
        stated=partial(found.stated, quote, listed, at),
    )  # fmt: skip
    return QuoteAppraisal(changed, quote, None if broken else known.ppid, found)


@dataclass(frozen=True, slots=True)
class Found:
    """What one appraisal rests on, for display and for the guest's next quote."""

    offered: Offered
    rules: QuotePolicy
    origin: Origin
    endorsed: Endorsed
    listed: Listed
    crls: dict[str, Crl]
    judged: Judged
    replay: Replay
    ends: dict[str, float]
    """Until when each input is current (POSIX seconds)."""
    places: dict[str, int]
    """Name of a check → where it stands among the checks."""

    def stated(self, quote: Quote, checks: Sequence[Check], at: datetime) -> dict[str, Json]:
        """For the quote that was appraised, or another of the same standing."""
        chain, moment = self.origin.chain, at.timestamp()
        asked = Asked(quote, chain, self.offered, self.rules)
        return {
            **state(quote, chain, self.endorsed, self.judged, verdicts(checks), self.ends, moment),
            "notes": notes((*self.endorsed.checks, self.listed.check)),
            "collateral": {
                **self.endorsed.digests,
                **{name: sha256(crl.der).hex() for name, crl in self.crls.items()},
            },
            "evaluations": {
                "listed": list(self.listed.numbers),
                "standard": self.listed.standard,
                "early": self.listed.early,
            },
            "event_log": state_logs(self.replay),
            "other_evaluations": other_evaluations(asked, self.endorsed, moment),
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


def _concluded(
    found: Found, quote: Quote, checks: list[Check], asked: Question, at: datetime
) -> AttestationResult:
    verdict, reason = decide(checks)
    chain, pin = found.origin.chain, found.origin.pin
    simulated = pin is not None and pin.simulated
    platform = f"{quote.tee}-{chain.claims.fmspc.hex()}" if chain and pin else f"{quote.tee}-unknown"
    digest, waived = asked.named
    return AttestationResult(
        tee=quote.tee,
        verdict=verdict,
        reason=reason,
        checks=tuple(checks),
        at=at,
        identity=quote.identity,
        platform=f"simulated-{platform}" if simulated else platform,
        simulated=simulated,
        debug=quote.body.debug,
        expectations_digest=digest,
        valid_until=min(found.ends.values()) if found.ends else None,
        waived=(*(("revocation",) if asked.waive_revocation else ()), *waived),
        advisories=found.judged.launch.advisories if found.judged.launch else (),
        stated=partial(found.stated, quote, tuple(checks), at),
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
