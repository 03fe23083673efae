"""What TCB info and QE identity say, read strictly from bytes that were verified (PCS API v4)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeVar, cast

from attestation.tdx.origin.pck import COMPONENTS
from schemas.canonical import Json, read_json
from schemas.errors import Refused, Unreadable
from schemas.primitives import parse_time

MAX_JSON_BYTES: Final = 1024 * 1024  # genuine documents have under 32 KiB
MAX_LEVELS: Final = 256  # genuine documents have under 30
MAX_ADVISORIES: Final = 256
CACHED_READINGS: Final = 128
REMEMBERED_BYTES: Final = 64 * 1024  # per entry: whoever offers a document decides its size

STATUSES: Final = (
    "UpToDate",
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
    "Revoked",
)
"""Statuses that a document may state; relaunch statuses follow from two evaluations (tcb/levels.py)."""

Object = dict[str, Json]
_T = TypeVar("_T")
_ADVISORY: Final = re.compile(r"[\x21-\x7e]{1,64}")


@dataclass(frozen=True, slots=True)
class Level:
    """One TCB level. `isvsvn` where one number decides; components where sixteen do."""

    status: str
    date: str
    advisories: tuple[str, ...]
    isvsvn: int = 0
    sgx: tuple[int, ...] = ()
    tdx: tuple[int, ...] = ()
    pcesvn: int = 0


@dataclass(frozen=True, slots=True)
class SeamIdentity:
    """What a TDX module must be: of `tdxModule`, or of one entry of `tdxModuleIdentities`."""

    id: str
    mrsigner: bytes
    attributes: bytes
    mask: bytes
    levels: tuple[Level, ...]


@dataclass(frozen=True, slots=True, eq=False)
class TcbInfo:
    id: str
    version: int
    issued: float
    next_update: float
    """POSIX seconds."""
    evaluation: int
    fmspc: bytes
    pceid: bytes
    module: SeamIdentity | None
    modules: tuple[SeamIdentity, ...]
    levels: tuple[Level, ...]


@dataclass(frozen=True, slots=True, eq=False)
class QeIdentity:
    id: str
    version: int
    issued: float
    next_update: float
    evaluation: int
    miscselect: int
    miscselect_mask: int
    attributes: bytes
    attributes_mask: bytes
    mrsigner: bytes
    isvprodid: int
    levels: tuple[Level, ...]


def read_tcb_info(body: bytes) -> TcbInfo:
    """Read TCB info of version 3, or 2 for SGX. Raises `Refused` (`tdx.collateral_malformed`)."""
    return _tcb_info(body) if len(body) <= REMEMBERED_BYTES else _tcb_info.__wrapped__(body)


def read_qe_identity(body: bytes) -> QeIdentity:
    """Read a QE identity of version 2. Raises `Refused` (`tdx.collateral_malformed`)."""
    return _qe_identity(body) if len(body) <= REMEMBERED_BYTES else _qe_identity.__wrapped__(body)


@lru_cache(maxsize=CACHED_READINGS)
def _tcb_info(body: bytes) -> TcbInfo:
    stated = _read(body)
    version = _number(stated, "version", 3)
    if version not in (2, 3):
        raise _malformed(f"TCB info of version {version}")
    name = _text(stated, "id") if version == 3 else "SGX"  # version 2 has no id and is SGX's
    if name not in ("SGX", "TDX") or (version == 2 and "id" in stated):
        raise _malformed(f"id {name}")
    if _number(stated, "tcbType", 255) != 0:
        raise _malformed("an unknown tcbType")
    of_tdx = name == "TDX"
    levels = [_platform_level(each, version, of_tdx) for each in _objects(stated, "tcbLevels")]
    modules = _objects(stated, "tdxModuleIdentities") if of_tdx and "tdxModuleIdentities" in stated else []
    return TcbInfo(
        id=name,
        version=version,
        issued=_time(stated, "issueDate"),
        next_update=_time(stated, "nextUpdate"),
        evaluation=_number(stated, "tcbEvaluationDataNumber", 2**31),
        fmspc=_hex(stated, "fmspc", 6),
        pceid=_hex(stated, "pceId", 2),
        module=_seam(_object(stated, "tdxModule"), "tdxModule", ()) if of_tdx else None,
        modules=tuple(_module(each) for each in modules),
        levels=tuple(levels),
    )


@lru_cache(maxsize=CACHED_READINGS)
def _qe_identity(body: bytes) -> QeIdentity:
    stated = _read(body)
    version = _number(stated, "version", 255)
    if version != 2:
        raise _malformed(f"QE identity of version {version}")
    return QeIdentity(
        id=_text(stated, "id"),
        version=version,
        issued=_time(stated, "issueDate"),
        next_update=_time(stated, "nextUpdate"),
        evaluation=_number(stated, "tcbEvaluationDataNumber", 2**31),
        miscselect=int.from_bytes(_hex(stated, "miscselect", 4)),  # big-endian text of the number
        miscselect_mask=int.from_bytes(_hex(stated, "miscselectMask", 4)),
        attributes=_hex(stated, "attributes", 16),
        attributes_mask=_hex(stated, "attributesMask", 16),
        mrsigner=_hex(stated, "mrsigner", 32),
        isvprodid=_number(stated, "isvprodid", 65535),
        levels=tuple(_svn_level(each) for each in _objects(stated, "tcbLevels")),
    )


def _read(body: bytes) -> Object:
    try:
        stated = read_json(body, limit=MAX_JSON_BYTES)
    except Unreadable as error:
        raise _malformed(error.text) from None
    if not isinstance(stated, dict):
        raise _malformed("not an object")
    return stated


def _platform_level(stated: Object, version: int, of_tdx: bool) -> Level:
    tcb = _object(stated, "tcb")
    return Level(
        *_standing(stated),
        sgx=_components(tcb, "sgxtcbcomponents") if version == 3 else _numbered_components(tcb),
        tdx=_components(tcb, "tdxtcbcomponents") if of_tdx else (),
        pcesvn=_number(tcb, "pcesvn", 65535),
    )


def _components(tcb: Object, name: str) -> tuple[int, ...]:
    """Exactly sixteen: comparing a shorter list would pass over what is missing."""
    listed = _objects(tcb, name)
    if len(listed) != COMPONENTS:
        raise _malformed(f"{len(listed)} {name}, not {COMPONENTS}")
    svns = [each.get("svn") for each in listed]
    if set(map(type, svns)) != {int} or not 0 <= min(svns) <= max(svns) <= 255:  # type: ignore[type-var, operator]
        raise _malformed(f"{name} hold an svn that is no number of 0..255")
    return tuple(cast(list[int], svns))


def _numbered_components(tcb: Object) -> tuple[int, ...]:
    return tuple(_number(tcb, f"sgxtcbcomp{index:02}svn", 255) for index in range(1, COMPONENTS + 1))


def _svn_level(stated: Object) -> Level:
    return Level(*_standing(stated), isvsvn=_number(_object(stated, "tcb"), "isvsvn", 65535))


def _standing(stated: Object) -> tuple[str, str, tuple[str, ...]]:
    status, date = _text(stated, "tcbStatus"), _text(stated, "tcbDate")
    if status not in STATUSES:
        raise _malformed(f"an unknown status {status[:64]}")
    _time(stated, "tcbDate")
    advisories = stated.get("advisoryIDs", [])
    if not isinstance(advisories, list) or len(advisories) > MAX_ADVISORIES:
        raise _malformed("advisoryIDs are no list")
    listed = [each for each in advisories if isinstance(each, str) and _ADVISORY.fullmatch(each)]
    if len(listed) != len(advisories):
        raise _malformed("an advisory that is no name")
    return status, date, tuple(listed)


def _module(stated: Object) -> SeamIdentity:
    levels = tuple(_svn_level(each) for each in _objects(stated, "tcbLevels"))
    return _seam(stated, _text(stated, "id").upper(), levels)


def _seam(stated: Object, name: str, levels: tuple[Level, ...]) -> SeamIdentity:
    return SeamIdentity(
        name,
        _hex(stated, "mrsigner", 48),
        _hex(stated, "attributes", 8),
        _hex(stated, "attributesMask", 8),
        levels,
    )


def _text(stated: Object, key: str) -> str:
    value = stated.get(key)
    if not isinstance(value, str):
        raise _malformed(f"{key} is no text")
    return value


def _number(stated: Object, key: str, most: int) -> int:
    value = stated.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise _malformed(f"{key} is no number of 0..{most}")
    return value


def _hex(stated: Object, key: str, size: int) -> bytes:
    value = _text(stated, key)
    if not re.fullmatch(rf"[0-9a-fA-F]{{{2 * size}}}", value):
        raise _malformed(f"{key} is not {size} bytes in hex")
    return bytes.fromhex(value)


def _time(stated: Object, key: str) -> float:
    try:
        return parse_time(_text(stated, key)).timestamp()
    except Unreadable as error:
        raise _malformed(f"{key}: {error.text}") from None


def _object(stated: Object, key: str) -> Object:
    value = stated.get(key)
    if not isinstance(value, dict):
        raise _malformed(f"{key} is no object")
    return value


def _objects(stated: Object, key: str) -> list[Object]:
    value = stated.get(key)
    if not isinstance(value, list) or len(value) > MAX_LEVELS:
        raise _malformed(f"{key} is no list, or too long")
    objects = [each for each in value if isinstance(each, dict)]
    if len(objects) != len(value):
        raise _malformed(f"{key} holds something other than objects")
    return objects


def _malformed(why: str) -> Refused:
    return Refused("tdx.collateral_malformed", why)
