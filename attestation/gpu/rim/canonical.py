"""What C14N wrote of a manifest, read once from front to back (xml-c14n11).

These are the bytes whose digest was signed. They know two kinds of markup, `<name name="value"…>` and
`</name>`, each in one spelling: no `<` stands for itself anywhere, and no quotation mark inside a value (C14N
1.0, 2.3). So they are cut at both, and what stands around the values of a tag is understood once for all tags
that are written alike, as a manifest's 64 measurements are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeAlias

from schemas.errors import Refused

MAX_DOCUMENT_BYTES: Final = 256 * 1024  # real manifests are 20 to 26 KiB
_ESCAPES: Final = (
    ("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&#x9;", "\t"), ("&#xA;", "\n"), ("&#xD;", "\r"),
    ("&amp;", "&"),
)  # fmt: skip
"""How C14N writes characters; the ampersand last, so that nothing is read twice."""

Names: TypeAlias = tuple[str, ...]
Element: TypeAlias = tuple[int, str, Names, list[str]]
"""Level from 1, name as `namespace}local`, the attributes' names alike and in C14N's order, their values."""


class _Tag(NamedTuple):
    """What the text around the values of a start tag says."""

    name: str
    attributes: Names
    first: int
    """Values of declarations stand before those of attributes (C14N 1.0, 2.2)."""
    end: int
    """Quotation marks behind so many values are text."""


@dataclass(frozen=True, slots=True)
class _Scope:
    """The prefixes in force, and the tags that were understood under them."""

    namespaces: dict[str, str]
    """Prefix → what it puts before a local name; the default namespace's is empty."""
    known: dict[Names, _Tag] = field(default_factory=dict)


def read_canonical(data: bytes) -> list[Element]:
    """Every element of what C14N wrote, in order. Raises `Refused` (`gpu.rim_malformed`).

    Only for bytes that came from `read_document`: whether C14N can have written them is not asked again.
    """
    try:
        return _elements(data.decode())
    except (ValueError, LookupError):
        raise malformed("not canonical XML") from None


def _elements(text: str) -> list[Element]:
    found: list[Element] = []
    scopes = [_Scope({"": ""})]
    for piece in text.split("<")[1:]:
        if piece[0] == "/":
            scopes.pop()
            continue
        parts = piece.split('"')
        around, values, scope = tuple(parts[::2]), parts[1::2], scopes[-1]
        if "&" in piece:
            values = [_character(value) for value in values]
        tag = scope.known.get(around)
        if tag is None:
            scope, tag = _understood(around, values, scope)
        found.append((len(scopes), tag.name, tag.attributes, values[tag.first : tag.end]))
        scopes.append(scope)
    if not found or len(scopes) != 1:
        raise LookupError("no element, or one that does not end")
    return found


def _character(value: str) -> str:
    """A value with its characters in place of their escapes (C14N 1.0, 2.3)."""
    for written, character in _ESCAPES:
        value = value.replace(written, character)
    return value


def _understood(around: Names, values: list[str], outer: _Scope) -> tuple[_Scope, _Tag]:
    """The scope inside a tag, and what the tag says, under its own declarations too (XML Names 1.0, 6.1)."""
    name, *named = '"'.join(around).partition(">")[0].replace('="', "").split(" ")
    declared = [each for each in named if each == "xmlns" or each.startswith("xmlns:")]
    uris = {each[6:]: uri and f"{uri}}}" for each, uri in zip(declared, values, strict=False)}
    scope = _Scope({**outer.namespaces, **uris}) if declared else outer
    # An attribute without a prefix is in no namespace, whatever the default (XML Names 1.0, 6.2).
    attributes = tuple([_full(each, scope) if ":" in each else each for each in named[len(declared) :]])
    tag = _Tag(_full(name, scope), attributes, len(declared), len(named))
    if not declared:
        scope.known[around] = tag
    return scope, tag


def _full(name: str, scope: _Scope) -> str:
    prefix, _, local = name.rpartition(":")
    return scope.namespaces[prefix] + local


def malformed(why: str) -> Refused:
    return Refused("gpu.rim_malformed", why)
