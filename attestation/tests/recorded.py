"""Where recorded hardware evidence lies, for the tests that read it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, cast

FOLDER = Path(os.environ.get("COMITY_EVIDENCE") or Path(__file__).parents[2] / ".." / "shared" / "evidence")
PRESENT = (FOLDER / "cases.json").is_file()
ABSENT = f"no recorded hardware evidence at {FOLDER} (set COMITY_EVIDENCE)"


def snp_rows() -> list[dict[str, Any]]:
    """The rows of cases.json that are ours; none where there is no evidence."""
    if not PRESENT:
        return []
    rows = json.loads((FOLDER / "cases.json").read_bytes())
    listed = rows if isinstance(rows, list) else rows["cases"]
    return [row for row in cast(list[dict[str, Any]], listed) if row["tee"] == "snp"]


def case(name: str) -> dict[str, Any]:
    return cast(dict[str, Any], json.loads((FOLDER / "snp" / name / "case.json").read_bytes()))


def snp_case_names() -> list[str]:
    return [row["case"].removeprefix("snp/") for row in snp_rows()]


def read(path: str) -> bytes:
    return (FOLDER / path).read_bytes()
