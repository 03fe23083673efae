"""NVIDIA's reference manifest: which measurements a firmware must show (ISO 19770-2 SWID, TCG RIM; gpu.md 6).

Values are read from the bytes that were digested, and only where they belong: `Resource` children of the
one `Payload` of the root.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from attestation.gpu.pki.constraints import hold_chain
from attestation.gpu.pki.signature import verify_link
from attestation.gpu.rim.document import MAX_DOCUMENT_BYTES, malformed, read_document
from attestation.gpu.rim.signature import verify_document
from attestation.x509 import Certificate
from schemas.canonical import sha256
from schemas.errors import Refused

MAX_INDEX: Final = 63
MAX_ALTERNATIVES: Final = 16  # four are the most seen
MAX_VALUE_BYTES: Final = 64
CACHED_MANIFESTS: Final = 256  # verified documents kept per process, about 10 KiB each
NVIDIA_ID: Final = "5703"  # IANA private enterprise number

_SWID: Final = "{http://standards.iso.org/iso/19770/-2/2015/schema.xsd}"
_RIM: Final = (
    "{https://trustedcomputinggroup.org/resource/tcg-reference-integrity-manifest-rim-information-model/}"
)
_HASH: Final = "{http://www.w3.org/2001/04/xmlenc#sha384}Hash"
_NUMBERS: Final = {str(number): number for number in range(256)}
_ACTIVE: Final = {"True": True, "False": False}
_HASHES: Final = tuple(f"{_HASH}{n}" for n in range(MAX_ALTERNATIVES))
_VERSION: Final = re.compile(rb"\scolloquialVersion=\"([0-9A-Za-z.]{1,64})\"")
_RESOURCE: Final = frozenset(("type", "index", "active", "alternatives", "name", "size"))


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

    @property
    def signed_from(self) -> float:
        """When the signer's certificate begins (POSIX seconds): a newer issue has a newer signer."""
        return self.chain[0].not_before


@lru_cache(maxsize=CACHED_MANIFESTS)
def verify_manifest(data: bytes) -> Manifest:
    """The manifest in these bytes. Raises `Refused` (`gpu.rim_*`); a failure is never remembered."""
    signed = verify_document(data)
    try:
        hold_chain(signed.chain)
        for child, parent in zip(signed.chain, [*signed.chain[1:], signed.chain[-1]], strict=True):
            verify_link(child.der, parent.der)
    except Refused as error:
        raise Refused("gpu.rim_chain_untrusted", error.text) from None
    return _read(read_document(signed.canonical), sha256(data).hex(), signed.chain)


@lru_cache(maxsize=CACHED_MANIFESTS)
def stated_version(data: bytes) -> str | None:
    """The version that a document claims before anything is verified; None where it cannot be told.

    A look at the text: it only says for which report the document is tried, and believes nothing.
    """
    found = _VERSION.findall(data[:MAX_DOCUMENT_BYTES])
    return str(found[0].decode("ascii")) if len(found) == 1 else None


def _read(root: Any, digest: str, chain: tuple[Certificate, ...]) -> Manifest:
    if root.tag != f"{_SWID}SoftwareIdentity":
        raise malformed("not a SoftwareIdentity")
    meta, payload = _one(root, "Meta"), _one(root, "Payload")
    return Manifest(
        digest=digest,
        name=_attribute(root, "name"),
        product=_attribute(meta, "product"),
        edition=_attribute(meta, "edition"),
        version=_attribute(meta, "colloquialVersion"),
        manufacturer=_attribute(meta, f"{_RIM}FirmwareManufacturerId"),
        tag_id=_attribute(root, "tagId"),
        golden=_golden(payload),
        chain=chain,
    )


def _one(root: Any, name: str) -> Any:
    found = [child for child in root if child.tag == f"{_SWID}{name}"]
    if len(found) != 1:
        raise malformed(f"not exactly one {name}")
    return found[0]


def _attribute(element: Any, name: str) -> str:
    value = element.get(name)
    if value is None:
        raise malformed(f"no {name}")
    return str(value)


def _golden(payload: Any) -> dict[int, tuple[bytes, ...]]:
    """Active values by index. An index that stands twice refuses, active or not."""
    seen: set[int] = set()
    golden: dict[int, tuple[bytes, ...]] = {}
    for resource in payload:
        index, active, values = _resource(resource)
        if index in seen:
            raise malformed(f"index {index} stands twice")
        seen.add(index)
        if active:
            golden[index] = values
    return dict(sorted(golden.items()))


def _resource(resource: Any) -> tuple[int, bool, tuple[bytes, ...]]:
    """(index, active, accepted values) of one measurement."""
    said: dict[str, str] = dict(resource.attrib)
    if resource.tag != f"{_SWID}Resource" or len(resource) or said.get("type") != "Measurement":
        raise malformed("a payload of something other than measurements")
    index, size = _number(said, "index", MAX_INDEX), _number(said, "size", MAX_VALUE_BYTES)
    count = _number(said, "alternatives", MAX_ALTERNATIVES)
    active = _ACTIVE.get(said.get("active", ""))
    names = _HASHES[:count]
    if active is None or not count or said.keys() - _RESOURCE != set(names):
        raise malformed(f"measurement {index} disagrees with itself")
    return index, active, tuple(_value(said[name], size) for name in names)


def _number(said: Mapping[str, str], name: str, most: int) -> int:
    """A number in its one spelling."""
    number = _NUMBERS.get(said.get(name, ""))
    if number is None or number > most:
        raise malformed(f"{name} is not between 0 and {most}")
    return number


def _value(text: str, size: int) -> bytes:
    """Hex in either case. `fromhex` passes over white space, so both lengths are looked at."""
    try:
        value = bytes.fromhex(text)
    except ValueError:
        value = b""
    if len(text) != 2 * size or len(value) != size:
        raise malformed(f"a value that is not {size} bytes in hex")
    return value
