"""Which issue of a manifest counts: an id names many documents, all validly signed (gpu.md 6).

Issues that fail signature, chain, product or time are dropped; of the rest the newest signer's that the
report matches is used. Values of two issues are never merged, and every outcome is reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from attestation.gpu.pki.chain import Family
from attestation.gpu.pki.roots import Roots
from attestation.gpu.rim.golden import Mismatch, compare, holds
from attestation.gpu.rim.manifest import NVIDIA_ID, Manifest, stated_version, verify_manifest
from attestation.gpu.spdm.firmware import Firmware
from attestation.pki.pins import Pin
from schemas.canonical import sha256
from schemas.errors import Refused

MAX_ISSUES: Final = 16  # of one manifest that are verified for one device
SECONDS_A_DAY: Final = 86_400


class Offer(NamedTuple):
    """A manifest as it was offered: its bytes, and the id under which a service gave it."""

    data: bytes
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Slot:
    """One manifest that a report needs."""

    name: Literal["driver", "vbios", "bios"]
    id: str
    version: str


@dataclass(frozen=True, slots=True)
class Rules:
    """What a relying party asks of manifests."""

    roots: Roots
    signer_min: float | None = None
    """POSIX seconds before which no signer's certificate may begin: old issues bless old firmware."""
    expired_days: int = 0
    """For how long a signer that has ended is still accepted; the result then says so."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """What came of one slot."""

    slot: Slot
    manifest: Manifest | None
    """The issue that is used; None where none can be."""
    problem: Refused | None = None
    """Why none can be; None with no manifest = none was offered."""
    mismatches: list[Mismatch] = field(default_factory=list)
    outcomes: dict[str, str] = field(default_factory=dict)
    """SHA-256 of each issue that was looked at → what came of it."""
    expired: bool = False
    pin: Pin | None = None
    """The root of the manifest that is used."""


def slots_of(firmware: Firmware, family: Family) -> list[Slot]:
    """The manifests that this firmware needs (gpu.md 6, ids)."""
    vbios, driver = firmware.vbios, firmware.driver
    plain = vbios.replace(".", "").upper()
    if family.kind == "switch":
        return [Slot("bios", f"NV_SWITCH_BIOS_5612_0002_890_{plain}", vbios)]
    chip = firmware.chip or "GB100"
    named = f"GPU_CC_DRIVER_{chip}" if family.architecture == "blackwell" else f"GPU_DRIVER_{family.chip}"
    return [
        Slot("driver", f"NV_{named}_{driver}", driver),
        Slot("vbios", f"NV_GPU_VBIOS_{firmware.board}_{plain}", vbios),
    ]


def choose(
    slot: Slot, offers: Sequence[Offer], firmware: Firmware, family: Family, rules: Rules, at: float
) -> Chosen:
    """The newest issue that holds and that the device matches, else the newest that holds."""
    outcomes: dict[str, str] = {}
    usable: list[Manifest] = []
    problem: Refused | None = None
    for offer in concerning(slot, offers):
        try:
            manifest = hold_issue(verify_manifest(offer.data), slot, firmware, family, rules, at)
        except Refused as error:
            outcomes[sha256(offer.data).hex()] = error.code
            problem = problem or error
        else:
            usable.append(manifest)
    if not usable:
        return Chosen(slot, None, problem, outcomes=outcomes)
    usable.sort(key=lambda manifest: manifest.signed_from, reverse=True)
    compared = [(manifest, compare(manifest.golden, firmware)) for manifest in usable]
    outcomes |= {m.digest: "matches" if holds(found) else "differs" for m, found in compared}
    manifest, found = next((pair for pair in compared if holds(pair[1])), compared[0])
    pin = rules.roots.pin_of(manifest.chain[-1], "manifest")
    return Chosen(slot, manifest, None, found, outcomes, expired=at > manifest.ends, pin=pin)


def concerning(slot: Slot, offers: Sequence[Offer]) -> list[Offer]:
    """The issues that are tried for it."""
    return [each for each in offers if _concerns(each, slot)][:MAX_ISSUES]


def _concerns(offer: Offer, slot: Slot) -> bool:
    """By the service's id, else by the version that it states; what cannot be read concerns everyone."""
    if offer.id is not None:
        return offer.id.upper() == slot.id.upper()
    version = stated_version(offer.data)
    return version is None or version.upper() == slot.version.upper()


def hold_issue(
    manifest: Manifest, slot: Slot, firmware: Firmware, family: Family, rules: Rules, at: float
) -> Manifest:
    """The manifest, if it speaks of this device at this time. Raises `Refused` (`gpu.rim_*`)."""
    hold_root(manifest, rules, at)
    named = {firmware.chip, family.chip}
    products = family.products if firmware.chip is None else family.products & named
    edition = "SWITCH" if family.kind == "switch" else "GPU"
    if (
        manifest.product.upper() not in products
        or manifest.name.upper() not in products
        or manifest.edition.upper() != edition
        or manifest.manufacturer != NVIDIA_ID
    ):
        stated = f"{manifest.product}, {manifest.name}, {manifest.edition}, maker {manifest.manufacturer}"
        raise Refused("gpu.rim_product_mismatch", f"{stated} for {edition} {', '.join(sorted(products))}")
    if manifest.version.upper() != slot.version.upper():
        raise Refused("gpu.rim_version_mismatch", f"{manifest.version} for {slot.version}")
    return manifest


def hold_root(manifest: Manifest, rules: Rules, at: float) -> Manifest:
    """The manifest, under a pinned root and in date. Raises `Refused` (`gpu.rim_*`)."""
    try:
        rules.roots.pin_of(manifest.chain[-1], "manifest")
    except Refused as error:
        raise Refused("gpu.rim_chain_untrusted", error.text) from None
    if at < manifest.begins:
        raise Refused("gpu.rim_signer_not_yet_valid", manifest.chain[0].common_name)
    if at > manifest.ends + rules.expired_days * SECONDS_A_DAY:
        raise Refused("gpu.rim_signer_expired", manifest.chain[0].common_name)
    if rules.signer_min is not None and manifest.signed_from < rules.signer_min:
        raise Refused("gpu.rim_below_floor", manifest.chain[0].common_name)
    return manifest
