"""Time to update: how long a platform that fell behind is still let in, and when that ends.

Intel dates each TCB level. A platform fell behind on the date of the nearest level that would be
accepted and that it does not reach; grace runs from there, and never beyond the day that policy names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from attestation.tdx.collateral.stated import Level, QeIdentity, TcbInfo
from attestation.tdx.tcb.levels import RELAUNCH_STATUSES, Standing, module_identity
from attestation.toml import Table
from schemas.errors import ConfigurationError, Unreadable
from schemas.primitives import parse_time

MAX_DAYS: Final = 366  # Intel enforces a recovery within a year
_DAY: Final = 86_400.0  # seconds
AGED: Final = ("OutOfDate", "OutOfDateConfigurationNeeded", *RELAUNCH_STATUSES)
"""Statuses that come with age; what needs configuring does not go away by waiting."""


@dataclass(frozen=True, slots=True)
class Grace:
    """One status that is forgiven for a while."""

    status: str
    seconds: float
    """From the date at which the platform fell behind."""
    until: float
    """POSIX seconds: no grace after this, whatever the dates say."""


def read_grace(tables: Sequence[Table]) -> tuple[Grace, ...]:
    """`[[tdx.grace]]`. Raises `ConfigurationError`."""
    found = tuple(_grace(table) for table in tables)
    if len({each.status for each in found}) != len(found):
        raise tables[0].error("status", "is repeated", "each status once")
    return found


def _grace(table: Table) -> Grace:
    status = table.choice("status", AGED, "")
    days = table.integer("days", 1, MAX_DAYS)
    write = 'until = "2027-01-01T00:00:00Z"'
    try:
        until = parse_time(str(table.take("until", write=write))).timestamp()
    except Unreadable as error:
        raise table.error("until", error.text, write) from None
    table.finish()
    if days is None:
        raise ConfigurationError("expected.invalid", f"{table.source}: [{table.name}] days has no waiver")
    return Grace(status, days * _DAY, until)


def grace_end(
    status: str,
    launch: Standing,
    tcb_svn: bytes | None,
    info: TcbInfo,
    identity: QeIdentity,
    accepted: frozenset[str],
    granted: Sequence[Grace],
) -> float | None:
    """Until when this status is forgiven (POSIX seconds); None where nothing forgives it.

    tcb_svn: a TD's TEE_TCB_SVN at launch. The part that fell behind first decides.
    """
    grace = next((each for each in granted if each.status == status), None)
    if grace is None:
        return None
    parts = [(launch.platform, info.levels), (launch.qe, identity.levels)]
    if tcb_svn is not None and launch.module is not None:
        parts.append((launch.module, module_identity(tcb_svn, info).levels))
    behind = [_fell_behind(level, levels, accepted) for level, levels in parts if level.status in AGED]
    if not behind or None in behind:
        return None
    return min(min(each for each in behind if each is not None) + grace.seconds, grace.until)


def _fell_behind(level: Level, levels: Sequence[Level], accepted: frozenset[str]) -> float | None:
    """The date of the nearest higher level that is accepted; None where there is none."""
    higher = [each for each in levels[: levels.index(level)] if each.status in accepted]
    return parse_time(higher[-1].date).timestamp() if higher else None
