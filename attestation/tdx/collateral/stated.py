"""What TCB info and QE identity say, read strictly from bytes that were verified (PCS API v4)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

from msgspec.json import Decoder
from msgspec.structs import astuple

from attestation.tdx.collateral.exact import read_exact, shaped
from attestation.tdx.collateral.shapes import (
    Component,
    EnclaveLevel,
    NumberedLevel,
    PlatformLevel,
    TdxModule,
    TdxModuleIdentity,
    WrittenEvaluations,
    WrittenQeIdentity,
    WrittenTcbInfo,
    WrittenTcbInfo2,
)
from schemas.canonical import read_json
from schemas.errors import Refused, Unreadable
from schemas.primitives import parse_time

MAX_JSON_BYTES: Final = 1024 * 1024  # genuine documents have under 32 KiB
CACHED_READINGS: Final = 128
REMEMBERED_BYTES: Final = 64 * 1024  # per entry: whoever offers a document decides its size

_TCB_INFO: Final = Decoder(WrittenTcbInfo)
_QE_IDENTITY: Final = Decoder(WrittenQeIdentity)
_EVALUATIONS: Final = Decoder(WrittenEvaluations)
_ADVISORY: Final = re.compile(r"[\x21-\x7e]{1,64}")


class Level(NamedTuple):
    """One TCB level. `isvsvn` where one number decides; components where sixteen do."""

    status: str
    date: str
    advisories: tuple[str, ...]
    isvsvn: int = 0
    sgx: tuple[int, ...] = ()
    tdx: tuple[int, ...] = ()
    pcesvn: int = 0


class SeamIdentity(NamedTuple):
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


class Evaluation(NamedTuple):
    """One TCB evaluation data number."""

    number: int
    recovered: float
    """When the event was made public that raised the number (POSIX seconds)."""


@dataclass(frozen=True, slots=True, eq=False)
class Evaluations:
    id: str
    issued: float
    next_update: float
    numbers: tuple[Evaluation, ...]
    """The highest first."""


def read_tcb_info(body: bytes) -> TcbInfo:
    """Read TCB info of version 3, or 2 for SGX. Raises `Refused` (`tdx.collateral_malformed`)."""
    return _tcb_info(body) if len(body) <= REMEMBERED_BYTES else _tcb_info.__wrapped__(body)


def read_qe_identity(body: bytes) -> QeIdentity:
    """Read a QE identity of version 2. Raises `Refused` (`tdx.collateral_malformed`)."""
    return _qe_identity(body) if len(body) <= REMEMBERED_BYTES else _qe_identity.__wrapped__(body)


@lru_cache(maxsize=CACHED_READINGS)
def _tcb_info(body: bytes) -> TcbInfo:
    written = _written_tcb_info(body)
    of, levels, module, modules = _judged_by(written)
    _hold_standings(levels, *(each.levels for each in modules))
    return TcbInfo(
        id=of,
        version=written.version,
        issued=_time(written.issueDate),
        next_update=_time(written.nextUpdate),
        evaluation=written.tcbEvaluationDataNumber,
        fmspc=_hex(written.fmspc, 6),
        pceid=_hex(written.pceId, 2),
        module=module,
        modules=tuple(modules),
        levels=tuple(levels),
    )


@lru_cache(maxsize=CACHED_READINGS)
def _qe_identity(body: bytes) -> QeIdentity:
    _bound(body)
    written = read_exact(body, _QE_IDENTITY) or _shaped_identity(body)
    levels = [_enclave_level(each) for each in written.tcbLevels]
    _hold_standings(levels)
    return QeIdentity(
        id=written.id,
        version=written.version,
        issued=_time(written.issueDate),
        next_update=_time(written.nextUpdate),
        evaluation=written.tcbEvaluationDataNumber,
        miscselect=int.from_bytes(_hex(written.miscselect, 4)),  # big-endian text of the number
        miscselect_mask=int.from_bytes(_hex(written.miscselectMask, 4)),
        attributes=_hex(written.attributes, 16),
        attributes_mask=_hex(written.attributesMask, 16),
        mrsigner=_hex(written.mrsigner, 32),
        isvprodid=written.isvprodid,
        levels=tuple(levels),
    )


def _written_tcb_info(body: bytes) -> WrittenTcbInfo | WrittenTcbInfo2:
    _bound(body)
    exact = read_exact(body, _TCB_INFO)
    if exact is not None:
        return exact
    try:
        stated = read_json(body, limit=MAX_JSON_BYTES)
        if isinstance(stated, dict) and stated.get("version") == 2 and "id" not in stated:
            return shaped(stated, WrittenTcbInfo2)
        return shaped(stated, WrittenTcbInfo)
    except Unreadable as error:
        raise _malformed(error.text) from None


def read_evaluations(body: bytes) -> Evaluations:
    """Read Intel's list of evaluation numbers. Raises `Refused` (`tdx.collateral_malformed`)."""
    _bound(body)
    try:
        written = read_exact(body, _EVALUATIONS) or shaped(
            read_json(body, limit=MAX_JSON_BYTES), WrittenEvaluations
        )
    except Unreadable as error:
        raise _malformed(error.text) from None
    numbers = [
        Evaluation(each.tcbEvaluationDataNumber, _time(each.tcbRecoveryEventDate))
        for each in written.tcbEvalNumbers
    ]
    if len({each.number for each in numbers}) != len(numbers):
        raise _malformed("an evaluation number is listed twice")
    ordered = tuple(sorted(numbers, reverse=True))
    return Evaluations(written.id, _time(written.issueDate), _time(written.nextUpdate), ordered)


def _shaped_identity(body: bytes) -> WrittenQeIdentity:
    try:
        return shaped(read_json(body, limit=MAX_JSON_BYTES), WrittenQeIdentity)
    except Unreadable as error:
        raise _malformed(error.text) from None


def _bound(body: bytes) -> None:
    if len(body) > MAX_JSON_BYTES:
        raise _malformed(f"more than {MAX_JSON_BYTES} bytes")


def _judged_by(
    written: WrittenTcbInfo | WrittenTcbInfo2,
) -> tuple[str, list[Level], SeamIdentity | None, list[SeamIdentity]]:
    """Of which TEE the document is, and by which levels and modules it judges."""
    if isinstance(written, WrittenTcbInfo2):
        return "SGX", [_numbered_level(each) for each in written.tcbLevels], None, []
    levels = [_platform_level(each, written.id) for each in written.tcbLevels]
    if written.id == "SGX":
        return "SGX", levels, None, []
    if written.tdxModule is None:
        raise _malformed("TCB info of TDX without tdxModule")
    modules = [_module_identity(each) for each in written.tdxModuleIdentities]
    return "TDX", levels, _seam("tdxModule", written.tdxModule, ()), modules


def _platform_level(written: PlatformLevel, of: str) -> Level:
    tcb = written.tcb
    tdx = tcb.tdxtcbcomponents if of == "TDX" else ()
    if tdx is None:
        raise _malformed("a level of TDX without tdxtcbcomponents")
    return Level(
        written.tcbStatus, written.tcbDate, written.advisoryIDs, 0,
        _svns(tcb.sgxtcbcomponents), _svns(tdx), tcb.pcesvn,
    )  # fmt: skip


def _svns(components: tuple[Component, ...]) -> tuple[int, ...]:
    return tuple([each.svn for each in components])


def _numbered_level(written: NumberedLevel) -> Level:
    *sgx, pcesvn = astuple(written.tcb)
    return Level(written.tcbStatus, written.tcbDate, written.advisoryIDs, 0, tuple(sgx), (), pcesvn)


def _enclave_level(written: EnclaveLevel) -> Level:
    return Level(written.tcbStatus, written.tcbDate, written.advisoryIDs, written.tcb.isvsvn)


def _module_identity(written: TdxModuleIdentity) -> SeamIdentity:
    return _seam(written.id.upper(), written, tuple([_enclave_level(each) for each in written.tcbLevels]))


def _seam(name: str, written: TdxModule | TdxModuleIdentity, levels: tuple[Level, ...]) -> SeamIdentity:
    return SeamIdentity(
        name,
        _hex(written.mrsigner, 48),
        _hex(written.attributes, 8),
        _hex(written.attributesMask, 8),
        levels,
    )


def _hold_standings(*groups: Iterable[Level]) -> None:
    """Every date and advisory of the levels is one; most are the same, so each is looked at once."""
    dates: set[str] = set()
    advisories: set[str] = set()
    for levels in groups:
        for level in levels:
            dates.add(level.date)
            advisories.update(level.advisories)
    for date in dates:
        _time(date)
    if not all(map(_ADVISORY.fullmatch, advisories)):
        raise _malformed("an advisory that is no name")


def _hex(text: str, size: int) -> bytes:
    try:
        value = bytes.fromhex(text)
    except ValueError:
        value = b""
    if len(value) != size or len(text) != 2 * size:  # the library passes over blanks
        raise _malformed(f"not {size} bytes in hex: {text[:64]}")
    return value


def _time(text: str) -> float:
    try:
        return parse_time(text).timestamp()
    except Unreadable as error:
        raise _malformed(f"{text[:64]}: {error.text}") from None


def _malformed(why: str) -> Refused:
    return Refused("tdx.collateral_malformed", why)
