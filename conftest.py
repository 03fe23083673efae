"""Settings of the whole suite: hypothesis profiles and where recorded material lies.

HYPOTHESIS_PROFILE  `dev` (default, random), `ci` (the same examples each time), `thorough` (many)
COMITY_EVIDENCE     recorded hardware evidence; default `../shared/evidence`
COMITY_VECTORS      third-party test vectors; default `../shared/vectors`

Tests that need recorded material that is absent are skipped and say so (`-ra` prints the reason).
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

MATERIAL = {"COMITY_EVIDENCE": "evidence", "COMITY_VECTORS": "vectors"}


def pytest_configure() -> None:
    # Two busy cores make any deadline a coin toss; slow examples show in pytest's own timeout.
    quiet = (HealthCheck.too_slow,)
    settings.register_profile("dev", deadline=None, suppress_health_check=quiet, max_examples=60)
    settings.register_profile("ci", settings.get_profile("dev"), derandomize=True, print_blob=True)
    settings.register_profile("thorough", settings.get_profile("dev"), max_examples=2000)
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))
    for variable, folder in MATERIAL.items():
        os.environ.setdefault(variable, str(Path(__file__).resolve().parent.parent / "shared" / folder))


@pytest.fixture(scope="session")
def vectors() -> Path:
    """The folder of third-party vectors; skips the test where it is absent."""
    folder = Path(os.environ["COMITY_VECTORS"])
    if not folder.is_dir():
        pytest.skip(f"no test vectors at {folder} (set COMITY_VECTORS)")
    return folder
