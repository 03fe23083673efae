"""Do the offered event logs explain the quoted RTMRs (Intel TDX module: RTMR extend; TCG PC Client PFP).

A log is believed for a register only when its replay gives the quoted value. Firmware's CCEL does not
hold what a running guest extends, so RTMR3 (and IMA in RTMR2) need a log of their own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from attestation.result import Check, failed, not_evaluated, passed
from attestation.tdx.body import TdReport
from attestation.tdx.log.ccel import is_ccel, malformed, read_ccel
from attestation.tdx.log.events import REGISTER_BYTES, REGISTERS, RUNTIME_EVENT, Event
from attestation.tdx.log.runtime import read_runtime
from schemas.canonical import Json
from schemas.errors import Refused

MAX_LOGS: Final = 4  # firmware's, the guest's own, and room
MAX_SHOWN: Final = 64  # run-time events that a result lists
_CLAUSE: Final = "TCG PC Client PFP 10.2; Intel TDX module: RTMR"

Status = Literal["match", "mismatch", "unproven", "zero"]


@dataclass(frozen=True, slots=True)
class Register:
    """What the logs say about one RTMR."""

    status: Status
    events: tuple[Event, ...] = ()
    """Of the log that speaks for it."""

    @property
    def contradicted(self) -> tuple[Event, ...]:
        """Events whose text is not what was measured."""
        return tuple(each for each in self.events if each.binding == "contradicted")


@dataclass(frozen=True, slots=True)
class Replay:
    """The outcome for all four registers. `registers` is empty where no log was offered."""

    checks: tuple[Check, ...]
    registers: dict[str, Register]


def check_logs(report: TdReport, logs: Sequence[bytes], demanded: frozenset[str] | None) -> Replay:
    """Replay the logs against the quoted registers.

    demanded: registers that must be explained. None = those that the offered logs speak of in full.
    """
    if not logs:
        return Replay(tuple(_missing(name) for name in sorted(demanded or ())), {})
    try:
        read = [read_log(each) for each in logs[:MAX_LOGS]]
        if len(logs) > MAX_LOGS:
            raise malformed(f"more than {MAX_LOGS} logs")
    except Refused as error:
        return Replay((failed("tdx.event_log.format", error.code, error.text, "a log", _CLAUSE),), {})
    found = {
        name: _register(quoted, [tuple(e for e in log if e.register == index) for log in read])
        for index, (name, quoted) in enumerate(zip(REGISTERS, report.rtmrs, strict=True))
    }
    return Replay(tuple(_check(name, each, demanded) for name, each in found.items()), found)


def read_log(data: bytes) -> tuple[Event, ...]:
    """A log in either form. Raises `Refused` (`tdx.event_log_malformed`)."""
    return read_ccel(data) if is_ccel(data) else read_runtime(data)


def replay(digests: Sequence[bytes]) -> bytes:
    """RTMR = SHA-384(RTMR ‖ digest), from zeros."""
    value = bytes(REGISTER_BYTES)
    for digest in digests:
        value = hashlib.sha384(value + digest).digest()
    return value


def _register(quoted: bytes, logs: Sequence[tuple[Event, ...]]) -> Register:
    """One log must explain a register alone: pieces of several never add up."""
    speaking = [events for events in logs if events]
    if not speaking:
        return Register("unproven" if any(quoted) else "zero")
    wrong: Register | None = None
    for events in speaking:
        digests = [event.digest for event in events if event.digest is not None]
        if len(digests) != len(events):
            continue
        if replay(digests) == quoted:
            return Register("match", events)
        wrong = wrong or Register("mismatch", events)
    return wrong or Register("unproven", speaking[0])


def _missing(name: str) -> Check:
    return failed(f"tdx.event_log.{name}", "tdx.event_log_missing", "no log was offered", "a log", _CLAUSE)


def _check(name: str, register: Register, demanded: frozenset[str] | None) -> Check:
    title, wanted = f"tdx.event_log.{name}", "a log whose replay gives the quoted value"
    judged = name in demanded if demanded is not None else register.status == "mismatch"
    seen = _seen(register)
    contradicted = register.status == "match" and register.contradicted
    if contradicted:
        code, seen = "tdx.event_digest_mismatch", f"{len(contradicted)} events are not what was measured"
        judged = judged or demanded is None
    elif register.status in ("match", "zero"):
        return passed(title, seen, wanted, _CLAUSE)
    elif register.status == "unproven":
        code = "tdx.event_log_missing"
        if not judged:
            return not_evaluated(title, seen, _CLAUSE)
    else:
        code = "tdx.event_log_rtmr_mismatch"
    return Check(title, "fail", seen, wanted, _CLAUSE, code, "contraindicated" if judged else "shown")


def _seen(register: Register) -> str:
    match register.status:
        case "zero":
            return "never extended"
        case "unproven":
            return "events without digests" if register.events else "no log speaks of it"
    bound = sum(each.binding == "bound" for each in register.events)
    return f"{register.status}: {len(register.events)} events, {bound} with bound data"


def state_logs(found: Replay) -> dict[str, Json] | None:
    """Each register's standing, and the run-time events that are proven; None without a log."""
    if not found.registers:
        return None
    proven = [e for each in found.registers.values() if each.status == "match" for e in each.events]
    runtime = [e for e in proven if e.kind == RUNTIME_EVENT and e.binding == "bound"]
    stated: dict[str, Json] = {
        name: {
            "status": each.status,
            "events": len(each.events),
            "bound": sum(e.binding == "bound" for e in each.events),
            "digest_only": sum(e.binding == "digest only" for e in each.events),
        }
        for name, each in found.registers.items()
    }
    listed: list[Json] = [
        {"register": REGISTERS[e.register], "event": e.name, "payload": e.data.hex()}
        for e in runtime[:MAX_SHOWN]
    ]
    return {**stated, "runtime_events": listed}
