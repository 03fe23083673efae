"""What C14N wrote of a manifest, read once from front to back (xml-c14n11).

These are the bytes whose digest was signed. Apart from `document.py`, so that who reads no manifest loads no
XML library but Python's own.
"""

from __future__ import annotations

from typing import Final, TypeAlias
from xml.parsers import expat

from schemas.errors import Refused

MAX_DOCUMENT_BYTES: Final = 256 * 1024  # real manifests are 20 to 26 KiB

Element: TypeAlias = tuple[int, str, list[str]]
"""Level from 1, name as `namespace}local`, attributes as name, value, name, value…"""


def read_canonical(data: bytes) -> list[Element]:
    """Every element of what C14N wrote, in order. Raises `Refused` (`gpu.rim_malformed`).

    Only for bytes that came from `read_document`: without declarations there is nothing to expand, and no
    tree is needed for what is read once, from front to back.
    """
    found: list[Element] = []
    level = 0

    def start(name: str, attributes: list[str]) -> None:
        nonlocal level
        level += 1
        found.append((level, name, attributes))

    def end(_: str) -> None:
        nonlocal level
        level -= 1

    parser = expat.ParserCreate("utf-8", "}")
    parser.ordered_attributes = True
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = start, end
    try:
        parser.Parse(data, True)
    except expat.ExpatError:
        raise malformed("not well-formed XML") from None
    return found


def malformed(why: str) -> Refused:
    return Refused("gpu.rim_malformed", why)
