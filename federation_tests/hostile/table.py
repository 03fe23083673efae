"""`docs/who-can-lie.md` from the markers of the suite.

`python -m federation_tests.hostile.table` writes it anew.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from federation_tests.hostile.lie import PARTIES, Lie

HERE: Final = Path(__file__).parent
PAGE: Final = HERE.parent.parent / "docs" / "who-can-lie.md"
HEAD: Final = """# Who can lie, and who notices

Generated from `federation_tests/hostile/` by `python -m federation_tests.hostile.table`; a test compares
this page with the suite. Each row is a test against real servers, and asserts the codes that stand in it.
What is refused leaves the application with a typed error (`error.comity.code`, or the reason under
`error.comity.declined`), never with a normal end. The claims of a verified receipt are `proved`,
`asserted-by(…)`, `not-checked` or `failed` (`comity receipt verify`).
"""
COLUMNS: Final = ("lie", "detected by", "code", "what the receipt then says", "test")


def marked() -> Iterator[tuple[Lie, str]]:
    """Every marker of the suite with its test's name, in order of parties and files."""
    found: list[tuple[Lie, str]] = []
    for path in sorted(HERE.rglob("test_*.py")):
        parts = path.relative_to(HERE).with_suffix("").parts
        module = importlib.import_module(".".join((__package__, *parts)))
        for name, test in vars(module).items():
            if name.startswith("test_") and hasattr(test, "lie"):
                found.append((test.lie, f"{path.stem}.{name}"))
    yield from sorted(found, key=lambda each: PARTIES.index(each[0].party))


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for party in PARTIES:
        parts.append(f"\n## {party.capitalize()} that …\n\n" + _row(COLUMNS) + _row(["---"] * len(COLUMNS)))
        parts += [_row(_cells(lie, test)) for lie, test in marked() if lie.party == party]
    return "".join(parts)


def _cells(lie: Lie, test: str) -> list[str]:
    codes = " ".join(f"`{code}`" for code in lie.codes)
    return [lie.text, lie.by, codes, lie.receipt, f"`{test.partition('.')[2]}`"]


def _row(cells: tuple[str, ...] | list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
