"""What is known of a root that a relying party accepts, whoever's it is (DESIGN 4).

Each vendor's room says by what its roots are pinned: AMD's and Intel's by their certificates, NVIDIA's by
their keys. AMD's pins carry their digests with them and stand in its own room.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pin:
    """A root that a relying party accepts."""

    name: str
    simulated: bool
    """Whether it is a made-up one, which had to be listed; everything under it says so (DESIGN 15)."""
