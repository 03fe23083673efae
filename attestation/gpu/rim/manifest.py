"""NVIDIA's reference manifest: which measurements a firmware must show (ISO 19770-2 SWID, TCG RIM; gpu.md 6).

Values are read from the bytes that were digested, and only where they belong: `Resource` children of the
one `Payload` of the root.
"""

from __future__ import annotations

import re
from binascii import unhexlify
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Final, TypeAlias

from attestation.gpu.pki.constraints import hold_chain
from attestation.gpu.pki.signature import verify_link
from attestation.gpu.rim.canonical import MAX_DOCUMENT_BYTES, Element, malformed, read_canonical
from attestation.pki.x509 import Certificate
from schemas.canonical import sha256
from schemas.errors import Refused

if TYPE_CHECKING:
    from attestation.gpu.rim.signature import Signature

MAX_INDEX: Final = 63
MAX_ALTERNATIVES: Final = 16  # four are the most seen
MAX_VALUE_BYTES: Final = 64
CACHED_MANIFESTS: Final = 256  # documents kept per process, read and verified, about 10 KiB each
NVIDIA_ID: Final = "5703"  # IANA private enterprise number

_SWID: Final = "http://standards.iso.org/iso/19770/-2/2015/schema.xsd}"
_RIM: Final = (
    "https://trustedcomputinggroup.org/resource/tcg-reference-integrity-manifest-rim-information-model/}"
)
_RESOURCE: Final = f"{_SWID}Resource"
_HASH: Final = "http://www.w3.org/2001/04/xmlenc#sha384}Hash"
_HASHES: Final = {tuple(sorted(f"{_HASH}{n}" for n in range(count))) for count in range(MAX_ALTERNATIVES + 1)}
"""How the values of a measurement are named, in C14N's order: from ten on it no longer counts upwards."""
_NUMBERS: Final = {b"%d" % number: number for number in range(256)}
"""Each in its one spelling."""
_VERSION_NAME: Final = b"colloquialVersion"
_VERSION: Final = re.compile(rb"\s{0,9}=\s{0,9}([\"'])([0-9A-Za-z.]{1,64})\1")
_PAYLOAD: Final = b"Payload"
_MEASUREMENT: Final = re.compile(
    rb'<([^ />]+(?: xmlns[^ =]*="[^"]*")*) active="(True|False)" alternatives="([0-9]+)" '
    rb'index="([0-9]+)"(?: name="[^"]*")? size="([0-9]+)" type="Measurement"'
    rb"([^>]*)>[^<]*</"
)
"""As C14N writes one: declarations, attributes in no namespace by name, then those in one (xml-c14n 2.2)."""


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


@dataclass(frozen=True, slots=True, eq=False)
class Unproven:
    """What a document says if its signature holds."""

    signature: Signature
    says: Manifest | Refused
    """Why it says nothing that can be read; told only behind its signature and its chain."""


@lru_cache(maxsize=CACHED_MANIFESTS)
def read_manifest(data: bytes) -> Unproven:
    """Read a document, and verify nothing. Raises `Refused` (`gpu.rim_*`) for one of another shape."""
    from attestation.gpu.rim.signature import read_signed  # with lxml: 12 ms, for who reads a manifest

    canonical, signature = read_signed(data)
    try:
        return Unproven(signature, _read(canonical, sha256(data).hex(), signature.chain))
    except Refused as error:
        return Unproven(signature, error)


@lru_cache(maxsize=CACHED_MANIFESTS)
def verify_manifest(data: bytes) -> Manifest:
    """The manifest in these bytes. Raises `Refused` (`gpu.rim_*`); a failure is never remembered."""
    from attestation.gpu.rim.signature import verify_signed

    read = read_manifest(data)
    chain = verify_signed(read.signature).chain
    try:
        hold_chain(chain)
        for child, parent in zip(chain, [*chain[1:], chain[-1]], strict=True):
            verify_link(child.der, parent.der)
    except Refused as error:
        raise Refused("gpu.rim_chain_untrusted", error.text) from None
    if isinstance(read.says, Refused):
        raise Refused(read.says.code, read.says.text)
    return read.says


@lru_cache(maxsize=CACHED_MANIFESTS)
def stated_version(data: bytes) -> str | None:
    """The version that a document claims before anything is verified; None where it cannot be told.

    A look at the text: it only says for which report the document is tried, and believes nothing.
    """
    at = data.find(_VERSION_NAME, 0, MAX_DOCUMENT_BYTES)
    found = _VERSION.match(data, at + len(_VERSION_NAME)) if data[at - 1 : at].isspace() else None
    if found is None or data.find(_VERSION_NAME, found.end(), MAX_DOCUMENT_BYTES) >= 0:
        return None
    return str(found[2].decode("ascii"))


def _read(canonical: bytes, digest: str, chain: tuple[Certificate, ...]) -> Manifest:
    start, end = _payload(canonical)
    golden, spellings = _golden(canonical, start, end)
    elements = read_canonical(b"".join((canonical[:start], *map(_sample, spellings), canonical[end:])))
    if elements[0][1] != f"{_SWID}SoftwareIdentity":
        raise malformed("not a SoftwareIdentity")
    _hold_payload(elements, len(spellings))
    root, meta = _said(elements[0]), _said(elements[_one(elements, "Meta")])
    return Manifest(
        digest=digest,
        name=_attribute(root, "name"),
        product=_attribute(meta, "product"),
        edition=_attribute(meta, "edition"),
        version=_attribute(meta, "colloquialVersion"),
        manufacturer=_attribute(meta, f"{_RIM}FirmwareManufacturerId"),
        tag_id=_attribute(root, "tagId"),
        golden=golden,
        chain=chain,
        begins=max(each.not_before for each in chain),
        ends=min(each.not_after for each in chain),
    )


def _payload(canonical: bytes) -> tuple[int, int]:
    """Between which bytes the content of the first element stands that is called a payload."""
    at = canonical.find(_PAYLOAD)
    while at >= 0:
        if canonical[at - 1 : at] in (b"<", b":"):  # else it is a part of another name
            name = canonical[canonical.rfind(b"<", 0, at) + 1 : at + len(_PAYLOAD)]
            start, end = canonical.find(b">", at) + 1, canonical.rfind(b"</%b>" % name)
            if start <= end:
                return start, end
        at = canonical.find(_PAYLOAD, at + 1)
    raise malformed("no Payload")


def _hold_payload(elements: Sequence[Element], spellings: int) -> None:
    """The one payload is a child of the root, and what was cut out of it are its measurements."""
    at = _one(elements, "Payload")
    inside = elements[at + 1 : at + 1 + spellings]
    if sum("Payload" in name for _, name, _, _ in elements) != 1:
        raise malformed("something else that is called a Payload")
    if not all(name == _RESOURCE and names in _HASHES for _, name, names, _ in inside):
        raise malformed("a payload of something other than measurements")


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


Spelling: TypeAlias = tuple[bytes, ...]
"""How a measurement's tag opens, with what it declares; then the names of its values, as they are written."""


def _golden(canonical: bytes, start: int, end: int) -> tuple[dict[int, tuple[bytes, ...]], set[Spelling]]:
    """Active values by index between these bytes, and every way in which a measurement is written there.

    Nothing but measurements: each has one start and one end, and C14N leaves no other `<` (1.0, 2.3).
    """
    found = _MEASUREMENT.findall(canonical, start, end)
    if canonical.count(b"<", start, end) != 2 * len(found):
        raise malformed("a payload of something other than measurements")
    written = [each[5].split(b'"') for each in found]
    values = [each[1::2] for each in written]
    indices = [_NUMBERS.get(each[3], MAX_INDEX + 1) for each in found]
    if max(indices, default=0) > MAX_INDEX or len(set(indices)) != len(indices):
        raise malformed(f"an index above {MAX_INDEX}, no number, or one that stands twice")
    _hold_values(found, values)
    active = [at for at, each in enumerate(found) if each[1] == b"True"]
    if not all(values[at] for at in active):
        raise malformed("a measurement that is active and has no value")
    golden = {indices[at]: tuple(map(unhexlify, values[at])) for at in active}
    spellings = {(each[0], *parts[::2]) for each, parts in zip(found, written, strict=True)}
    return dict(sorted(golden.items())), spellings


def _hold_values(found: Sequence[Sequence[bytes]], values: Sequence[Sequence[bytes]]) -> None:
    """As many as each measurement states, each of the size that it states, in hex."""
    if [_NUMBERS.get(each[2]) for each in found] != [len(listed) for listed in values]:
        raise malformed("a measurement with another number of values than it states")
    digits = [2 * _NUMBERS.get(each[4], MAX_VALUE_BYTES + 1) for each in found]
    if max(digits, default=0) > 2 * MAX_VALUE_BYTES:
        raise malformed(f"a size above {MAX_VALUE_BYTES}, or no number")
    if any(len(value) != size for size, listed in zip(digits, values, strict=True) for value in listed):
        raise malformed("a value of another size than is stated")
    try:
        unhexlify(b"".join([value for listed in values for value in listed]))
    except ValueError:
        raise malformed("a value that is not hex") from None


def _sample(spelling: Spelling) -> bytes:
    """A measurement that is written so, less what it says: its names are understood once."""
    opening, *names = spelling
    return b"<%b%b></%b>" % (opening, b'""'.join(names), opening.partition(b" ")[0])
