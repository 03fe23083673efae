"""What this domain offers: class, variant, model and price, as its configuration declares them.

A node realises a capability when its evidence proves that it hashed that very model; what a node
merely says about itself adds nothing here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from schemas.descriptors.capability import CapabilityDescriptor


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All offered capabilities. Immutable; a new configuration is a new catalogue."""

    entries: tuple[CapabilityDescriptor, ...]

    @classmethod
    def of(cls, entries: Iterable[CapabilityDescriptor]) -> Catalogue:
        """Keep the entries in order of their labels."""
        return cls(tuple(sorted(entries, key=lambda entry: entry.label)))

    def matching(self, capability: str, model_digest: str | None) -> list[CapabilityDescriptor]:
        """The variants that a class or `class/variant` names, best quality tier first.

        model_digest: only this very model, as in a continuation.
        """
        found = [
            entry
            for entry in self.entries
            if capability in (entry.name, entry.label) and model_digest in (None, entry.digest)
        ]
        return sorted(found, key=lambda entry: (-entry.quality.tier, entry.label))

    def by_digest(self, label: str, digest: str) -> CapabilityDescriptor | None:
        """The entry of exactly this label and model."""
        return next((each for each in self.entries if (each.label, each.digest) == (label, digest)), None)
