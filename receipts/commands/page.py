"""A report as one HTML page: no script, nothing fetched, every value escaped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Final

from receipts.commands.visible import visible

_STYLE: Final = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:75em;margin:2em auto;padding:0 1em;color:#222}"
    "table{border-collapse:collapse;margin:1em 0;width:100%}caption{text-align:left;font-weight:600}"
    "td,th{border-bottom:1px solid #ddd;padding:.3em .6em;text-align:left;vertical-align:top;"
    "overflow-wrap:anywhere}.proved{color:#176b2c}.failed,.wrong{color:#a11;font-weight:600}"
    ".missing{color:#a11}.asserted-by{color:#8a6100}.not-checked,.note{color:#666}"
)
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"


def _plain(text: str) -> str:
    """Text that is neither markup nor turns around what stands beside it."""
    return escape(visible(text))


@dataclass(slots=True)
class Page:
    """A page in the making."""

    title: str
    outcome: str
    _parts: list[str] = field(default_factory=list)

    def facts(self, rows: Sequence[tuple[str, str]]) -> None:
        """Names with one value each."""
        body = "".join(f"<tr><th>{_plain(name)}</th><td>{_plain(value)}</td></tr>" for name, value in rows)
        self._parts.append(f"<table>{body}</table>")

    def table(self, caption: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Rows of text; a cell that names a verdict or a severity takes its colour."""
        head = "".join(f"<th>{_plain(name)}</th>" for name in columns)
        body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
        self._parts.append(
            f"<table><caption>{_plain(caption)}</caption><tr>{head}</tr>{body}</table>"
            if rows
            else f"<p>{_plain(caption)}: none.</p>"
        )

    def notes(self, heading: str, lines: Sequence[str]) -> None:
        items = "".join(f"<li>{_plain(line)}</li>" for line in lines)
        self._parts.append(f"<h2>{_plain(heading)}</h2><ul>{items}</ul>" if lines else "")

    def html(self) -> str:
        title = _plain(self.title)
        return (
            f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}"><style>{_STYLE}</style>'
            f"<h1>{title}</h1><p>Outcome: <strong>{_plain(self.outcome)}</strong></p>"
            f"{''.join(self._parts)}</html>\n"
        )


_COLOURED: Final = frozenset({"proved", "failed", "wrong", "missing", "not-checked", "note"})


def _cell(text: str) -> str:
    word = text.partition("(")[0]
    style = f' class="{word}"' if word in _COLOURED or word == "asserted-by" else ""
    return f"<td{style}>{_plain(text)}</td>"
