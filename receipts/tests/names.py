"""Who, what and when in the made-up federation of the tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

FEDERATION: Final = "care"
CLINIC: Final = "clinic.de"
CLOUD: Final = "cloud.fr"
NOW: Final = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
START: Final = int((NOW - timedelta(days=1)).timestamp())
END: Final = int((NOW + timedelta(days=365)).timestamp())
SWITCH: Final = int((NOW + timedelta(hours=1)).timestamp())
OVERLAPPED: Final = SWITCH + 3600
ENGINE: Final = "ab" * 32
MODEL: Final = "cd" * 32
MODEL_NAME: Final = "chat.small/smollm2"
TAGS: Final = "5" * 64  # digest of the policy tags: the same on both sides of a request
CHALLENGE: Final = bytes([7]) * 32
