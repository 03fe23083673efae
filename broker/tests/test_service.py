"""What one peer may make a border do, before any signature of its is looked at."""

from __future__ import annotations

import asyncio
import logging

import pytest

from broker.service import OPERATIONS, PEER_LIMITS, for_ever

VERIFIED_MS = 0.14  # one message's signature and reading, as measured
SHARE = 0.25  # of one core


def test_one_peer_alone_cannot_keep_a_border_busy() -> None:
    """With every operation at its sustained rate, and runs besides."""
    messages = PEER_LIMITS.rate + sum(limits.rate for limits in OPERATIONS.values())
    assert messages * VERIFIED_MS / 1000 < SHARE


async def test_periodic_work_that_fails_is_told_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    again, calls = asyncio.Event(), 0

    async def work() -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ValueError("once")
        again.set()

    with caplog.at_level(logging.ERROR, "comity.border"):
        task = asyncio.create_task(for_ever(work, 0.0))
        await asyncio.wait_for(again.wait(), 10)
        task.cancel()
    assert "periodic work failed" in caplog.text
