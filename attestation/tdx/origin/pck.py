"""What a PCK certificate says about its platform: Intel's SGX extension, 1.2.840.113741.1.13.1.

Read strictly (X.690 10.1: minimal lengths, each member once, nothing behind the last), and only for
certificates whose chain is held elsewhere (tdx/origin/chain.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from attestation import der
from attestation.der import encode_oid
from schemas.errors import Refused, Unreadable

SGX_EXTENSION: Final = encode_oid("1.2.840.113741.1.13.1")
COMPONENTS: Final = 16  # SGX TCB component SVNs
MAX_MEMBERS: Final = 32  # the TCB member has 18, the whole 7
SGX_TYPES: Final = {0: "standard", 1: "scalable", 2: "scalable with integrity"}

_ARC: Final = SGX_EXTENSION[2:]
_INTEGER, _OCTETS, _ENUMERATED, _BOOLEAN, _OID = 0x02, 0x04, 0x0A, 0x01, 0x06


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
    try:
        return _claims(_members(value, ()))
    except Unreadable as error:
        raise _invalid(error.text) from None


def _claims(members: dict[int, bytes]) -> PckClaims:
    tcb = _members(_required(members, 2), (2,))
    configuration = _members(members[7], (7,)) if 7 in members else {}
    sgx_type = _number(_required(members, 5), 255, _ENUMERATED)
    if sgx_type not in SGX_TYPES:
        raise _invalid(f"SGX type {sgx_type}")
    return PckClaims(
        ppid=_octets(_required(members, 1), 16),
        components=tuple(_number(_required(tcb, index), 255) for index in range(1, COMPONENTS + 1)),
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


def _members(value: bytes, below: Sequence[int]) -> dict[int, bytes]:
    """Last arc → value of a SEQUENCE of SEQUENCE { OID, value } under Intel's arc."""
    arc = _ARC + bytes(below)
    named = bytes((_OID, len(arc) + 1)) + arc  # the OID's element, up to its last arc
    found: dict[int, bytes] = {}
    for pair in _sequence(value, MAX_MEMBERS):
        parts = _sequence(pair, 2)
        if len(parts) != 2:
            raise _invalid("a member that is not a pair")
        oid, element = parts
        if len(oid) != len(named) + 1 or not oid.startswith(named):
            raise _invalid("a member outside Intel's arc")
        if oid[-1] in found:
            raise _invalid(f"member {oid[-1]} is repeated")
        found[oid[-1]] = element
    return found


def _split(element: bytes) -> tuple[int, bytes]:
    """(tag, content), with a length in the fewest octets (X.690 10.1)."""
    if len(element) >= 2 and element[1] == len(element) - 2 and element[1] < 0x80:
        return element[0], element[2:]  # the short form, nearly always
    tag, content = der.split(element)
    octets = len(element) - len(content) - 2
    if octets and (element[2] == 0 or len(content) < 0x80):
        raise _invalid("a length that is not minimal")
    return tag, content


def _sequence(element: bytes, limit: int) -> list[bytes]:
    if len(element) < 2 or element[1] >= 0x80:
        _split(element)
    if element[:1] != b"\x30":
        raise _invalid("not a SEQUENCE")
    return der.children(element, limit)


def _required(members: dict[int, bytes], index: int) -> bytes:
    if index not in members:
        raise _invalid(f"member {index} is missing")
    return members[index]


def _octets(element: bytes, size: int) -> bytes:
    tag, content = _split(element)
    if tag != _OCTETS or len(content) != size:
        raise _invalid(f"not {size} octets")
    return content


def _number(element: bytes, most: int, kind: int = _INTEGER) -> int:
    """A minimal INTEGER or ENUMERATED of 0..most (X.690 8.3)."""
    tag, content = _split(element)
    padded = len(content) > 1 and content[0] == 0 and content[1] < 0x80
    if tag != kind or not content or content[0] >= 0x80 or padded or int.from_bytes(content) > most:
        raise _invalid(f"not a number of 0..{most}")
    return int.from_bytes(content)


def _flag(members: dict[int, bytes], index: int) -> bool | None:
    if index not in members:
        return None
    tag, content = _split(members[index])
    if tag != _BOOLEAN or content not in (b"\x00", b"\xff"):  # X.690 11.1
        raise _invalid("not a BOOLEAN")
    return content == b"\xff"


def _invalid(why: str) -> Refused:
    return Refused("tdx.pck_extension_invalid", why)
