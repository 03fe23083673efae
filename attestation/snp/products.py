"""The product lines of SEV-SNP: which CPUs they are, how they count their TCB, which root is AMD's.

Digests of the three AMD roots are the only trust anchors in this file. They were compared across
independent public copies; a certificate file is never trusted for being a file (DESIGN 4).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

CHIP_ID_BYTES: Final = 64


@dataclass(frozen=True, slots=True)
class TcbLayout:
    """Where each security patch level stands in the eight bytes of a TCB_VERSION (AMD 56860, table 3)."""

    parts: tuple[tuple[str, int], ...]
    """(part, byte position), in the order in which people read them."""
    reserved: tuple[int, ...]
    """Byte positions that must be zero."""

    def read(self, raw: bytes) -> dict[str, int]:
        """Part by part; a TCB is never compared as one integer."""
        return {part: raw[position] for part, position in self.parts}

    def has_reserved(self, raw: bytes) -> bool:
        """Whether a part that must be zero is not."""
        return any(raw[position] for position in self.reserved)

    def write(self, parts: Mapping[str, int]) -> bytes:
        """The inverse of `read`."""
        raw = bytearray(8)
        for part, position in self.parts:
            raw[position] = parts.get(part, 0)
        return bytes(raw)


FOUR_PARTS: Final = TcbLayout((("bl", 0), ("tee", 1), ("snp", 6), ("ucode", 7)), (2, 3, 4, 5))
FIVE_PARTS: Final = TcbLayout((("fmc", 0), ("bl", 1), ("tee", 2), ("snp", 3), ("ucode", 7)), (4, 5, 6))


@dataclass(frozen=True, slots=True)
class Pin:
    """A trust anchor: SHA-256 of the certificate and of its SubjectPublicKeyInfo, in hex."""

    der: str
    spki: str | None
    """None for a simulated root, which is listed by its certificate alone."""
    simulated: bool = False
    name: str = "AMD"


@dataclass(frozen=True, slots=True)
class Product:
    """One product line."""

    name: str
    layout: TcbLayout
    hwid_bytes: int
    """Length of hwID in the VCEK: the rest of CHIP_ID must be zero."""
    pin: Pin | None
    """None where AMD has published no root yet."""

    @property
    def ark(self) -> str:
        return f"ARK-{self.name}"

    @property
    def ask(self) -> str:
        return f"SEV-{self.name}"

    @property
    def asvk(self) -> str:
        return f"SEV-VLEK-{self.name}"


MILAN: Final = Product(
    "Milan",
    FOUR_PARTS,
    64,
    Pin(
        "69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd",
        "9f056bee44377e29308cb5ffa895bdfb62d18881fa6bed8d6f075b0204089cb9",
    ),
)
GENOA: Final = Product(
    "Genoa",
    FOUR_PARTS,
    64,
    Pin(
        "4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1",
        "429a69c9422aa258ee4d8db5fcda9c6470ef15f8cd5a9cebd6cbc7d90b863831",
    ),
)
TURIN: Final = Product(
    "Turin",
    FIVE_PARTS,
    8,
    Pin(
        "1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a",
        "4f125410563a2ab9a50356f9243f6fe0b6f73de98603f53f90339c70e9d7ad08",
    ),
)
VENICE: Final = Product("Venice", FIVE_PARTS, 8, None)

PRODUCTS: Final = {product.name: product for product in (MILAN, GENOA, TURIN, VENICE)}

_MODELS: Final = (
    # (family, first model, last model, product, line), ranges inclusive, steppings ignored
    (0x19, 0x00, 0x0F, MILAN, "Milan"),
    (0x19, 0x10, 0x1F, GENOA, "Genoa"),
    (0x19, 0xA0, 0xAF, GENOA, "Bergamo or Siena"),
    (0x1A, 0x00, 0x11, TURIN, "Turin"),
    (0x1A, 0x50, 0x57, VENICE, "Venice"),
    (0x1A, 0x90, 0x9F, VENICE, "Venice"),
    (0x1A, 0xA0, 0xAF, VENICE, "Venice"),
    (0x1A, 0xC0, 0xC7, VENICE, "Venice"),
)


def product_of_cpuid(family: int, model: int) -> Product | None:
    """The product line of a CPU; None for one that is not known, which is never guessed at."""
    for known, first, last, product, _ in _MODELS:
        if family == known and first <= model <= last:
            return product
    return None


def line_of_cpuid(family: int, model: int) -> str:
    """The name that people use for a CPU, for display."""
    for known, first, last, _, line in _MODELS:
        if family == known and first <= model <= last:
            return line
    return "unknown"


_INTERMEDIATES: Final = {
    **{product.ask: (product, "VCEK") for product in PRODUCTS.values()},
    **{product.asvk: (product, "VLEK") for product in PRODUCTS.values()},
}


def product_of_intermediate(common_name: str) -> tuple[Product, str] | None:
    """(product, signing key) that an intermediate's exact name stands for."""
    return _INTERMEDIATES.get(common_name)
