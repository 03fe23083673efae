"""XML that may be read at all: bounded, without declarations, comments, instructions or references out.

A manifest is hostile until its signature holds. So whatever XML can do beyond elements, attributes and
text is refused by its first two characters, before a parser sees it (XML 1.0 2.4 to 2.8).
"""

from __future__ import annotations

import re
from typing import Any, Final

from lxml import etree

from attestation.gpu.rim.canonical import MAX_DOCUMENT_BYTES, malformed

MAX_ELEMENTS: Final = 1024  # real ones have about 90
MAX_DEPTH: Final = 8  # real ones have 6 levels
_TOO_DEEP: Final = etree.XPath("boolean(" + "/*" * (MAX_DEPTH + 1) + ")")
"""Whether there is an element at a level that no manifest has."""
_XML_ATTRIBUTE: Final = re.compile(rb"\sxml:")
"""No other prefix can be bound to that namespace (Namespaces in XML 1.0, 3)."""


def read_document(data: bytes) -> Any:
    """The root element. Raises `Refused` (`gpu.rim_malformed`)."""
    if len(data) > MAX_DOCUMENT_BYTES:
        raise malformed(f"more than {MAX_DOCUMENT_BYTES} bytes")
    if data.count(b"<") > 2 * MAX_ELEMENTS:
        raise malformed(f"more than {MAX_ELEMENTS} elements")
    _hold_markup(data, _behind_declaration(data))
    try:
        root = etree.fromstring(data, _parser())
    except (etree.XMLSyntaxError, ValueError):
        raise malformed("not well-formed XML") from None
    _hold_depth(root)
    return root


def _parser() -> Any:
    """A new one each time: nothing is shared between documents. The limits of libxml2 stay on."""
    return etree.XMLParser(
        encoding="utf-8", resolve_entities=False, no_network=True, load_dtd=False, dtd_validation=False,
        attribute_defaults=False, huge_tree=False, recover=False,
    )  # fmt: skip


def _behind_declaration(data: bytes) -> int:
    """Where the document begins, which is UTF-8 and nothing else: another encoding could hide markup.

    ASCII is a part of it, and may be what an XML declaration names.
    """
    start = data.find(b"?>") + 2 if data.startswith(b"<?xml ") else 0
    named, plain = data[:start].lower(), data.isascii()
    if b"encoding" in named and b"utf-8" not in named and not (b"ascii" in named and plain):
        raise malformed("another encoding than UTF-8 or ASCII")
    try:
        if not plain:
            data.decode("utf-8")
    except UnicodeDecodeError:
        raise malformed("not UTF-8") from None
    return start


def _hold_markup(data: bytes, start: int) -> bytes:
    """No DTD, entity, comment, CDATA section; no instruction but an XML declaration in front.

    C14N 1.0 and 1.1 give the same bytes where no `xml:` attribute occurs (C14N 1.1 section 1.2).
    """
    # One character is looked for first: most documents have neither, and that look costs next to nothing.
    if (b"!" in data and data.find(b"<!", start) >= 0) or (b"?" in data and data.find(b"<?", start) >= 0):
        raise malformed("a declaration, comment, CDATA section or processing instruction")
    if b"xml:" in data and _XML_ATTRIBUTE.search(data):
        raise malformed("an attribute of the namespace xml")
    return data


def _hold_depth(root: Any) -> Any:
    if _TOO_DEEP(root):
        raise malformed(f"nested deeper than {MAX_DEPTH} levels")
    return root
