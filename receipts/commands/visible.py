"""Text of others on a terminal: what could steer it is shown, not obeyed.

Whoever wrote a log would else have the last word on an audit's screen: an escape sequence wipes a finding,
a line feed adds a verdict, and a mark of direction turns a name around.
"""

from __future__ import annotations


def visible(text: str) -> str:
    """One line, in which controls, line ends, marks of direction and lone surrogates stand as escapes."""
    return text if text.isprintable() else "".join(map(_shown, text))


def _shown(char: str) -> str:
    return char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
