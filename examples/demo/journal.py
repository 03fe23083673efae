"""The federation's log of one play: what every program wrote, in the order of its times, in one file."""

from __future__ import annotations

import json
from pathlib import Path


def write_journal(logs: Path, target: Path) -> int:
    """Merge the JSON lines of every program's log, each with its program's name. Returns the line count."""
    entries: list[tuple[str, str]] = []
    for path in sorted(logs.glob("*.log")):
        time = ""
        for line in path.read_text("utf-8", "replace").splitlines():
            entry = _entry(line, path.stem)
            time = str(entry.get("time", time))  # a line without a time follows the one before it
            entries.append((time, json.dumps(entry, ensure_ascii=False)))
    entries.sort(key=lambda entry: entry[0])
    target.write_text("".join(f"{line}\n" for _, line in entries), "utf-8")
    return len(entries)


def _entry(line: str, program: str) -> dict[str, object]:
    try:
        stated = json.loads(line)
    except ValueError:
        stated = None
    if not isinstance(stated, dict):
        return {"program": program, "text": line}
    return {"time": stated.pop("time", ""), "program": program, **stated}
