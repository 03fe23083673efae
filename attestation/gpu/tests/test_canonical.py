"""What C14N wrote is read as a parser of XML reads it: names by namespace, values without escapes."""

from __future__ import annotations

from xml.parsers import expat

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from attestation.gpu.rim.canonical import Element, read_canonical
from schemas.errors import Refused

NAMES = st.sampled_from(["a", "b", "Resource", "Hash0"])
SPACES = st.sampled_from(["", "urn:x", "urn:y"])
TEXTS = st.text(st.sampled_from("az \"'<>&=/\t\n\r\u00e9"), max_size=6)


@st.composite
def elements(draw: st.DrawFn, depth: int = 3) -> etree._Element:
    """A tree whose prefixes are declared anywhere and again further in, and the default namespace as well."""
    prefixes: dict[str | None, str] = draw(
        st.dictionaries(st.sampled_from(["p", "q"]), SPACES.filter(bool), max_size=2)
    )
    default = draw(SPACES)
    declared = prefixes | ({None: default} if default else {})
    space, prefixed = draw(SPACES), [None, *prefixes.values()]
    found = etree.Element(f"{{{space}}}{draw(NAMES)}" if space else draw(NAMES), nsmap=declared or None)
    for name in draw(st.lists(NAMES, max_size=4, unique=True)):
        within = draw(st.sampled_from(prefixed))
        found.set(f"{{{within}}}{name}" if within else name, draw(TEXTS))
    found.text = draw(TEXTS)
    for child in draw(st.lists(elements(depth - 1), max_size=3)) if depth else ():
        child.tail = draw(TEXTS)
        found.append(child)
    return found


def parsed(data: bytes) -> list[Element]:
    """By Python's XML parser, which knows nothing of canonical forms."""
    found: list[Element] = []
    level = 0

    def start(name: str, attributes: list[str]) -> None:
        nonlocal level
        level += 1
        found.append((level, name, tuple(attributes[::2]), attributes[1::2]))

    def end(_: str) -> None:
        nonlocal level
        level -= 1

    parser = expat.ParserCreate("utf-8", "}")
    parser.ordered_attributes = True
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.Parse(data, True)
    return found


@given(elements())
def test_read_as_a_parser_reads_it(root: etree._Element) -> None:
    canonical = etree.tostring(root, method="c14n", with_comments=False)
    assert read_canonical(canonical) == parsed(canonical)


def test_quotation_marks_in_text_are_text() -> None:
    written = b'<a x="1">"b="<b></b>" c="2"</a>'
    assert read_canonical(written) == parsed(written) == [(1, "a", ("x",), ["1"]), (2, "b", (), [])]


@given(st.binary(max_size=60) | st.text(st.sampled_from('<>/ab:="& x'), max_size=60).map(str.encode))
def test_anything_else_is_read_or_refused(data: bytes) -> None:
    try:
        read_canonical(data)
    except Refused as error:
        assert error.code == "gpu.rim_malformed"  # noqa: PT017


@pytest.mark.parametrize("data", [b"\xff", b"</a>", b'<p:a x="1">', b'<a p:x="1">'])
def test_what_no_canonical_form_can_be_is_refused(data: bytes) -> None:
    with pytest.raises(Refused, match=r"gpu\.rim_malformed"):
        read_canonical(data)
