"""Lines of CSV that a spreadsheet shows and does not run."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import Final

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would run (OWASP, CSV injection)


def line(values: Iterable[str]) -> str:
    """One line, its newline included. A cell that would be taken for a formula is quoted."""
    out = io.StringIO()
    cells = [f"'{text}" if text.startswith(_FORMULA) else text for text in values]
    csv.writer(out, lineterminator="\n").writerow(cells)
    return out.getvalue()
