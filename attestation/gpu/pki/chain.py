"""A device's five certificates, and which chip family they speak of (gpu.md 3, 4).

Leaf (signs reports), the chip's boot ROM, provisioner, family identity, root. Nothing is built or
searched: the device delivers them in this order.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

from attestation.gpu.pki.constraints import FWID_HOPPER, TCB_INFO, stated
from attestation.pki import der
from attestation.pki.der import encode_oid
from attestation.pki.x509 import Certificate, read_certificate
from schemas.errors import Refused, Unreadable

CHAIN_LENGTH: Final = 5
CACHED_CHAINS: Final = 4096  # one per device, about 300 bytes beside its certificates
MAX_CHAIN_BYTES: Final = 5120  # the driver's buffer for the attestation chain
_SHA384: Final = encode_oid("2.16.840.1.101.3.4.2.2")
_SAN: Final = encode_oid("2.5.29.17")
_SAN_OID: Final = encode_oid("1.3.6.1.4.1.412.274.1")  # DMTF device information, DSP0274 10.6.1
_LEAF: Final = re.compile(r"(?P<chip>[A-Z0-9_]+) (?P<stepping>[A-Z]\d\d) (?P<unit>GSP|FSP) FMC LF")
_PDI_PREFIXES: Final = {("gpu", "GSP"): 0x41, ("gpu", "FSP"): 0x40, ("switch", "FSP"): 0x50}
"""First byte of the serial of a boot ROM's certificate, by device and the processor in it that reports.

The other eight are the device's PDI (gpu.md 11)."""


@dataclass(frozen=True, slots=True, eq=False)
class Family:
    """One chip family and how it is spelt in the five certificates, the report and the manifests.

    Compared by identity: there is one of each.
    """

    chip: str
    """In leaf, alternative name and boot ROM."""
    provisioner: re.Pattern[str]
    identity: str
    products: frozenset[str]
    """In manifests, and in the report's chip info."""
    kind: Literal["gpu", "switch"]
    architecture: Literal["hopper", "blackwell", "ls10"]


def _family(
    chip: str,
    provisioner: str,
    identity: str,
    products: Sequence[str],
    kind: Literal["gpu", "switch"],
    architecture: Literal["hopper", "blackwell", "ls10"],
) -> Family:
    named = re.compile(rf"NVIDIA {provisioner} Provisioner ICA \d+")
    return Family(chip, named, f"NVIDIA {identity} Identity", frozenset(products), kind, architecture)


FAMILIES: Final = {
    family.chip: family
    for family in (
        _family("GH100", "GH100", "GH100", ["GH100"], "gpu", "hopper"),
        _family("GB100", "GB100", "GB100", ["GB100", "GB102"], "gpu", "blackwell"),
        _family("GB20X", r"GB20[0-9X]", "GB20X", [f"GB20{n}" for n in "X234567"], "gpu", "blackwell"),
        _family("LS_10", "LS_10", "GH100", ["LS10"], "switch", "ls10"),
    )
}
"""By the chip in the leaf's name. A switch sits below Hopper's identity."""


@dataclass(frozen=True, slots=True, eq=False)
class DeviceChain:
    """The certificates as delivered. Nothing in them has been verified. Compared by identity."""

    leaf: Certificate
    brom: Certificate
    provisioner: Certificate
    identity: Certificate
    root: Certificate

    @property
    def certificates(self) -> tuple[Certificate, ...]:
        return self.leaf, self.brom, self.provisioner, self.identity, self.root

    @property
    def ueid(self) -> str:
        """The device's name: the leaf's serial in decimal."""
        return str(self.leaf.serial)

    @property
    def pdi(self) -> bytes | None:
        """The physical device id that the boot ROM's certificate carries (8 bytes)."""
        serial = self.brom.serial
        if not 0 < serial < 1 << 72 or serial >> 64 not in _PDI_PREFIXES.values():
            return None
        return (serial & (1 << 64) - 1).to_bytes(8)


@lru_cache(maxsize=CACHED_CHAINS)
def read_chain(certificates: tuple[bytes, ...]) -> DeviceChain:
    """Five DER certificates, leaf first. Raises `Refused` (`gpu.chain_wrong_length`, `_malformed`)."""
    if len(certificates) != CHAIN_LENGTH:
        raise Refused("gpu.chain_wrong_length", f"{len(certificates)} certificates, not {CHAIN_LENGTH}")
    if sum(map(len, certificates)) > MAX_CHAIN_BYTES:
        raise Refused("gpu.chain_malformed", f"more than {MAX_CHAIN_BYTES} bytes")
    try:
        return DeviceChain(*(read_certificate(each) for each in certificates))
    except Unreadable as error:
        raise Refused("gpu.chain_malformed", error.text) from None


@lru_cache(maxsize=CACHED_CHAINS)
def family_of(chain: DeviceChain) -> Family:
    """The one family that all names speak of. Raises `Refused` (`gpu.chain_family_mismatch`)."""
    leaf = _LEAF.fullmatch(chain.leaf.common_name)
    family = FAMILIES.get(leaf["chip"]) if leaf else None
    if leaf is None or family is None:
        raise _mismatch(f"{chain.leaf.common_name} is no leaf of a known chip")
    if chain.brom.common_name != f"{leaf['chip']} {leaf['stepping']} {leaf['unit']} BROM":
        raise _mismatch(f"{chain.leaf.common_name} below {chain.brom.common_name}")
    if not family.provisioner.fullmatch(chain.provisioner.common_name):
        raise _mismatch(f"{family.chip} below {chain.provisioner.common_name}")
    if chain.identity.common_name != family.identity:
        raise _mismatch(f"{family.chip} below {chain.identity.common_name}")
    if chain.brom.serial >> 64 != _PDI_PREFIXES.get((family.kind, leaf["unit"])):
        unit = f"the {leaf['unit']} of a {family.kind}"
        raise _mismatch(f"boot ROM serial {chain.brom.serial:x} is not that of {unit}")
    named = alternative_chip(chain.leaf)
    if named != family.chip:
        raise _mismatch(f"{family.chip}, but its alternative name says {named}")
    return family


def alternative_chip(leaf: Certificate) -> str | None:
    """The chip in `NVIDIA:<chip>:<id>` of the leaf's alternative name (DSP0274 10.6.1)."""
    value = stated(leaf.der).values.get(_SAN)
    if value is None:
        return None
    try:
        (name,) = der.children(value)
        oid, text = der.children(name)
        maker, chip, _ = der.split(der.split(text)[1])[1].decode("ascii").split(":")
    except (Unreadable, ValueError):
        return None
    return chip if oid == _SAN_OID and maker == "NVIDIA" else None


@lru_cache(maxsize=CACHED_CHAINS)
def leaf_fwid(chain: DeviceChain) -> bytes | None:
    """The firmware digest that the boot ROM certified (48 bytes); None where it names none.

    Raises `Refused` (`gpu.chain_malformed`) where the extension is there and cannot be read.
    """
    values = stated(chain.leaf.der).values
    try:
        if FWID_HOPPER in values:
            return _digest(der.children(values[FWID_HOPPER])[-1])  # the last member (gpu.md 4)
        if TCB_INFO in values:
            return _tcb_info(values[TCB_INFO])
    except (Unreadable, IndexError):
        raise Refused("gpu.chain_malformed", "a firmware id that cannot be read") from None
    return None


def _tcb_info(value: bytes) -> bytes | None:
    """fwids [6] of DiceTcbInfo: the first of the list (DICE Attestation Architecture 6.1.1)."""
    for member in der.children(value):
        if member[:1] == b"\xa6":
            return _digest(der.children(member)[0])
    return None


def _digest(fwid: bytes) -> bytes:
    """Fwid ::= SEQUENCE { hashAlg OBJECT IDENTIFIER, digest OCTET STRING }."""
    parts = der.children(fwid)
    tag, digest = der.split(parts[1])
    if len(parts) != 2 or parts[0] != _SHA384 or tag != 0x04 or len(digest) != 48:
        raise Unreadable("gpu.fwid", "not a SHA-384 digest")
    return digest


def _mismatch(why: str) -> Refused:
    return Refused("gpu.chain_family_mismatch", why)
