"""Whether NVIDIA has withdrawn a certificate, one by one, from what a bundle holds (gpu.md 8).

OCSP answers and CRLs serve alike. Revocation outlives freshness: an old answer that says "revoked" still
does. A waiver forgives what is missing, stale or unknown, never what is offered and bad.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Final, NamedTuple

from attestation.gpu.pki.constraints import stated
from attestation.gpu.pki.signature import verify_signed
from attestation.gpu.revocation.ocsp import (
    HASHES,
    Response,
    answers_about,
    begin_response,
    cert_ids,
    is_declined,
    read_response,
    verify_response,
)
from attestation.gpu.side import Start
from attestation.gpu.verify import date
from attestation.pki.x509 import Certificate, Crl, read_certificate, read_crl
from attestation.result import Check, failed, not_evaluated, passed, undecided
from schemas.errors import Refused, Unreadable

CLOCK_TOLERANCE: Final = 60.0  # seconds between a responder's clock and ours
CACHED_CRLS: Final = 64
_CLAUSE: Final = "gpu.md 8; RFC 6960 3.2; RFC 5280 6.3.3"
_WANTED: Final = "a current answer that it is not revoked"
_CRL_SIGN: Final = 0x02  # first octet of KeyUsage, RFC 5280 4.2.1.3
_WORST: Final = ("gpu.revocation_unknown", "gpu.ocsp_stale", "gpu.crl_stale", "gpu.revocation_unavailable")


class Subject(NamedTuple):
    """A certificate about which one asks, with its issuer. A tuple: nine are made for each device."""

    name: str
    """What it is, e.g. `device` or `driver.signer`."""
    certificate: Certificate
    issuer: Certificate
    may_hold: bool = False
    """Whether policy forgives that it is on hold: the device's own, never an authority's."""


@dataclass(frozen=True, slots=True)
class Held:
    """Everything that was offered, read."""

    responses: tuple[Response, ...] = ()
    crls: tuple[Crl, ...] = ()
    problem: Refused | None = None
    """The first document that could not be read."""
    declined: int = 0
    """Responses in which a responder says that it does not answer."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """What all certificates of one device are asked about with."""

    held: Held
    foreign: dict[int, str]
    """Serials in answers that are about none of ours, with what those name otherwise."""
    at: float
    waived: bool
    start: Start


@dataclass(slots=True)
class _Found:
    """What speaks for or against one certificate."""

    good: list[tuple[str, float, float]] = field(default_factory=list)
    """(source, this update, next update) of every current answer."""
    gaps: dict[str, str] = field(default_factory=dict)


def read_offered(responses: Sequence[bytes], crls: Sequence[bytes]) -> Held:
    """Read what was offered; what cannot be read is reported, and nothing of it counts."""
    answered = [each for each in responses if not is_declined(each)]
    try:
        read = tuple(map(read_response, answered)), tuple(map(_crl, crls))
    except Refused as error:
        return Held(problem=error)
    return Held(*read, declined=len(responses) - len(answered))


def _crl(data: bytes) -> Crl:
    try:
        return read_crl(data)
    except Unreadable as error:
        raise Refused("gpu.crl_malformed", error.text) from None


def begin_revocation(held: Held, subjects: Sequence[Subject], start: Start) -> None:
    """Begins with the signatures of answers that `check_revocation` will ask for."""
    for subject in subjects:
        for response, _ in answers_about(held.responses, subject.certificate, subject.issuer):
            begin_response(response, subject.issuer, start)


def check_revocation(
    held: Held, subjects: Sequence[Subject], at: float, *, waived: bool, start: Start = partial
) -> tuple[list[Check], dict[str, float]]:
    """One check a certificate, and until when each answer that is used is current (POSIX seconds).

    start: how the signature checks of answers begin, or have begun.
    """
    checks: list[Check] = []
    if held.problem is not None:
        checks.append(
            failed("gpu.revocation.documents", held.problem.code, held.problem.text, "OCSP or CRL", _CLAUSE)
        )
    if waived and not held.responses and not held.crls:
        seen = f"waived; gpu.revocation_unavailable: {_nothing(held)}"
        return [
            *checks,
            *(not_evaluated(f"gpu.revocation.{each.name}", seen, _CLAUSE) for each in subjects),
        ], {}
    ends: dict[str, float] = {}
    asked = _Asked(held, _foreign_serials(held, subjects), at, waived, start)
    for subject in subjects:
        checks.append(_check(subject, asked, ends))
    return checks, ends


def _foreign_serials(held: Held, subjects: Sequence[Subject]) -> dict[int, str]:
    """Serials in answers that, as a whole, are about none of ours, with what they name otherwise."""
    if not held.responses:
        return {}
    ours = frozenset().union(*(cert_ids(each.certificate, each.issuer) for each in subjects))
    return {
        answer.about.serial: "of another issuer"
        if answer.about.algorithm in HASHES
        else f"which names its issuer by {answer.about.algorithm.upper()}: ask with SHA-384 or SHA-256"
        for response in held.responses
        for answer in response.answers
        if answer.about not in ours
    }


def _check(subject: Subject, asked: _Asked, ends: dict[str, float]) -> Check:
    name, found = f"gpu.revocation.{subject.name}", _Found()
    try:
        _ask_responses(subject, asked, found)
        _ask_crls(subject, asked, found)
    except Refused as error:
        return failed(name, error.code, error.text, _WANTED, _CLAUSE)
    if found.good:
        source, since, until = max(found.good, key=lambda each: each[2])
        ends[subject.name] = until
        seen = f"not revoked, {source} of {date(since)}, until {date(until)}"
        return passed(name, seen, _WANTED, _CLAUSE)
    if not found.gaps and subject.certificate.serial in asked.foreign:
        seen = f"an answer for this serial, but one {asked.foreign[subject.certificate.serial]}"
        return failed(name, "gpu.ocsp_certid_mismatch", seen, _WANTED, _CLAUSE)
    code = next((each for each in _WORST if each in found.gaps), "gpu.revocation_unavailable")
    seen = found.gaps.get(code) or _nothing(asked.held)
    if asked.waived:
        return not_evaluated(name, f"waived; {code}: {seen}", _CLAUSE)
    return undecided(name, code, seen, _WANTED, _CLAUSE)


def _nothing(held: Held) -> str:
    declined = f"; {held.declined} times the responder did not answer" if held.declined else ""
    return f"no answer was offered{declined}"


def _ask_responses(subject: Subject, asked: _Asked, found: _Found) -> None:
    """Raises `Refused` for a response that is not to be trusted, and for a certificate that is withdrawn."""
    for response, answer in answers_about(asked.held.responses, subject.certificate, subject.issuer):
        verify_response(response, subject.issuer, asked.at, asked.start)
        if answer.status == "revoked" or (answer.status == "hold" and not subject.may_hold):
            code = "gpu.cert_revoked" if answer.status == "revoked" else "gpu.cert_on_hold"
            raise Refused(code, f"{subject.certificate.common_name}, serial {subject.certificate.serial:x}")
        until = answer.next_update
        if until is None or not _is_current(answer.this_update, until, asked.at):
            found.gaps["gpu.ocsp_stale"] = f"from {date(answer.this_update)} until {_date(until)}"
        elif answer.status == "unknown":
            found.gaps["gpu.revocation_unknown"] = "the responder does not know it"
        else:
            source = "OCSP answer" if answer.status == "good" else "OCSP answer (on hold, tolerated),"
            found.good.append((source, answer.this_update, until))


def _ask_crls(subject: Subject, asked: _Asked, found: _Found) -> None:
    for crl in asked.held.crls:
        if crl.issuer != subject.issuer.subject:
            continue
        _verify_crl(crl.der, subject.issuer.der)
        if subject.certificate.serial in crl.revoked:
            raise Refused("gpu.cert_revoked", f"{subject.certificate.common_name}, in the issuer's CRL")
        until = crl.next_update
        if until is None or not _is_current(crl.this_update, until, asked.at):
            found.gaps["gpu.crl_stale"] = f"from {date(crl.this_update)} until {_date(until)}"
        else:
            found.good.append(("CRL", crl.this_update, until))


def _is_current(since: float, until: float, at: float) -> bool:
    """thisUpdate <= time < nextUpdate, clocks differing by little (RFC 6960 3.2 points 5 and 6)."""
    return since - CLOCK_TOLERANCE <= at < until + CLOCK_TOLERANCE


def _date(seconds: float | None) -> str:
    return "none stated" if seconds is None else date(seconds)


@lru_cache(maxsize=CACHED_CRLS)
def _verify_crl(crl_der: bytes, issuer_der: bytes) -> bytes:
    """The CRL, which an issuer that may sign CRLs has signed. Raises `Refused`."""
    crl, issuer = read_crl(crl_der), read_certificate(issuer_der)
    try:
        if not stated(issuer_der).usage & _CRL_SIGN:
            raise Refused("crl", f"{issuer.common_name} may not sign CRLs")
        verify_signed(crl, issuer)
    except Refused as error:
        raise Refused("gpu.crl_signature_invalid", error.text) from None
    return crl_der
