"""Lines of CSV that a spreadsheet shows and does not run."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import Final

_FORMULA: Final = ("=", "+", "-", "@", "＝", "＋", "－", "＠", "\t", "\r", "\n")  # wide ones, too
"""What a spreadsheet would take for the beginning of a formula (OWASP, CSV injection)."""


def line(values: Iterable[str]) -> str:
    """One line, its newline included. A cell that would be taken for a formula is quoted."""
    out = io.StringIO()
    cells = [f"'{text}" if text.startswith(_FORMULA) else text for text in values]
    # Only what stands in its line end does the library quote: a bare one would begin a line of its own.
    csv.writer(out, lineterminator="\r\n").writerow(cells)
    return out.getvalue().removesuffix("\r\n") + "\n"
