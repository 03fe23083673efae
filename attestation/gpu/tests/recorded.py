"""The recorded NVIDIA evidence, for the tests that read it."""

from __future__ import annotations

import json
from typing import Any, cast

from attestation.tests.recorded import ABSENT, FOLDER, PRESENT, read

__all__ = ["ABSENT", "FOLDER", "PRESENT", "case", "devices", "read", "rows"]


def rows() -> list[dict[str, Any]]:
    """The rows of cases.json that are ours; none where there is no evidence."""
    if not PRESENT:
        return []
    listed = cast(list[dict[str, Any]], json.loads((FOLDER / "cases.json").read_bytes()))
    return [row for row in listed if row["tee"] == "nvidia"]


def case(name: str) -> dict[str, Any]:
    return cast(dict[str, Any], json.loads((FOLDER / "gpu" / name / "case.json").read_bytes()))


def devices() -> list[tuple[str, dict[str, Any]]]:
    """Every recorded device that can be read: (folder, what it states)."""
    if not PRESENT:
        return []
    found: list[tuple[str, dict[str, Any]]] = []
    for folder in sorted(each for each in (FOLDER / "gpu").iterdir() if each.is_dir()):
        expected = case(folder.name)["expected"]
        if "devices" in expected:
            found += [(f"{folder.name}/{name}", said) for name, said in expected["devices"].items()]
        elif (folder / "report.bin").is_file():
            found.append((folder.name, expected))
    return found
