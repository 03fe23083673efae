"""What one peer may make a border do, before any signature of its is looked at."""

from __future__ import annotations

from broker.service import OPERATIONS, PEER_LIMITS

VERIFIED_MS = 0.14  # one message's signature and reading, as measured
SHARE = 0.25  # of one core


def test_one_peer_alone_cannot_keep_a_border_busy() -> None:
    """With every operation at its sustained rate, and runs besides."""
    messages = PEER_LIMITS.rate + sum(limits.rate for limits in OPERATIONS.values())
    assert messages * VERIFIED_MS / 1000 < SHARE
