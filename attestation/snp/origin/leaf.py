"""What a VCEK or VLEK says about itself: AMD's certificate extensions (AMD 57230, VCEK extensions).

Read after the chain holds; before that only as a hint for choosing among several certificates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from attestation.pki.der import encode_oid
from attestation.pki.x509 import Certificate, extensions_of
from attestation.snp.products import FIVE_PARTS, Product
from schemas.errors import Refused, Unreadable

_ARC: Final = "1.3.6.1.4.1.3704.1."
STRUCT_VERSION: Final = _ARC + "1"
PRODUCT_NAME: Final = _ARC + "2"
SPL: Final = {"bl": _ARC + "3.1", "tee": _ARC + "3.2", "snp": _ARC + "3.3", "ucode": _ARC + "3.8",
              "fmc": _ARC + "3.9"}  # fmt: skip
HWID: Final = _ARC + "4"
CSP_ID: Final = _ARC + "5"
_ENCODED: Final = {
    encode_oid(oid): oid for oid in (STRUCT_VERSION, PRODUCT_NAME, *SPL.values(), HWID, CSP_ID)
}
MAX_TEXT_BYTES: Final = 127  # short-form length: product names and CSP names are far below


@dataclass(frozen=True, slots=True)
class LeafClaims:
    """The extensions of one leaf, with the product's TCB layout applied."""

    struct_version: int
    product_name: str
    tcb: Mapping[str, int]
    raw_tcb: bytes
    """As the report spells it."""
    hwid: bytes | None
    """None in a VLEK, which is bound to a cloud provider and to no chip."""
    csp_id: str | None
    tcb_text: str
    """For people: the parts in order."""


def read_leaf(certificate: Certificate, product: Product, kind: str) -> LeafClaims:
    """Read and hold the extension set against the kind of leaf. Raises `Refused`, `snp.cert.*`."""
    found = _by_oid(certificate)
    hwid, csp = found.get(HWID), found.get(CSP_ID)
    if (hwid if kind == "VLEK" else csp) is not None:
        raise Refused("snp.cert.signer_mismatch", f"a {kind} with the other kind's extension")
    if (csp if kind == "VLEK" else hwid) is None:
        raise Refused("snp.cert.extension_missing", "CSP_ID" if kind == "VLEK" else "hwID")
    if hwid is not None and len(hwid) != product.hwid_bytes:
        # Decided by length: an id may well begin with the octets of an OCTET STRING header.
        raise Refused("snp.cert.product_mismatch", f"hwID of {len(hwid)} bytes on {product.name}")
    if SPL["fmc"] in found and product.layout is not FIVE_PARTS:
        raise Refused("snp.cert.product_mismatch", f"an FMC level on {product.name}")
    tcb = {part: _integer(_required(found, SPL[part], part)) for part, _ in product.layout.parts}
    return LeafClaims(
        struct_version=_integer(_required(found, STRUCT_VERSION, "structVersion")),
        product_name=_text(_required(found, PRODUCT_NAME, "productName")),
        tcb=tcb,
        raw_tcb=product.layout.write(tcb),
        hwid=hwid,
        csp_id=None if csp is None else _text(csp),
        tcb_text=tcb_text(tcb),
    )


def tcb_text(tcb: Mapping[str, int]) -> str:
    """`bl 4, tee 0, snp 24, ucode 219`."""
    return ", ".join(f"{part} {level}" for part, level in tcb.items())


def _by_oid(certificate: Certificate) -> dict[str, bytes]:
    """Extension values by whole OID: a prefix or last-arc match would confuse .3.1 with others."""
    try:
        extensions = extensions_of(certificate)
    except Unreadable as error:
        repeated = error.code == "x509.extension_repeated"
        code = "snp.cert.extension_repeated" if repeated else "snp.cert.malformed"
        raise Refused(code, error.text) from None
    found: dict[str, bytes] = {}
    for oid, (critical, value) in extensions.items():
        if (known := _ENCODED.get(oid)) is not None:
            found[known] = value
        elif critical:  # RFC 5280 4.2: an unknown critical extension refuses
            raise Refused("snp.cert.malformed", f"an unknown critical extension {oid.hex()}")
    return found


def _required(found: Mapping[str, bytes], oid: str, name: str) -> bytes:
    if oid not in found:
        raise Refused("snp.cert.extension_missing", name)
    return found[oid]


def _integer(value: bytes) -> int:
    """Minimal DER INTEGER of 0..255 with nothing behind it (X.690 8.3)."""
    if len(value) == 3 and value[:2] == b"\x02\x01" and value[2] < 0x80:
        return value[2]
    if len(value) == 4 and value[:3] == b"\x02\x02\x00" and value[3] >= 0x80:
        return value[3]
    raise Refused("snp.cert.malformed", "a level that is not a minimal INTEGER of 0..255")


def _text(value: bytes) -> str:
    """DER IA5String in the short form."""
    if len(value) < 2 or value[0] != 0x16 or value[1] > MAX_TEXT_BYTES or len(value) != 2 + value[1]:
        raise Refused("snp.cert.malformed", "a name that is not an IA5String")
    if not all(0x20 <= byte < 0x7F for byte in value[2:]):
        raise Refused("snp.cert.malformed", "a name with unprintable characters")
    return value[2:].decode("ascii")
