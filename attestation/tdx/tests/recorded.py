"""The recorded TDX and SGX evidence, for the tests that read it."""

from __future__ import annotations

import json
from typing import Any, cast

from attestation.tests.recorded import ABSENT, FOLDER, PRESENT, read

__all__ = ["ABSENT", "FOLDER", "PRESENT", "case", "quotes", "read", "rows"]


def rows() -> list[dict[str, Any]]:
    """The rows of cases.json that are ours; none where there is no evidence."""
    if not PRESENT:
        return []
    listed = cast(list[dict[str, Any]], json.loads((FOLDER / "cases.json").read_bytes()))
    return [row for row in listed if row["tee"] in ("tdx", "sgx")]


def case(row: dict[str, Any]) -> dict[str, Any]:
    return cast(dict[str, Any], json.loads((FOLDER / row["case"] / "case.json").read_bytes()))


def quotes() -> list[dict[str, Any]]:
    """One row for each distinct quote."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows():
        found.setdefault(case(row)["quote_sha256"], row)
    return list(found.values())
