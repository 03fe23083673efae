"""Whose cosignatures are enough (C2SP tlog-policy), and since when: pure.

A quorum is counted by operator: several witnesses of one operator have one voice, and a log's own
operator has none (receipts.md 8.5, 11). The quorum time is the earliest moment at which the valid
cosignatures up to then satisfy the policy; a single earlier one proves nothing, and a single later one
accuses nobody.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from receipts.cosignature import CosignerKey
from receipts.counted import counted
from receipts.note import Note, NoteKey
from schemas.errors import Refused, Undecided, Unreadable

MAX_POLICY_BYTES: Final = 256 * 1024  # a few hundred witnesses with ML-DSA keys of 1.8 kB
MAX_DEFINED: Final = 256  # logs, witnesses and groups; tlog-policy asks for at least 32 of each
MAX_AHEAD_S: Final = 300  # seconds that a cosignature may lie in the reader's future (receipts.md 8.3)
NONE: Final = "none"
_OCTETS: Final = re.compile(rb"[\t\n\x20-\x7e\x80-\xff]*")
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,3}")
_FIELDS: Final = {"log": (1, 2), "witness": (2, 3), "group": (3, MAX_DEFINED), "quorum": (1, 1)}


@dataclass(frozen=True, slots=True)
class Group:
    """Satisfied when `needed` of its members are."""

    needed: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Policy:
    """Which logs and witnesses count, and the one quorum that all these logs need."""

    logs: tuple[NoteKey, ...]
    witnesses: Mapping[str, CosignerKey]
    """Name within the policy → verifier key."""
    groups: Mapping[str, Group]
    quorum: str
    """Name of a witness or group; `none` when no cosignature is demanded."""

    def satisfied(self, names: Iterable[str]) -> bool:
        """Whether these witnesses together meet the quorum."""
        return self.quorum == NONE or self._met(self.quorum, frozenset(names))

    def _met(self, name: str, present: frozenset[str]) -> bool:
        group = self.groups.get(name)
        if group is None:
            return name in present
        return sum(self._met(member, present) for member in group.members) >= group.needed

    def time(self, times: Mapping[str, int]) -> int:
        """Quorum time, POSIX seconds: the smallest t by which enough had signed.

        `times`: witness name → its valid cosignature's time. Raises `Undecided` (`quorum.not_met`).
        """
        if self.quorum == NONE:
            raise Undecided("quorum.none", "the policy demands no witness")
        for limit in sorted(set(times.values())):
            if self.satisfied(name for name, time in times.items() if time <= limit):
                return limit
        signed = counted(len(times), "valid cosignature does", "valid cosignatures do")
        raise Undecided("quorum.not_met", f"{signed} not meet the quorum")

    def until(self, times: Mapping[str, int]) -> int:
        """The moment up to which a quorum saw one tree as the largest: the mirror of `time`, POSIX seconds.

        `time` is the smallest t by which enough had signed, so that no single early witness can backdate.
        Here lateness accuses, and the doubt runs the other way: the largest t such that everyone of a
        quorum states t or later, so that no single late witness can accuse. Raises as `time`.
        """
        return -self.time({name: -time for name, time in times.items()})


@dataclass(frozen=True, slots=True)
class Cosigned:
    """What the known witnesses said of one checkpoint."""

    times: Mapping[str, int]
    """Witness name → time of its valid cosignature (its earliest, where it gave several)."""
    latest: Mapping[str, int]
    """The same with each witness's latest, for what must not have happened until then."""


def cosigned(signed: Note, witnesses: Mapping[str, CosignerKey], *, at: datetime) -> Cosigned:
    """Check every cosignature line by a known witness; lines by others count for nothing.

    Raises `Refused` when a known witness's line does not hold (signed-note: that spoils the note), or
    states a time that has not come (`quorum.future`).
    """
    by_line = {(key.name, key.key_id): (name, key) for name, key in witnesses.items()}
    times: dict[str, int] = {}
    latest: dict[str, int] = {}
    for line in signed.signatures:
        if (known := by_line.get((line.name, line.key_id))) is None:
            continue
        name, key = known
        time = key.verify(line, signed.text)
        if time > at.timestamp() + MAX_AHEAD_S:
            raise Refused("quorum.future", f"{key.name} states a time that has not come")
        times[name] = min(time, times.get(name, time))
        latest[name] = max(time, latest.get(name, time))
    return Cosigned(times, latest)


def of_operators(operators: Mapping[str, Sequence[CosignerKey]], needed: int) -> Policy:
    """The policy "any `needed` of these operators, each by any of its witnesses".

    Raises `Refused` (`quorum.too_few`) when there are not that many operators.
    """
    if not 1 <= needed <= len(operators):
        text = f"{counted(needed, 'operator')} demanded, {len(operators)} can witness"
        raise Refused("quorum.too_few", text)
    witnesses: dict[str, CosignerKey] = {}
    groups: dict[str, Group] = {}
    for operator in sorted(operators):
        names = [f"{operator}#{number}" for number in range(len(operators[operator]))]
        witnesses |= dict(zip(names, operators[operator], strict=True))
        groups[operator] = Group(1, tuple(names))
    groups["quorum"] = Group(needed, tuple(sorted(operators)))
    return Policy((), witnesses, groups, "quorum")


def write(policy: Policy) -> bytes:
    """The policy as tlog-policy text, for any tool that reads it."""
    lines = [f"log {key.vkey}" for key in policy.logs]
    lines += [f"witness {name} {key.vkey}" for name, key in policy.witnesses.items()]
    lines += [f"group {name} {each.needed} {' '.join(each.members)}" for name, each in policy.groups.items()]
    return "".join(f"{line}\n" for line in [*lines, f"quorum {policy.quorum}"]).encode()


@dataclass(slots=True)
class _Reading:
    """A policy as far as its lines were read."""

    logs: dict[bytes, NoteKey] = field(default_factory=dict)
    witnesses: dict[str, CosignerKey] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)
    """Names that are members of some group already."""
    quorum: str | None = None


def read(data: bytes) -> Policy:
    """Parse tlog-policy text. Raises `Unreadable`, or what a key's registration raises."""
    if len(data) > MAX_POLICY_BYTES:
        raise Unreadable("quorum.too_long", f"{len(data)} bytes, at most {MAX_POLICY_BYTES}")
    if not _OCTETS.fullmatch(data):
        raise _bad("an octet that tlog-policy does not allow")
    reading = _Reading()
    # Names are opaque bytes: Latin-1 keeps each octet apart without judging any.
    for line in data.decode("latin-1").split("\n"):
        words = [word for word in re.split(r"[ \t]+", line) if word]
        if words and not words[0].startswith("#"):
            _directive(reading, words[0], words[1:])
    if reading.quorum is None:
        raise _bad("no quorum line")
    return Policy(tuple(reading.logs.values()), reading.witnesses, reading.groups, reading.quorum)


def _directive(reading: _Reading, name: str, words: list[str]) -> None:
    fewest, most = _FIELDS.get(name, (1, 0))
    if not fewest <= len(words) <= most:
        raise _bad(f"a line that is no directive: {name!r:.40}")
    match name:
        case "log":
            _log(reading, words[0])
        case "witness":
            _witness(reading, words[0], words[1])
        case "group":
            _group(reading, words[0], words[1], words[2:])
        case _:
            _quorum(reading, words[0])


def _log(reading: _Reading, vkey: str) -> None:
    key = NoteKey.read(_utf8(vkey))
    if key.raw in reading.logs or len(reading.logs) == MAX_DEFINED:
        raise _bad("one log key twice, or too many logs")
    reading.logs[key.raw] = key


def _witness(reading: _Reading, name: str, vkey: str) -> None:
    _fresh(reading, name)
    key = CosignerKey.read(_utf8(vkey))
    if any(known.raw == key.raw for known in reading.witnesses.values()):
        raise _bad("one witness key twice: its voice would count double")
    reading.witnesses[name] = key


def _group(reading: _Reading, name: str, count: str, members: list[str]) -> None:
    _fresh(reading, name)
    for member in members:
        if member not in reading.witnesses and member not in reading.groups:
            raise _bad(f"group {name!r:.40} names a member that is not defined above it")
        if member in reading.taken:
            raise _bad(f"{member!r:.40} is a member of more than one group, or twice of one")
        reading.taken.add(member)
    needed = {"any": 1, "all": len(members)}.get(count) or (int(count) if _NUMBER.fullmatch(count) else 0)
    if not 1 <= needed <= len(members):
        raise _bad(f"group {name!r:.40} needs {count!r:.10} of {len(members)}")
    reading.groups[name] = Group(needed, tuple(members))


def _quorum(reading: _Reading, name: str) -> None:
    if reading.quorum is not None:
        raise _bad("more than one quorum line")
    if name not in (NONE, *reading.witnesses, *reading.groups):
        raise _bad("the quorum is not defined above its line")
    reading.quorum = name


def _fresh(reading: _Reading, name: str) -> str:
    """A new name in the one namespace of witnesses and groups."""
    if name == NONE or name in reading.witnesses or name in reading.groups:
        raise _bad(f"the name {name!r:.40} is taken")
    if len(reading.witnesses) + len(reading.groups) == 2 * MAX_DEFINED:
        raise _bad("too many witnesses and groups")
    return name


def _utf8(vkey: str) -> str:
    """The key text behind its octets."""
    try:
        return vkey.encode("latin-1").decode("utf-8")
    except UnicodeDecodeError:
        raise _bad("a key that is not UTF-8") from None


def _bad(text: str) -> Unreadable:
    return Unreadable("quorum.policy", text)


def single_operator(policy: Policy, operator_of: Mapping[str, str]) -> str | None:
    """An operator that could satisfy the policy alone; None when there is none.

    `operator_of`: witness name → operator. A witness that nobody claims is an operator of its own.
    """
    if policy.quorum == NONE:
        return None
    held: dict[str, set[str]] = {}
    for name in policy.witnesses:
        held.setdefault(operator_of.get(name, name), set()).add(name)
    return next((operator for operator, names in held.items() if policy.satisfied(names)), None)
