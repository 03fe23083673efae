"""The roots that a relying party accepts, by the SHA-256 of their key (DESIGN 4; gpu.md 5).

A device's chain must not end in the manifests' root, nor the other way round: three separate anchors.
The device root exists in two certificates with one key, so keys are pinned, not certificates.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from attestation.pki.pins import Pin
from attestation.pki.x509 import Certificate
from schemas.errors import Refused

Anchor: TypeAlias = Literal["device", "manifest", "service"]

NVIDIA_DEVICE_ROOT: Final = "a90c4eb5acfd3e3d03a25db6a26b84f720ad0503196c627c21ddd48dd85b06a4"
"""NVIDIA Device Identity CA."""
NVIDIA_MANIFEST_ROOT: Final = "dec1dc316477aa851eebdf51327ae9f864bc8d89254657ed1e7eb9168af1e1a3"
"""NVIDIA CoRIM signing Root CA."""


@dataclass(frozen=True, slots=True, eq=False)
class Roots:
    """Accepted keys by the SHA-256 of their SubjectPublicKeyInfo, in hex. Compared by identity."""

    device: Mapping[str, Pin]
    manifest: Mapping[str, Pin]
    service: Mapping[str, Pin]
    """The attestation service's intermediates or root: NVIDIA's key sets do not contain a root."""

    @staticmethod
    def nvidia(listed: Iterable[tuple[Anchor, str, str, bool]] = ()) -> Roots:
        """NVIDIA's roots, and any (anchor, name, digest, simulated) that was listed explicitly."""
        pins: dict[Anchor, dict[str, Pin]] = {
            "device": {NVIDIA_DEVICE_ROOT: Pin("NVIDIA", simulated=False)},
            "manifest": {NVIDIA_MANIFEST_ROOT: Pin("NVIDIA", simulated=False)},
            "service": {},
        }
        for anchor, name, digest, simulated in listed:
            pins[anchor].setdefault(digest, Pin(name, simulated))
        return Roots(**pins)

    @property
    def simulated(self) -> dict[str, str]:
        """Digest → name of every made-up root that is accepted, whatever for."""
        return {
            digest: pin.name
            for pins in (self.device, self.manifest, self.service)
            for digest, pin in pins.items()
            if pin.simulated
        }

    def pin_of(self, root: Certificate, anchor: Anchor) -> Pin:
        """The pin of this certificate's key. Raises `Refused` (`root`): a name proves nothing."""
        pins = self.device if anchor == "device" else self.manifest if anchor == "manifest" else self.service
        pin = pins.get(root.spki_fingerprint)
        if pin is None:
            raise Refused("root", f"{root.common_name}, key {root.spki_fingerprint}, is no {anchor} root")
        return pin


NVIDIA_ROOTS: Final = Roots.nvidia()
