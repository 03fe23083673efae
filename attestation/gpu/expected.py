"""What a relying party asks of NVIDIA devices (`[nvidia]` of expected.toml).

Floors, allow lists and modes have no default: they are stated, or waived with "any". Without a file only
`DEFAULT` is judged: form, origin, revocation, manifests and measurements.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from attestation.gpu.node.binding import BINDING_MODES, OWN_MODE
from attestation.gpu.pki.chain import FAMILIES
from attestation.gpu.pki.roots import NVIDIA_DEVICE_ROOT, NVIDIA_MANIFEST_ROOT, NVIDIA_ROOTS, Anchor, Roots
from attestation.gpu.rim.issues import Rules
from attestation.gpu.verify import version_of
from attestation.toml import ANY, Table
from schemas.errors import Unreadable
from schemas.primitives import parse_time

MODES: Final = ("single", "multi", "ppcie", "unstated")
"""`unstated`: older drivers do not say; whoever accepts that writes it down."""
MAX_DEVICES: Final = 64
MAX_EXPIRED_DAYS: Final = 3650
ANCHORS: Final[tuple[Anchor, ...]] = ("device", "manifest", "service")


@dataclass(frozen=True, slots=True)
class FabricRules:
    """What a node's devices must be together."""

    gpus: int | None = None
    switches: int | None = None
    """How many of each; None = not demanded."""
    topology: bool = False
    """Whether every link must be accounted for on both ends."""
    equal_drivers: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class GpuPolicy:
    """Everything that is asked of a device and of a node's devices. None = waived. Compared by identity."""

    driver_min: tuple[int, ...] | None = None
    vbios: frozenset[str] | None = None
    """Allowed versions, lower case, of GPUs and switches alike."""
    modes: frozenset[str] | None = None
    chips: frozenset[str] | None = None
    confidential: str = ANY
    """`required`: the guest must say, inside its own evidence, that the mode is on."""
    devtools: str = ANY
    fwid: str = "from-550"
    padding: str = "refuse"
    revocation: str = "required"
    hold: str = "refuse"
    token: str = "hint"  # noqa: S105 - a word, not a secret
    """`required`: a service token must come along and hold."""
    bindings: frozenset[str] = frozenset(BINDING_MODES)
    fabric: FabricRules = FabricRules()
    images: Mapping[bytes, int] = field(default_factory=dict)
    """Measurement of a guest image → how many GPUs a node that runs it must prove."""
    rim_signer_min: float | None = None
    rim_expired_days: int = 0
    roots: Roots = NVIDIA_ROOTS

    @property
    def manifests(self) -> Rules:
        return Rules(self.roots, self.rim_signer_min, self.rim_expired_days)


DEFAULT: Final = GpuPolicy()
"""What holds where nobody stated anything (DESIGN 7)."""


def read_nvidia(table: Table) -> GpuPolicy:
    """`[nvidia]`. Raises `ConfigurationError`."""
    expired = table.integer("rim_signer_expired_days", 0, MAX_EXPIRED_DAYS, 0)
    policy = GpuPolicy(
        driver_min=_driver(table),
        vbios=_vbios(table),
        modes=table.names("modes", MODES),
        chips=table.names("chips", tuple(FAMILIES), ANY),
        confidential=table.choice("confidential", ("required", ANY), "required"),
        devtools=table.choice("devtools", ("refuse", ANY), "refuse"),
        fwid=table.choice("fwid", ("required", "from-550", "if-present"), "from-550"),
        padding=table.choice("padding", ("refuse", "zero"), "refuse"),
        revocation=table.choice("revocation", ("required", ANY), "required"),
        hold=table.choice("hold", ("refuse", "accept-device"), "refuse"),
        token=table.choice("token", ("hint", "required"), "hint"),
        bindings=_bindings(table),
        fabric=_fabric(table),
        images=_images(table),
        rim_signer_min=_date(table),
        rim_expired_days=MAX_EXPIRED_DAYS if expired is None else expired,
        roots=_roots(table),
    )
    table.finish(except_for={"fabric", "images"})
    return policy


def _driver(table: Table) -> tuple[int, ...] | None:
    write = 'driver_min = "550.90.07"'
    value = table.take("driver_min", write=write)
    if table.is_any("driver_min", value):
        return None
    parts = version_of(value) if isinstance(value, str) else (-1,)
    if -1 in parts:
        raise table.error("driver_min", "is no version", write)
    return parts


def _vbios(table: Table) -> frozenset[str] | None:
    listed = table.texts("vbios", write='vbios = ["96.00.9f.00.01"]')
    return None if listed is None else frozenset(each.lower() for each in listed)


def _bindings(table: Table) -> frozenset[str]:
    """The modes in which CPU and devices may be tied; only ours unless others are listed."""
    listed = table.names("bindings", tuple(BINDING_MODES), [OWN_MODE])
    return frozenset(BINDING_MODES) if listed is None else listed


def _fabric(table: Table) -> FabricRules:
    """`[nvidia.fabric]`; without it no number is demanded and topology is shown, not judged."""
    if "fabric" not in table.values:
        return FabricRules()
    inside = table.child("fabric")
    rules = FabricRules(
        gpus=inside.integer("gpus", 0, MAX_DEVICES),
        switches=inside.integer("switches", 0, MAX_DEVICES),
        topology=inside.choice("topology", ("required", ANY), "required") == "required",
        equal_drivers=inside.choice("drivers", ("equal", ANY), "equal") == "equal",
    )
    inside.finish()
    return rules


def _images(table: Table) -> dict[bytes, int]:
    """`[nvidia.images]`: a guest image that works with GPUs is no such node without them (gpu.md 11)."""
    inside = table.child("images")
    images: dict[bytes, int] = {}
    for name in inside.values:
        count = inside.integer(name, 0, MAX_DEVICES)
        if not re.fullmatch(r"[0-9a-f]{96}", name) or count is None:
            raise inside.error(name, "is no measurement with a number", f'"{"ab" * 48}" = 1')
        images[bytes.fromhex(name)] = count
    return images


def _date(table: Table) -> float | None:
    write = 'rim_signer_min = "2025-06-01T00:00:00Z"'
    value = table.take("rim_signer_min", None, write=write)
    if value is None or table.is_any("rim_signer_min", value):
        return None
    try:
        return parse_time(str(value)).timestamp()
    except Unreadable as error:
        raise table.error("rim_signer_min", error.text, write) from None


def _roots(table: Table) -> Roots:
    """NVIDIA's, anchors of its service, and made-up roots by name and key digest (DESIGN 4, 15).

    No file can add a device or manifest root that would not say `simulated`.
    """
    listed: list[tuple[Anchor, str, str, bool]] = []
    for kind, simulated in (("root", False), ("simulated_root", True)):
        for each in table.children(kind):
            name = each.text("name", r"[\x21-\x7e]{1,64}", write='name = "demo"')
            allowed = "|".join(ANCHORS) if simulated else "service"
            anchor = each.text("anchor", allowed, write=f'anchor = "{allowed.split("|")[0]}"')
            write = 'spki_sha256 = "<SHA-256 of the root\'s key, 64 hex digits>"'
            digest = each.text("spki_sha256", r"[0-9a-f]{64}", write=write)
            each.finish()
            if digest in (NVIDIA_DEVICE_ROOT, NVIDIA_MANIFEST_ROOT):
                raise each.error("spki_sha256", "is a root of NVIDIA's", "the digest of another root")
            listed += [(known, name, digest, simulated) for known in ANCHORS if known == anchor]
    return Roots.nvidia(listed) if listed else NVIDIA_ROOTS
