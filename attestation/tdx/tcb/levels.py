"""Which TCB level a platform, its TDX module and its quoting enclave stand at (PCS API v4: TCB evaluation).

Levels are tried in the document's order and the first that fits decides. No fitting level is not "out
of date": there is no status at all. Nothing here knows what the relying party accepts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from attestation.tdx.body import SgxReport, TdReport
from attestation.tdx.collateral.stated import Level, QeIdentity, SeamIdentity, TcbInfo
from attestation.tdx.origin.pck import PckClaims
from schemas.errors import Refused

RELAUNCH_STATUSES: Final = ("TDRelaunchAdvised", "TDRelaunchAdvisedConfigurationNeeded")
_NEVER_OUT: Final = ("UpToDate", "SWHardeningNeeded")
_CONFIGURATION: Final = ("ConfigurationNeeded", "ConfigurationAndSWHardeningNeeded")
_OUT: Final = ("OutOfDate", "OutOfDateConfigurationNeeded")


@dataclass(frozen=True, slots=True)
class Standing:
    """One evaluation: the levels that matched and what they come to."""

    status: str
    platform: Level
    module: Level | None
    qe: Level
    date: str
    """The earliest TCB date of the parts (RFC 3339)."""
    advisories: tuple[str, ...]


def platform_level(claims: PckClaims, tcb_svn: bytes | None, info: TcbInfo) -> Level:
    """The first level that the platform reaches. Raises `Refused` where none does.

    tcb_svn: a TD's TEE_TCB_SVN; None for SGX. Its first two components are the module's own where
    the module's version is above 0, and are compared there.
    """
    for level in info.levels:
        if _reaches(claims, tcb_svn, level):
            return level
    raise Refused("tdx.tcb_level_not_found", _shortfall(claims, tcb_svn, info))


def _reaches(claims: PckClaims, tcb_svn: bytes | None, level: Level) -> bool:
    if claims.pcesvn < level.pcesvn or _short(claims.components, level.sgx):
        return False
    return tcb_svn is None or not _short(tcb_svn, level.tdx, _first(tcb_svn))


def _first(tcb_svn: bytes) -> int:
    return 0 if tcb_svn[1] == 0 else 2


def _short(seen: Sequence[int], wanted: Sequence[int], first: int = 0) -> list[int]:
    """Indices, from `first` on, that fall short."""
    return [i for i in range(first, len(wanted)) if seen[i] < wanted[i]]


def _shortfall(claims: PckClaims, tcb_svn: bytes | None, info: TcbInfo) -> str:
    """What the lowest level still asks for, and by how much."""
    if not info.levels:
        return "the document has no levels"
    return "below every level; the last one needs " + shortfall(claims, tcb_svn, info.levels[-1])


def shortfall(claims: PckClaims, tcb_svn: bytes | None, level: Level) -> str:
    """Every SVN that falls short of a level, with both values."""
    lacks = [
        f"SGX component {i + 1} {claims.components[i]}<{level.sgx[i]}"
        for i in _short(claims.components, level.sgx)
    ]
    if claims.pcesvn < level.pcesvn:
        lacks.append(f"PCESVN {claims.pcesvn}<{level.pcesvn}")
    if tcb_svn is not None:
        lacks += [
            f"TDX component {i + 1} {tcb_svn[i]}<{level.tdx[i]}"
            for i in _short(tcb_svn, level.tdx, _first(tcb_svn))
        ]
    return ", ".join(lacks) or "nothing"


def module_identity(tcb_svn: bytes, info: TcbInfo) -> SeamIdentity:
    """The identity of the module version that TEE_TCB_SVN[1] names. Raises `Refused`."""
    version = tcb_svn[1]
    if version == 0:
        if info.module is None:
            raise Refused("tdx.tdx_module_not_supported", "the document describes no module")
        return info.module
    wanted = f"TDX_{version:02X}"
    for identity in info.modules:
        if identity.id == wanted:
            return identity
    raise Refused("tdx.tdx_module_not_supported", f"no identity {wanted}")


def module_level(tcb_svn: bytes, info: TcbInfo) -> Level | None:
    """The module's level; None for module version 0, which the platform's level covers. Raises `Refused`."""
    identity = module_identity(tcb_svn, info)
    if tcb_svn[1] == 0:
        return None
    return _svn_level(identity.levels, tcb_svn[0], "tdx.tdx_module_not_supported", identity.id)


def hold_module(report: TdReport, tcb_svn: bytes, info: TcbInfo) -> SeamIdentity:
    """The identity that MRSIGNERSEAM and SEAMATTRIBUTES fit. Raises `Refused`."""
    identity = module_identity(tcb_svn, info)
    if report.mrsignerseam != identity.mrsigner:
        raise Refused("tdx.tdx_module_mismatch", f"MRSIGNERSEAM {report.mrsignerseam.hex()}")
    if any(report.seam_attributes) or not _fits(report.seam_attributes, identity.mask, identity.attributes):
        raise Refused("tdx.tdx_module_mismatch", f"SEAMATTRIBUTES {report.seam_attributes.hex()}")
    return identity


def hold_qe(qe: SgxReport, identity: QeIdentity) -> SgxReport:
    """The quoting enclave, which is the one that the identity describes. Raises `Refused`."""
    if qe.debug:  # stated apart: an identity's mask could leave the bit free
        raise Refused("tdx.qe_debug", "the quoting enclave runs in debug mode")
    seen = {
        "MRSIGNER": qe.mrsigner == identity.mrsigner,
        "ISVPRODID": qe.isvprodid == identity.isvprodid,
        "MISCSELECT": qe.miscselect & identity.miscselect_mask == identity.miscselect,
        "ATTRIBUTES": _fits(qe.attributes, identity.attributes_mask, identity.attributes),
    }
    wrong = [name for name, holds in seen.items() if not holds]
    if wrong:
        raise Refused("tdx.qe_identity_mismatch", f"{', '.join(wrong)} differ from identity {identity.id}")
    return qe


def qe_level(qe: SgxReport, identity: QeIdentity) -> Level:
    """Raises `Refused` when no level is low enough."""
    return _svn_level(identity.levels, qe.isvsvn, "tdx.qe_isvsvn_not_supported", identity.id)


def _svn_level(levels: Iterable[Level], svn: int, code: str, what: str) -> Level:
    for level in levels:
        if svn >= level.isvsvn:
            return level
    raise Refused(code, f"SVN {svn} is below every level of {what}")


def _fits(value: bytes, mask: bytes, wanted: bytes) -> bool:
    return int.from_bytes(value) & int.from_bytes(mask) == int.from_bytes(wanted)


def merge(platform: str, parts: Iterable[str]) -> str:
    """The status of the whole from the platform's and its parts' (Intel QVL: status converging).

    Not the worst of all: an out-of-date part must not hide that configuration is needed.
    """
    found = set(parts)
    if "Revoked" in found or platform == "Revoked":
        return "Revoked"
    if "OutOfDate" in found:
        if platform in _NEVER_OUT:
            return "OutOfDate"
        if platform in _CONFIGURATION:
            return "OutOfDateConfigurationNeeded"
    return platform


def evaluate(claims: PckClaims, tcb_svn: bytes | None, info: TcbInfo, qe: Level) -> Standing:
    """The standing of platform, module and QE together. Raises `Refused`."""
    platform = platform_level(claims, tcb_svn, info)
    module = None if tcb_svn is None else module_level(tcb_svn, info)
    parts = [part for part in (module, qe) if part is not None]
    levels = [platform, *parts]
    return Standing(
        status=merge(platform.status, [part.status for part in parts]),
        platform=platform,
        module=module,
        qe=qe,
        date=min(level.date for level in levels),
        advisories=tuple(sorted({each for level in levels for each in level.advisories})),
    )


def relaunched(launch: str, current: str) -> str:
    """The status of a TD 1.5 guest from the TCB at its launch and the TCB now (Intel QVL: relaunch)."""
    if launch not in _OUT or current not in (*_NEVER_OUT, *_CONFIGURATION):
        return launch
    configuration = launch == "OutOfDateConfigurationNeeded" or current in _CONFIGURATION
    return RELAUNCH_STATUSES[configuration]
