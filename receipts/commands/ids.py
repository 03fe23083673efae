"""Ids of receipts and requests on a command line: one in 64 begins with a dash, and is no option."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

_ID: Final = re.compile(r"-[A-Za-z0-9_-]{21}|-[A-Za-z0-9_-]{42}")
"""base64url of 16 or 32 bytes; no option is so long."""
REQUEST: Final = "--request"


def told_apart(argv: Sequence[str]) -> list[str]:
    """The same words, such that argparse takes an id with a dash for what it is.

    One after `--request` is joined to it; another goes to the end, behind `--`.
    """
    words: list[str] = []
    last: list[str] = []
    for word in argv:
        if not _ID.fullmatch(word):
            words.append(word)
        elif words and words[-1] == REQUEST:
            words[-1] = f"{REQUEST}={word}"
        else:
            last.append(word)
    return [*words, "--", *last] if last and "--" not in words else [*words, *last]
