"""What a PCK certificate says about its platform: Intel's SGX extension, 1.2.840.113741.1.13.1.

Read strictly (X.690 10.1: minimal lengths, each member once, nothing behind the last), and only for
certificates whose chain is held elsewhere (tdx/origin/chain.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from attestation.der import encode_oid
from schemas.errors import Refused

SGX_EXTENSION: Final = encode_oid("1.2.840.113741.1.13.1")
COMPONENTS: Final = 16  # SGX TCB component SVNs
SGX_TYPES: Final = {0: "standard", 1: "scalable", 2: "scalable with integrity"}

_INTEGER, _OCTETS, _ENUMERATED, _BOOLEAN = b"\x02", b"\x04", b"\x0a", b"\x01"
_LENGTH: Final = rb"([\x00-\x7f]|\x81[\x80-\xff]|\x82[\x01-\xff].)"  # X.690 10.1: the fewest octets
_SEQUENCE: Final = re.compile(rb"\x30" + _LENGTH, re.DOTALL)


def _member_under(*arcs: int) -> re.Pattern[bytes]:
    """SEQUENCE { OID, value } up to the value's content: its length, last arc, tag, the value's length."""
    arc = SGX_EXTENSION[2:] + bytes(arcs)
    oid = re.escape(bytes((0x06, len(arc) + 1)) + arc) + rb"(.)"
    return re.compile(rb"\x30" + _LENGTH + oid + rb"(.)" + _LENGTH, re.DOTALL)


_ALL: Final = _member_under()
_TCB: Final = _member_under(2)
_CONFIGURATION: Final = _member_under(7)

_Value = tuple[bytes, bytes]
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
    head = _SEQUENCE.match(value)
    if head is None:
        raise _invalid("not a SEQUENCE")
    if head.end() + _size(head[1]) != len(value):
        raise _invalid("the SEQUENCE does not fill the extension")
    members = _members(value[head.end() :], _ALL)
    tcb = _members(_content(_required(members, 2), b"\x30"), _TCB)
    configuration = _members(_content(members[7], b"\x30"), _CONFIGURATION) if 7 in members else {}
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


def _members(content: bytes, member: re.Pattern[bytes]) -> dict[int, _Value]:
    """Last arc → value of every member, each once, that together fill the content."""
    found: dict[int, _Value] = {}
    at = 0
    while at < len(content):
        head = member.match(content, at)
        if head is None:
            raise _invalid("a member that is no pair under Intel's arc")
        whole, arc, tag, size = head.groups()
        start = head.end()
        at = start + _size(size)
        if at > len(content) or head.end(1) + _size(whole) != at:
            raise _invalid("a member whose lengths disagree")
        if arc[0] in found:
            raise _invalid(f"member {arc[0]} is repeated")
        found[arc[0]] = tag, content[start:at]
    return found


def _size(length: bytes) -> int:
    """What the octets of a length say; `_LENGTH` lets through short and long form (X.690 8.1.3)."""
    return length[0] if len(length) == 1 else int.from_bytes(length[1:])


def _required(members: dict[int, _Value], index: int) -> _Value:
    if index not in members:
        raise _invalid(f"member {index} is missing")
    return members[index]


def _content(value: _Value, tag: bytes) -> bytes:
    if value[0] != tag:
        raise _invalid(f"tag {value[0].hex()} instead of {tag.hex()}")
    return value[1]


def _octets(value: _Value, size: int) -> bytes:
    content = _content(value, _OCTETS)
    if len(content) != size:
        raise _invalid(f"not {size} octets")
    return content


def _number(value: _Value, most: int, kind: bytes = _INTEGER) -> int:
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
