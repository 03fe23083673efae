"""An attestation result for a person and for a script. Neither hides a check."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Final

from attestation.ear import as_ear
from attestation.result import AttestationResult, Check
from schemas.canonical import Json
from schemas.primitives import format_time

_MARKS: Final = {"pass": "pass", "fail": "FAIL", "not_evaluated": "  - "}
_MEANING: Final = {
    "affirming": "the evidence holds",
    "warning": "the evidence holds, with a reservation",
    "contraindicated": "the evidence does not hold",
    "none": "this could not be decided: something needed is missing or stale",
}
MAX_SHOWN: Final = 100  # characters of a value in the text form; JSON has it whole


def as_json(result: AttestationResult) -> dict[str, Json]:
    """The whole result as one JSON object, with the EAR claims set inside."""
    return {
        "tee": result.tee,
        "verdict": result.verdict,
        "reason": result.reason,
        "exit": result.exit_code,
        "at": format_time(result.at),
        "platform": result.platform,
        "simulated": result.simulated,
        "debug": result.debug,
        "identity": result.identity.hex(),
        "reference_values": "not demanded"
        if result.expectations_digest is None
        else result.expectations_digest.hex(),
        "waived": list(result.waived),
        "advisories": list(result.advisories),
        "valid_until": _moment(result.valid_until),
        "checks": [check.as_json() for check in result.checks],
        "evidence": result.stated(),
        "ear": as_ear(result),
    }


def json_text(result: AttestationResult) -> str:
    return json.dumps(as_json(result), ensure_ascii=False, indent=2)


def human_text(result: AttestationResult) -> str:
    """Verdict first, then every check, then what was left out on purpose."""
    lines = [f"{result.verdict}: {_MEANING[result.verdict]}"]
    if result.reason:
        lines.append(f"reason: {result.reason}")
    lines.append(f"{result.tee}, {result.platform}, judged at {format_time(result.at)}")
    if result.simulated:
        lines.append("SIMULATED: a made-up vendor's root, not hardware")
    if result.expectations_digest is None:
        lines.append("no reference values were demanded: what the evidence states is shown, not judged")
    lines.append("")
    lines += [_line(check) for check in result.checks]
    lines.append("")
    if result.waived:
        lines.append(f"waived: {', '.join(result.waived)}")
    if result.advisories:
        lines.append(f"advisories: {', '.join(result.advisories)}")
    if result.valid_until is not None:
        lines.append(f"valid until {_moment(result.valid_until)}")
    lines += stated_lines(result.stated())
    return "\n".join(lines)


def _line(check: Check) -> str:
    text = f"{_MARKS[check.status]}  {check.name:<28} {_short(check.seen)}"
    if check.status == "pass":
        return text
    wanted = f"; wanted {_short(check.wanted)}" if check.wanted else ""
    return f"{text}{wanted}{f' [{check.code}]' if check.code else ''}"


def _short(text: str) -> str:
    text = _printable(text)
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"


def _printable(text: str) -> str:
    """Names and JSON come from strangers: a terminal must not obey what they contain."""
    return "".join(each if each.isprintable() else f"\\u{ord(each):04x}" for each in text)


def stated_lines(stated: dict[str, Json], indent: str = "") -> list[str]:
    """What the evidence states, one line a field."""
    lines: list[str] = []
    for name, value in stated.items():
        if isinstance(value, dict):
            inside = ", ".join(f"{key} {_plain(each)}" for key, each in value.items())
            lines.append(f"{indent}{name}: {inside}")
        elif isinstance(value, list) and any(isinstance(each, str) for each in value):
            lines += [f"{indent}{name}:", *(f"{indent}  {_plain(each)}" for each in value)]
        else:
            lines.append(f"{indent}{name}: {_plain(value)}")
    return lines


def _plain(value: Json) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case dict():
            return "(" + ", ".join(f"{key} {_plain(each)}" for key, each in value.items()) + ")"
        case list():
            return "[" + ", ".join(map(_plain, value)) + "]"
    return _printable(str(value))


def _moment(seconds: float | None) -> str | None:
    return None if seconds is None else format_time(datetime.fromtimestamp(seconds, UTC))
