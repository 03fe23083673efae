"""TCB info and QE identity of the made-up vendor, in the shape of PCS API v4, with any member replaced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from schemas.canonical import Json

NOW: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)
ISSUED: Final = NOW - timedelta(days=10)
EXPIRES: Final = NOW + timedelta(days=20)
QE_SIGNER: Final = bytes(range(32))


def text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def platform_level(
    sgx: int, tdx: int, status: str, date: str, advisories: Sequence[str] = (), pcesvn: int = 11
) -> dict[str, Json]:
    """A level that asks the same of every component."""
    return {
        "tcb": {
            "sgxtcbcomponents": [{"svn": sgx} for _ in range(16)],
            "pcesvn": pcesvn,
            "tdxtcbcomponents": [{"svn": tdx} for _ in range(16)],
        },
        "tcbDate": date,
        "tcbStatus": status,
        **({"advisoryIDs": list(advisories)} if advisories else {}),
    }


def svn_level(svn: int, status: str, date: str, advisories: Sequence[str] = ()) -> dict[str, Json]:
    return {
        "tcb": {"isvsvn": svn},
        "tcbDate": date,
        "tcbStatus": status,
        **({"advisoryIDs": list(advisories)} if advisories else {}),
    }


def module(name: str = "TDX_01", *levels: dict[str, Json], **changes: Json) -> dict[str, Json]:
    return {
        "id": name,
        "mrsigner": "00" * 48,
        "attributes": "00" * 8,
        "attributesMask": "FF" * 8,
        "tcbLevels": list(levels) or [
            svn_level(5, "UpToDate", "2025-05-14T00:00:00Z"),
            svn_level(2, "OutOfDate", "2024-03-13T00:00:00Z", ["INTEL-SA-00002"]),
        ],
        **changes,
    }  # fmt: skip


def _changed(good: dict[str, Any], changes: Mapping[str, Json]) -> dict[str, Json]:
    return {name: value for name, value in {**good, **changes}.items() if value is not None}


def tcb_info(tee: str, changes: Mapping[str, Json]) -> dict[str, Json]:
    """TCB info of version 3; a change of None leaves a member out."""
    good: dict[str, Any] = {
        "id": tee.upper(),
        "version": 3,
        "issueDate": text(ISSUED),
        "nextUpdate": text(EXPIRES),
        "fmspc": "00806F050000",
        "pceId": "0000",
        "tcbType": 0,
        "tcbEvaluationDataNumber": 18,
    }
    if tee == "tdx":
        good["tdxModule"] = {k: v for k, v in module().items() if k not in ("id", "tcbLevels")}
        good["tdxModuleIdentities"] = [module("tdx_01"), module("TDX_03")]
    good["tcbLevels"] = [
        platform_level(5, 5, "UpToDate", "2025-05-14T00:00:00Z"),
        platform_level(3, 3, "OutOfDate", "2024-03-13T00:00:00Z", ["INTEL-SA-00001"]),
    ]
    return _changed(good, changes)


def qe_identity(tee: str, changes: Mapping[str, Json]) -> dict[str, Json]:
    """A QE identity of version 2; a change of None leaves a member out."""
    good: dict[str, Any] = {
        "id": "TD_QE" if tee == "tdx" else "QE",
        "version": 2,
        "issueDate": text(ISSUED),
        "nextUpdate": text(EXPIRES),
        "tcbEvaluationDataNumber": 18,
        "miscselect": "01020304",
        "miscselectMask": "FFFFFFFF",
        "attributes": "11" + "00" * 15,
        "attributesMask": "FB" + "FF" * 7 + "00" * 8,
        "mrsigner": QE_SIGNER.hex(),
        "isvprodid": 2,
        "tcbLevels": [
            svn_level(4, "UpToDate", "2025-05-14T00:00:00Z"),
            svn_level(2, "OutOfDate", "2024-03-13T00:00:00Z", ["INTEL-SA-00003"]),
        ],
    }
    return _changed(good, changes)


def evaluation(number: int, recovered: str) -> dict[str, Json]:
    """One number of the list; the TCB that it asks for is of the day after."""
    return {
        "tcbEvaluationDataNumber": number,
        "tcbRecoveryEventDate": f"{recovered}T00:00:00Z",
        "tcbDate": f"{recovered}T00:00:00Z",
    }


def evaluations(tee: str, changes: Mapping[str, Json]) -> dict[str, Json]:
    """Intel's list of evaluation numbers: 18 is the standard channel's at `NOW`, 20 the early one's."""
    good: dict[str, Any] = {
        "id": tee.upper(),
        "version": 1,
        "issueDate": text(ISSUED),
        "nextUpdate": text(EXPIRES),
        "tcbEvalNumbers": [
            evaluation(20, "2025-08-12"),
            evaluation(19, "2025-05-13"),
            evaluation(18, "2024-11-12"),
            evaluation(17, "2024-03-12"),
        ],
    }
    return _changed(good, changes)
