"""NVIDIA's reference manifest: which measurements a firmware must show (ISO 19770-2 SWID, TCG RIM; gpu.md 6).

Values are read from the bytes that were digested, and only where they belong: `Resource` children of the
one `Payload` of the root.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from attestation.gpu.pki.constraints import hold_chain
from attestation.gpu.pki.signature import verify_link
from attestation.gpu.rim.canonical import MAX_DOCUMENT_BYTES, Element, Names, malformed, read_canonical
from attestation.pki.x509 import Certificate
from schemas.canonical import sha256
from schemas.errors import Refused

MAX_INDEX: Final = 63
MAX_ALTERNATIVES: Final = 16  # four are the most seen
MAX_VALUE_BYTES: Final = 64
CACHED_MANIFESTS: Final = 256  # verified documents kept per process, about 10 KiB each
NVIDIA_ID: Final = "5703"  # IANA private enterprise number

_SWID: Final = "http://standards.iso.org/iso/19770/-2/2015/schema.xsd}"
_RIM: Final = (
    "https://trustedcomputinggroup.org/resource/tcg-reference-integrity-manifest-rim-information-model/}"
)
_RESOURCE_TAG: Final = f"{_SWID}Resource"
_HASH: Final = "http://www.w3.org/2001/04/xmlenc#sha384}Hash"
_NUMBERS: Final = {str(number): number for number in range(256)}
"""Each in its one spelling."""
_ACTIVE: Final = {"True": True, "False": False}
_HASHES: Final = tuple(f"{_HASH}{n}" for n in range(MAX_ALTERNATIVES))
_VERSION: Final = re.compile(rb"colloquialVersion\s{0,9}=\s{0,9}([\"'])([0-9A-Za-z.]{1,64})\1")
_RESOURCE: Final = ("active", "alternatives", "index", "name", "size", "type")
"""In the order in which C14N writes attributes; values follow, for they have a namespace (xml-c14n 2.2)."""
_WRITTEN: Final = frozenset((*_RESOURCE, *_HASHES[:count]) for count in range(1, 11))
"""Which attributes there are. From ten values on, C14N no longer counts upwards."""


@dataclass(frozen=True, slots=True, eq=False)
class Manifest:
    """What one signed issue demands. Signature and links hold; root, time and fit are judged on use."""

    digest: str
    """SHA-256 of the document as received, hex: an id names many issues, this names one."""
    name: str
    product: str
    edition: str
    version: str
    manufacturer: str
    tag_id: str
    golden: Mapping[int, tuple[bytes, ...]]
    """Active index, from 0 → accepted values."""
    chain: tuple[Certificate, ...] = field(repr=False)
    begins: float
    ends: float
    """From and until when all of its certificates are in date, POSIX seconds."""

    @property
    def signed_from(self) -> float:
        """When the signer's certificate begins (POSIX seconds): a newer issue has a newer signer."""
        return self.chain[0].not_before


@lru_cache(maxsize=CACHED_MANIFESTS)
def verify_manifest(data: bytes) -> Manifest:
    """The manifest in these bytes. Raises `Refused` (`gpu.rim_*`); a failure is never remembered."""
    from attestation.gpu.rim.signature import verify_document  # with lxml: 12 ms, for who reads a manifest

    signed = verify_document(data)
    try:
        hold_chain(signed.chain)
        for child, parent in zip(signed.chain, [*signed.chain[1:], signed.chain[-1]], strict=True):
            verify_link(child.der, parent.der)
    except Refused as error:
        raise Refused("gpu.rim_chain_untrusted", error.text) from None
    return _read(read_canonical(signed.canonical), sha256(data).hex(), signed.chain)


@lru_cache(maxsize=CACHED_MANIFESTS)
def stated_version(data: bytes) -> str | None:
    """The version that a document claims before anything is verified; None where it cannot be told.

    A look at the text: it only says for which report the document is tried, and believes nothing.
    """
    found = [
        each[2] for each in _VERSION.finditer(data[:MAX_DOCUMENT_BYTES])
        if data[each.start() - 1 : each.start()].isspace()
    ]  # fmt: skip
    return str(found[0].decode("ascii")) if len(found) == 1 else None


def _read(elements: Sequence[Element], digest: str, chain: tuple[Certificate, ...]) -> Manifest:
    if elements[0][1] != f"{_SWID}SoftwareIdentity":
        raise malformed("not a SoftwareIdentity")
    root, meta = _said(elements[0]), _said(elements[_one(elements, "Meta")])
    return Manifest(
        digest=digest,
        name=_attribute(root, "name"),
        product=_attribute(meta, "product"),
        edition=_attribute(meta, "edition"),
        version=_attribute(meta, "colloquialVersion"),
        manufacturer=_attribute(meta, f"{_RIM}FirmwareManufacturerId"),
        tag_id=_attribute(root, "tagId"),
        golden=_golden(elements[_one(elements, "Payload") + 1 :]),
        chain=chain,
        begins=max(each.not_before for each in chain),
        ends=min(each.not_after for each in chain),
    )


def _one(elements: Sequence[Element], name: str) -> int:
    """Where the one child of the root with that name stands."""
    wanted = f"{_SWID}{name}"
    found = [at for at, (level, named, _, _) in enumerate(elements) if level == 2 and named == wanted]
    if len(found) != 1:
        raise malformed(f"not exactly one {name}")
    return found[0]


def _said(element: Element) -> dict[str, str]:
    _, _, names, values = element
    return dict(zip(names, values, strict=True))


def _attribute(said: Mapping[str, str], name: str) -> str:
    value = said.get(name)
    if value is None:
        raise malformed(f"no {name}")
    return value


def _golden(following: Sequence[Element]) -> dict[int, tuple[bytes, ...]]:
    """Active values by index, from what stands inside the payload. An index that stands twice refuses."""
    seen: set[int] = set()
    golden: dict[int, tuple[bytes, ...]] = {}
    for level, name, names, stated in following:
        if level == 2:
            break
        if level != 3 or name != _RESOURCE_TAG:
            raise malformed("a payload of something other than measurements")
        index, active, values = _resource(names, stated)
        if index in seen:
            raise malformed(f"index {index} stands twice")
        seen.add(index)
        if active:
            golden[index] = values
    return dict(sorted(golden.items()))


def _resource(names: Names, stated: list[str]) -> tuple[int, bool, tuple[bytes, ...]]:
    """(index, active, accepted values) of one measurement."""
    if names not in _WRITTEN:
        stated = _in_order(dict(zip(names, stated, strict=True)))
    active, count, index, _, size, kind, *listed = stated
    if kind != "Measurement":
        raise malformed("a payload of something other than measurements")
    number, length = _NUMBERS.get(index, MAX_INDEX + 1), _NUMBERS.get(size, MAX_VALUE_BYTES + 1)
    if number > MAX_INDEX or length > MAX_VALUE_BYTES:
        raise malformed(f"an index above {MAX_INDEX} or a size above {MAX_VALUE_BYTES}, or no number")
    if active not in _ACTIVE or len(listed) > MAX_ALTERNATIVES or _NUMBERS.get(count) != len(listed):
        raise malformed(f"measurement {number} disagrees with itself")
    if _ACTIVE[active] and not listed:
        raise malformed(f"measurement {number} is active and has no value")
    return number, _ACTIVE[active], tuple([_value(text, length) for text in listed])


def _in_order(said: dict[str, str]) -> list[str]:
    """The attributes as `_WRITTEN` has them, for one without a name or with many values."""
    found = {"name": "", **said}
    names = [*_RESOURCE, *_HASHES[: len(found) - len(_RESOURCE)]]
    if found.keys() != set(names):
        raise malformed("a measurement that disagrees with itself")
    return [found[name] for name in names]


def _value(text: str, size: int) -> bytes:
    """Hex in either case. `fromhex` passes over white space, so both lengths are looked at."""
    try:
        value = bytes.fromhex(text)
    except ValueError:
        value = b""
    if len(text) != 2 * size or len(value) != size:
        raise malformed(f"a value that is not {size} bytes in hex")
    return value
