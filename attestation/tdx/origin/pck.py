"""What a PCK certificate says about its platform: Intel's SGX extension, 1.2.840.113741.1.13.1.

Read strictly (X.690 10.1: minimal lengths, each member once, nothing behind the last), and only for
certificates whose chain is held elsewhere (tdx/origin/chain.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from attestation.pki.der import encode_oid
from schemas.errors import Refused

SGX_EXTENSION: Final = encode_oid("1.2.840.113741.1.13.1")
COMPONENTS: Final = 16  # SGX TCB component SVNs
SGX_TYPES: Final = {0: "standard", 1: "scalable", 2: "scalable with integrity"}

_SEQUENCE, _INTEGER, _OCTETS, _ENUMERATED, _BOOLEAN = 0x30, 0x02, 0x04, 0x0A, 0x01


def _arcs(*under: int) -> bytes:
    """A member's OID up to its last arc, which is one octet and not among what is given here."""
    content = SGX_EXTENSION[2:] + bytes(under)
    return bytes((0x06, len(content) + 1)) + content


_ALL: Final = _arcs()
_TCB: Final = _arcs(2)
_CONFIGURATION: Final = _arcs(7)

_LEAST_LENGTH: Final = {0x81: 0x80, 0x82: 0x100}
"""Long forms of a length, which a shorter form must not be able to say; nothing here takes a third octet."""

_Value = tuple[int, bytes]
"""(tag, content)"""


@dataclass(frozen=True, slots=True)
class PckClaims:
    """The platform that a PCK certificate was made for."""

    ppid: bytes
    components: tuple[int, ...]
    """16 SGX TCB component SVNs."""
    pcesvn: int
    cpusvn: bytes
    """Informational: the components are what is compared."""
    pceid: bytes
    fmspc: bytes
    sgx_type: int
    platform_instance: bytes | None
    dynamic_platform: bool | None
    cached_keys: bool | None
    smt_enabled: bool | None
    """The last four stand in certificates of the Platform CA alone."""


def read_pck(value: bytes) -> PckClaims:
    """Read the extension's value. Raises `Refused` (`tdx.pck_extension_invalid`) and nothing else."""
    start, end = _bounds(value, 0)
    if value[0] != _SEQUENCE or end != len(value):
        raise _invalid("no SEQUENCE that fills the extension")
    members = _members(value[start:], _ALL)
    tcb = _members(_content(_required(members, 2), _SEQUENCE), _TCB)
    configuration = _members(_content(members[7], _SEQUENCE), _CONFIGURATION) if 7 in members else {}
    sgx_type = _number(_required(members, 5), 255, _ENUMERATED)
    if sgx_type not in SGX_TYPES:
        raise _invalid(f"SGX type {sgx_type}")
    return PckClaims(
        ppid=_octets(_required(members, 1), 16),
        components=tuple([_number(_required(tcb, index), 255) for index in range(1, COMPONENTS + 1)]),
        pcesvn=_number(_required(tcb, 17), 65535),
        cpusvn=_octets(_required(tcb, 18), 16),
        pceid=_octets(_required(members, 3), 2),
        fmspc=_octets(_required(members, 4), 6),
        sgx_type=sgx_type,
        platform_instance=_octets(members[6], 16) if 6 in members else None,
        dynamic_platform=_flag(configuration, 1),
        cached_keys=_flag(configuration, 2),
        smt_enabled=_flag(configuration, 3),
    )


def _members(content: bytes, arcs: bytes) -> dict[int, _Value]:
    """Last arc → value of the pairs SEQUENCE { OID, value }, each once, that together fill the content."""
    found: dict[int, _Value] = {}
    at, ahead = 0, len(arcs)
    while at < len(content):
        inside, following = _bounds(content, at)
        last = inside + ahead  # where the last arc stands, before the value
        if content[at] != _SEQUENCE or content[inside:last] != arcs:
            raise _invalid("a member that is no pair under Intel's arc")
        start, end = _bounds(content, last + 1)
        if end != following or end > len(content):
            raise _invalid("a member whose lengths disagree")
        arc = content[last]
        if arc in found:
            raise _invalid(f"member {arc} is repeated")
        found[arc] = content[last + 1], content[start:end]
        at = end
    return found


def _bounds(data: bytes, at: int) -> tuple[int, int]:
    """Where the content of the element at `at` begins and ends, by the fewest octets (X.690 10.1)."""
    try:
        size = data[at + 1]
    except IndexError:
        raise _invalid("cut short") from None
    if size < 0x80:  # nearly always
        return at + 2, at + 2 + size
    start = at + 2 + (size & 0x7F)
    length = int.from_bytes(data[at + 2 : start])
    if length < _LEAST_LENGTH.get(size, length + 1):
        raise _invalid("a length that is not in DER")
    return start, start + length


def _required(members: dict[int, _Value], index: int) -> _Value:
    if index not in members:
        raise _invalid(f"member {index} is missing")
    return members[index]


def _content(value: _Value, tag: int) -> bytes:
    if value[0] != tag:
        raise _invalid(f"tag {value[0]:02x} instead of {tag:02x}")
    return value[1]


def _octets(value: _Value, size: int) -> bytes:
    content = _content(value, _OCTETS)
    if len(content) != size:
        raise _invalid(f"not {size} octets")
    return content


def _number(value: _Value, most: int, kind: int = _INTEGER) -> int:
    """A minimal INTEGER or ENUMERATED of 0..most (X.690 8.3)."""
    tag, content = value
    if tag == kind and len(content) == 1 and content[0] < 0x80 and content[0] <= most:
        return content[0]  # nearly always
    padded = len(content) > 1 and content[0] == 0 and content[1] < 0x80
    if tag != kind or not content or content[0] >= 0x80 or padded or int.from_bytes(content) > most:
        raise _invalid(f"not a number of 0..{most}")
    return int.from_bytes(content)


def _flag(members: dict[int, _Value], index: int) -> bool | None:
    if index not in members:
        return None
    content = _content(members[index], _BOOLEAN)
    if content not in (b"\x00", b"\xff"):  # X.690 11.1
        raise _invalid("not a BOOLEAN")
    return content == b"\xff"


def _invalid(why: str) -> Refused:
    return Refused("tdx.pck_extension_invalid", why)
